"""Connections, pools and the adapter that put `_wire` under `requests`."""

import functools
import http.client
import io
import threading
import weakref
from collections import deque

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidURL
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, LocationValueError

from stampman.helpers.turns import turns
from stampman.services._dial import dial, in_words
from stampman.services._wire import (
    PIECE, Broken, Call, Reply, Stage, Trouble, Wire)

MAX_IDLE = 100      # connections to one host that are kept
MAX_WAYS = 256      # URLs for which it is known where they lead

_FAILURES = (OSError, http.client.HTTPException, HTTPError)
_LATE = {
    Stage.nothing: 'the request was not fully written in time',
    Stage.written: 'no answer in time',
    Stage.answered: 'the answer\'s body did not end in time',
}
_CUT = {
    Stage.nothing: 'the connection broke before the request was fully '
                   'written',
    Stage.written: 'the connection broke, or what came is not HTTP, before '
                   'the end of the answer\'s headers',
    Stage.answered: 'the answer\'s body was cut short',
}


class _Exchanging:
    """A connection that carries one request and one answer at a time."""

    wire = None
    call = None
    idle_since = 0.0        # seconds of the monotonic clock

    # -- setting it up -----------------------------------------------------

    def open(self, call: Call, connect) -> None:
        """Connect by `connect()` in time; raises Trouble."""
        self.call = call
        until = call.means.clock.monotonic() + call.means.connect_limit
        self._setup_left = functools.partial(call.left, until)
        with turns.away, in_words(lambda: self._peer):
            connect()

    def connect(self):
        super().connect()
        self.wire = self.sock = Wire(self.sock, self.call.left)

    @property
    def _peer(self):
        if self._tunnel_host:
            return f'{self._tunnel_host} through the proxy {self.host}'
        return f'the proxy {self.host}' if self.proxy else self.host

    def _new_conn(self):
        """Try each address, each with its share of the time."""
        return dial(self.call.means.names, self._dns_host, self.port,
                    self._setup_left)

    def _tunnel(self):
        """Ask the proxy for a way through, as urllib3 does, but in time."""
        sock = self.sock
        host = self._tunnel_host
        place = f'[{host}]' if ':' in host else host
        place = f'{place}:{self._tunnel_port}'
        lines = [f'CONNECT {place} HTTP/1.1', f'Host: {place}', *(
            f'{name}: {value}' for name, value
            in self._tunnel_headers.items() if name.lower() != 'host')]
        wire = Wire(sock, self._setup_left)
        wire.write('\r\n'.join((*lines, '', '')).encode('latin-1'))
        reply = Reply(wire, method='CONNECT')
        try:
            reply.begin()
        finally:
            reply.close()
        if reply.status != 200:
            raise Trouble(f'the proxy answered HTTP {reply.status}',
                          alert=True)
        sock.settimeout(self._setup_left())

    # -- using it ----------------------------------------------------------

    def exchange(self, call: Call, head: bytes, body: bytes, method: str
                 ) -> tuple[Reply, bytes]:
        """Write a request; return its answer and the answer's body, up to
        one byte too much."""
        self.call = call
        self.wire.begin(call.left)
        unwritten = None
        try:
            self._ask(call, head, body)
        except TimeoutError:
            raise
        except OSError as error:
            unwritten = error       # the peer may have said why: read it
        try:
            return self._answer(call, method)
        except TimeoutError:
            raise
        except (*_FAILURES, ValueError) as error:
            # ValueError is http.client's for some broken chunks.
            raise unwritten or Trouble(_why(error, call.stage)) from error

    def _ask(self, call, head, body):
        # One packet, not two, where that is no large copy.
        for piece in (head + body,) if len(body) < PIECE else (head, body):
            self.wire.write(piece)
        call.stage = Stage.written

    def _answer(self, call, method):
        reply = Reply(self.wire, method=method)
        reply.begin()
        if reply.status < 200:
            raise Trouble(f'HTTP {reply.status} is no final answer')
        self.wire.in_head = False
        if call.stage is Stage.written:
            call.stage = Stage.answered
        reply.frame()
        data = reply.read(call.max_body + 1)
        if reply.length and len(data) <= call.max_body:
            raise Trouble(_CUT[call.stage])
        return reply, data

    def drop(self):
        """Close for good: `close` lets an answer still be read."""
        self.close()
        if self.wire:
            self.wire.drop()


class _Plain(_Exchanging, HTTPConnection):
    """A connection over TCP, to the host itself or a forwarding proxy."""


