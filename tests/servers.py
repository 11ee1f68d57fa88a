"""Real servers on loopback that stand in for providers, good and bad.

`Recorder` speaks HTTP as it should and keeps what it was asked; `RawServer`
hands each connection to a function of the test, which may break every rule.
Neither imports anything of Stampman.
"""

import json
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable, Mapping
from email.message import Message
from http.client import parse_headers
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import urlsplit

PATIENCE = 10.0     # seconds after which a test that waits in vain fails


class Recorded(NamedTuple):
    """One request as it arrived; `headers` are case-insensitive."""

    method: str
    path: str
    query: str
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON; raises ValueError where it is none."""
        return json.loads(self.body)


class Given(NamedTuple):
    """One answer; a body that is not bytes is sent as JSON."""

    status: int
    body: Any = b''
    headers: Mapping[str, str] = {}


NOTHING_SET = Given(500, b'no answer set')


class Recorder:
    """A provider over HTTP/1.1 with keep-alive, for `with`.

    `requests` holds every request in the order of arrival, and `connections`
    counts the connections that were made.
    """

    def __init__(self, tls: ssl.SSLContext | None = None):
        self._requests = []
        self._scripted = deque()
        self._default = NOTHING_SET
        self._changed = threading.Condition()
        self._open = threading.Event()
        self._open.set()
        self._server = _Listener(self, tls)
        scheme = 'https' if tls else 'http'
        self.port = self._server.server_address[1]
        self.url = f'{scheme}://127.0.0.1:{self.port}'

    @property
    def requests(self) -> list[Recorded]:
        with self._changed:
            return list(self._requests)

    @property
    def connections(self) -> int:
        return self._server.accepted

    def answer(self, status: int, body: Any = b'',
               headers: Mapping[str, str] = {}) -> None:
        """Set what is answered when no scripted answer is left."""
        self._default = Given(status, body, headers)

    def answer_by(self, answer: Callable[[Recorded], Given]) -> None:
        """Set what makes the answer from the request, when no scripted one
        is left."""
        self._default = answer

    def script(self, *answers: Given | tuple | int) -> None:
        """Queue answers, each used for one request, in this order."""
        for answer in answers:
            parts = (answer,) if isinstance(answer, int) else answer
            self._scripted.append(Given(*parts))

    def hold(self) -> None:
        """Let every request wait, once it is recorded, for `release`."""
        self._open.clear()

    def release(self) -> None:
        """Let the requests that are held, and all later ones, go on."""
        self._open.set()

    def wait_for(self, count: int, seconds: float = PATIENCE) -> None:
        """Return as soon as `count` requests have come.

        Raises AssertionError where they have not after `seconds`.
        """
        with self._changed:
            came = self._changed.wait_for(
                lambda: len(self._requests) >= count, seconds)
            assert came, f'{len(self._requests)} of {count} requests came'

    def take(self, request: Recorded) -> Given:
        """Record a request and return its answer; called by the server."""
        with self._changed:
            self._requests.append(request)
            given = (self._scripted.popleft() if self._scripted
                     else self._default)
            self._changed.notify_all()
        self._open.wait(PATIENCE)
        return given(request) if callable(given) else given

    def __enter__(self):
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.release()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server.hang_up()


class _Listener(ThreadingHTTPServer):
    """The Recorder's sockets; knows them all, to end with the test."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, recorder, tls):
        self.recorder = recorder
        self.tls = tls
        self.accepted = 0
        self._sockets = set()
        self._lock = threading.Lock()
        super().__init__(('127.0.0.1', 0), _Door)

    def finish_request(self, request, client_address):
        with self._lock:
            self.accepted += 1
            self._sockets.add(request)
        if self.tls:
            request = self.tls.wrap_socket(request, server_side=True)
            with self._lock:
                self._sockets.add(request)
        with request:
            super().finish_request(request, client_address)

    def shutdown_request(self, request):
        with self._lock:
            self._sockets.discard(request)
        super().shutdown_request(request)

    def hang_up(self):
        with self._lock:
            for connection in self._sockets:
                hang_up(connection)

    def handle_error(self, request, client_address):
        """A client that goes away in the middle is none of our troubles."""


class _Door(BaseHTTPRequestHandler):
    """One connection of a Recorder."""

    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True

    def parse_request(self):
        """Any method is answered in the same way."""
        if not super().parse_request():
            return False
        setattr(self, f'do_{self.command}', self._exchange)
        return True

    def _exchange(self):
        url = urlsplit(self.path)
        length = int(self.headers.get('Content-Length', 0))
        given = self.server.recorder.take(Recorded(
            self.command, url.path, url.query, self.headers,
            self.rfile.read(length)))
        body, headers = given.body, dict(given.headers)
        if not isinstance(body, (bytes, str)):
            body = json.dumps(body)
            headers.setdefault('Content-Type', 'application/json')
        if isinstance(body, str):
            body = body.encode()
        self.send_response(given.status)
        for name, value in headers.items():
            self.send_header(name, value)
        if given.status != 204:
            self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.command != 'HEAD' else b'')

    def log_message(self, format, *args):
        """Keep quiet: the test asks for what it wants to know."""


