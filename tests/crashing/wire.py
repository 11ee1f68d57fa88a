"""What stands between a service and the simulator, and may do harm."""

import http.client
import threading
from collections.abc import Callable
from contextlib import closing

from stampman.simulator import Simulator

from servers import RawServer

PATIENCE = 10.0     # seconds
PART = 65_536       # bytes: not all of a large request


class Wire:
    """Passes requests on to the simulator and answers back, for `with`.

    `strike(stage, act)` has `act()` done once: `half`, when a part of the
    request was read, after which the connection ends; `taken`, when the
    provider took it and the answer is on its way.
    """

    def __init__(self, simulator: Simulator):
        self._simulator = simulator
        self._server = RawServer(self._pass_on)
        self._lock = threading.Lock()
        self._stage = self._act = None
        self.struck = threading.Event()
        self.written = threading.Event()    # an answer, after a strike
        self.url = self._server.url

    def strike(self, stage: str, act: Callable[[], None]) -> None:
        with self._lock:
            self._stage, self._act = stage, act
            self.struck.clear()
            self.written.clear()

    def _at(self, stage):
        with self._lock:
            if stage != self._stage:
                return
            self._stage = None
        self.struck.set()
        self._act()

    def __enter__(self) -> 'Wire':
        self._server.__enter__()
        return self

    def __exit__(self, *reason) -> None:
        self._server.__exit__(*reason)

    @property
    def calls(self) -> int:
        """How many requests came whole."""
        return self._server.complete_requests

    def _pass_on(self, connection, server):
        while not server.stopped.is_set():
            if self._stage == 'half':
                connection.recv(PART)
                self._at('half')
                return
            request = server.read_request(connection)
            if request is None:
                return
            raw = self._answer_of(request)
            self._at('taken')
            connection.sendall(raw)
            self.written.set()

    def _answer_of(self, request):
        """Ask the simulator; return the answer as bytes."""
        upstream = http.client.HTTPConnection(
            '127.0.0.1', self._simulator.port, timeout=PATIENCE)
        with closing(upstream):
            upstream.request(request.method, request.path, request.body,
                             dict(request.headers))
            answer = upstream.getresponse()
            body = answer.read()
        head = [f'HTTP/1.1 {answer.status} {answer.reason}', *(
            f'{name}: {value}' for name, value in answer.getheaders())]
        return '\r\n'.join([*head, '', '']).encode('latin-1') + body