class _Secure(_Exchanging, HTTPSConnection):
    """A connection over TLS, perhaps through a proxy's tunnel."""

    def connect(self):
        self.ssl_context = self.call.means.tls()
        super().connect()


class _Bounded:
    """A pool that does one exchange, whole, and never repeats it."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self._idle = deque()
        self._lock = threading.Lock()
        weakref.finalize(self, _drop_all, self._idle)

    def exchange(self, call: Call, request: PreparedRequest, target: str
                 ) -> tuple[Reply, bytes]:
        """Ask for `target`; return the answer and its body; raises
        Broken."""
        connection, keep = None, False
        headers = request.headers
        try:
            call.left()
            connection = self._take(call)
            if connection.is_closed:
                connection.open(call, lambda: self._connect(connection))
            if self.proxy and self.scheme == 'http':
                headers = {**headers, **self.proxy_headers}
            reply, data = connection.exchange(
                call, _head(request.method, target, headers),
                request.body or b'', request.method)
            keep = (call.stage is Stage.answered and reply.isclosed()
                    and not reply.will_close
                    and not connection.wire.spilled)
            return reply, data
        except _FAILURES as error:
            raise Broken(_why(error, call.stage),
                         getattr(error, 'alert', False)) from error
        finally:
            if keep:
                self._give_back(connection, call)
            elif connection:
                connection.drop()

    def close(self):
        super().close()
        _drop_all(self._idle)

    def _connect(self, connection):
        if self.proxy and self.scheme == 'https':
            self._prepare_proxy(connection)
        else:
            connection.connect()

    def _take(self, call):
        """Return a connection that is fit for a send: used just now."""
        fresh = call.means.clock.monotonic() - call.means.idle_limit
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return self._new_conn()
            if connection.idle_since > fresh and connection.is_connected:
                return connection
            connection.drop()

    def _give_back(self, connection, call):
        now = call.means.clock.monotonic()
        connection.idle_since = now
        with self._lock:
            self._idle.append(connection)
            while self._idle and (
                    len(self._idle) > MAX_IDLE or self._idle[0].idle_since
                    <= now - call.means.idle_limit):
                self._idle.popleft().drop()


class _PlainPool(_Bounded, HTTPConnectionPool):
    """Connections to one host over TCP."""

    ConnectionCls = _Plain


class _SecurePool(_Bounded, HTTPSConnectionPool):
    """Connections to one host over TLS."""

    ConnectionCls = _Secure


class Adapter(HTTPAdapter):
    """requests' adapter over our pools, for proxies that stay the same.

    `timeout` must be a Call, and the headers of a request complete.
    """

    _POOLS = {'http': _PlainPool, 'https': _SecurePool}

    def init_poolmanager(self, *args, **options):
        self._ways = {}
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = self._POOLS

    def proxy_manager_for(self, proxy, **options):
        manager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = self._POOLS
        return manager

    def send(self, request, stream=False, timeout=None, verify=True,
             cert=None, proxies=None):
        """Return the answer, whole; our TLS context verifies, always.

        Raises Broken, or InvalidURL before anything is done.
        """
        pool, target = self._ways.get(request.url) or self._find_way(
            request, proxies)
        reply, data = pool.exchange(timeout, request, target)
        response = Response()
        response.status_code = reply.status
        response.headers.update(reply.headers)
        response.raw = io.BytesIO(data)
        return response

    def close(self):
        """Drop what is idle, also of pools that urllib3 has forgotten."""
        ways, self._ways = self._ways, {}
        super().close()
        for pool, _ in tuple(ways.values()):
            pool.close()

    def _find_way(self, request, proxies):
        """Return the pool for a request, and what its first line asks for."""
        try:
            pool = self.get_connection_with_tls_context(
                request, verify=True, proxies=proxies)
        except LocationValueError as error:
            raise InvalidURL(error) from error
        if len(self._ways) >= MAX_WAYS:
            self._ways.clear()
        way = pool, self.request_url(request, proxies)
        self._ways[request.url] = way
        return way


def _drop_all(idle):
    while idle:
        idle.pop().drop()


def _head(method, target, headers):
    """Whoever made `headers` has seen to it that they hold no line break."""
    lines = (f'{method} {target} HTTP/1.1', *(
        f'{name}: {value}' for name, value in headers.items()))
    return '\r\n'.join((*lines, '', '')).encode('latin-1')


def _why(error, stage):
    """Say it without what the peer or the request said."""
    if isinstance(error, Trouble):
        return str(error)
    if isinstance(error, TimeoutError):
        return _LATE[stage]
    system = isinstance(error, OSError) and error.strerror
    return f'{_CUT[stage]}: {system}' if system else _CUT[stage]