class RawServer:
    """A server whose every connection is in the hands of `behave`, for `with`.

    `behave(connection, server)` runs in a thread for each connection; what
    it raises, but OSError, is raised again at the end of the `with`.
    `connections` counts those accepted, `complete_requests` the requests
    that `read_request` could read whole; `tls_failures` are the reasons of
    handshakes that failed, `threads` those of all connections. A test that
    paces itself waits on `stopped`.
    """

    def __init__(self, behave: Callable[[socket.socket, 'RawServer'], None],
                 tls: ssl.SSLContext | None = None, backlog: int = 128):
        self._behave = behave
        self._tls = tls
        self._changed = threading.Condition()
        self.threads, self._sockets, self._errors = [], [], []
        self.stopped = threading.Event()
        self.connections = 0
        self.complete_requests = 0
        self.requests = []
        self.tls_failures = []
        self._listener = socket.create_server(
            ('127.0.0.1', 0), backlog=backlog)
        self.port = self._listener.getsockname()[1]
        self.url = f'{"https" if tls else "http"}://127.0.0.1:{self.port}'

    def read_request(self, connection: socket.socket) -> Recorded | None:
        """Read one whole request; return None where the peer goes first."""
        with connection.makefile('rb', 0) as stream:
            line = stream.readline().decode('latin-1').split()
            if len(line) != 3:
                return None
            headers = parse_headers(stream)
            missing = int(headers.get('Content-Length', 0))
            parts = []
            while missing:
                part = stream.read(min(missing, 65_536))
                if not part:
                    return None
                parts.append(part)
                missing -= len(part)
        url = urlsplit(line[1])
        request = Recorded(
            line[0], url.path, url.query, headers, b''.join(parts))
        with self._changed:
            self.complete_requests += 1
            self.requests.append(request)
            self._changed.notify_all()
        return request

    def wait_for(self, count: int, seconds: float = PATIENCE) -> None:
        """Return as soon as `count` connections were accepted."""
        with self._changed:
            assert self._changed.wait_for(
                lambda: self.connections >= count, seconds)

    def __enter__(self):
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()
        return self

    def __exit__(self, kind, *_):
        self.stopped.set()
        self._listener.shutdown(socket.SHUT_RDWR)   # ends the accept()
        self._acceptor.join(PATIENCE)
        self._listener.close()
        for connection in self._sockets:
            hang_up(connection)
        for thread in self.threads:
            thread.join(PATIENCE)
        if self._errors and kind is None:
            raise self._errors[0]

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(
                target=self._serve, args=(connection,), daemon=True)
            with self._changed:
                self.connections += 1
                self._sockets.append(connection)
                thread.start()      # who reads `threads` may join it
                self.threads.append(thread)
                self._changed.notify_all()

    def _serve(self, connection):
        if self._tls:
            try:
                connection = self._tls.wrap_socket(
                    connection, server_side=True)
            except OSError as error:
                self.tls_failures.append(str(error))
                return
            self._sockets.append(connection)
        with connection:
            try:
                self._behave(connection, self)
            except OSError:
                pass        # the other side has gone: what was tested for
            except BaseException as error:
                self._errors.append(error)


def after_the_request(*pieces, drip=0.0, end=None):
    """Return a server's behaviour: read the request, then say `pieces`.

    The last piece is said byte by byte where `drip` gives the seconds after
    each; `end` says how to end, else the connection stays open.
    """
    def behave(connection, server):
        assert server.read_request(connection)
        for piece in pieces[:-1] if drip else pieces:
            connection.sendall(piece)
        for byte in pieces[-1] if drip else ():
            connection.sendall(bytes([byte]))
            if server.stopped.wait(drip):
                return
        if end:
            end(connection)
        else:
            server.stopped.wait()
    return behave


def endlessly(head, piece):
    """Return a server's behaviour: say `head`, then `piece` for ever."""
    def behave(connection, server):
        server.read_request(connection)
        connection.sendall(head)
        while not server.stopped.is_set():
            connection.sendall(piece)
    return behave


def hang_up(connection: socket.socket) -> None:
    """End a connection, whoever is reading or writing on it."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass                # it had ended before


def reset(connection: socket.socket) -> None:
    """Close a connection with a RST instead of a FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                          struct.pack('ii', 1, 0))
    connection.close()


def closed_port() -> int:
    """Return a port of loopback on which nobody listens."""
    with socket.create_server(('127.0.0.1', 0)) as listener:
        return listener.getsockname()[1]
