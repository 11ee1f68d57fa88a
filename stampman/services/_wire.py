"""One HTTP exchange that ends by its deadline: what is under `requests`.

Every wait ends at the deadline, also while the peer drips; how far a request
came is known; an answer is read only so far.
"""

import http.client
import io
import re
import select
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future
from enum import StrEnum
from typing import Any, NamedTuple

from urllib3.util.ssl_ import is_ipaddress

from stampman.helpers.delivery import Clock
from stampman.helpers.turns import turns

MAX_BODY = 65_536           # bytes of an answer's body that are kept
MAX_HEAD = 65_536           # bytes up to the end of an answer's headers
MAX_LINES = 100             # lines of its headers, with the empty one
MAX_RECEIVED = 1_048_576    # bytes of a whole answer, framing and all
MAX_INTERIM = 20            # 1xx answers before the final one
LONGEST_WAIT = 3600.0       # seconds; what the system's timers surely take
PIECE = 65_536              # bytes written before we look for an answer

_STATUS_LINE = re.compile(r'HTTP/1\.([0-9]+)[ \t]+([1-9][0-9]{2})([ \t].*)?')
_NAME = re.compile('[\x21-\x39\x3b-\x7e]+')
_LENGTH = re.compile('[0-9]{1,18}')


class Stage(StrEnum):
    """How far a request came; what fails at `nothing` was surely not taken."""

    nothing = 'nothing'     # the request was not fully written
    written = 'written'     # its last byte was handed to the kernel
    answered = 'answered'   # status line and headers were read


class Trouble(OSError):
    """What went wrong, in words for people."""

    def __init__(self, reason: str, alert: bool = False):
        super().__init__(reason)
        self.alert = alert


class Early(OSError):
    """The peer answers before it has the whole request."""


class Broken(Exception):
    """An exchange that gave no answer; passes through requests as it is."""

    def __init__(self, reason: str, alert: bool):
        super().__init__(reason)
        self.reason = reason
        self.alert = alert


class Names:
    """Looks names up in threads of its own: getaddrinfo knows no time-out.

    One name is looked up by one thread at a time, however many wait for it.
    """

    def __init__(self, resolve: Callable[[str, int], list]):
        self._resolve = resolve
        self._running = {}
        self._lock = threading.Lock()

    def find(self, host: str, port: int, seconds: float) -> list:
        """Return what getaddrinfo does; raises Trouble, TimeoutError."""
        if is_ipaddress(host):
            return socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM,
                flags=socket.AI_NUMERICHOST)
        try:
            found = self._future(host, port).result(seconds)
        except socket.gaierror as error:
            raise Trouble(f'cannot look up {host}: {error.strerror}'
                          ) from error
        except UnicodeError as error:
            raise Trouble(f'cannot look up {host}: not a host name'
                          ) from error
        if not found:
            raise Trouble(f'cannot look up {host}: it has no address')
        return found

    def _future(self, host, port):
        with self._lock:
            running = self._running.get((host, port))
            if running is None:
                running = Future()
                threading.Thread(target=self._look_up, daemon=True,
                                 args=(host, port, running)).start()
                self._running[host, port] = running
            return running

    def _look_up(self, host, port, running):
        try:
            found, failure = self._resolve(host, port), None
        except Exception as error:
            found, failure = None, error
        with self._lock:
            del self._running[host, port]
        if failure:
            running.set_exception(failure)
        else:
            running.set_result(found)


class Means(NamedTuple):
    """What all calls of a transport share; limits are in seconds."""

    clock: Clock
    names: Names
    tls: Callable[[], ssl.SSLContext]
    connect_limit: float
    idle_limit: float


class Call:
    """The time one call has, and how far it came.

    requests hands it down to the connection, as any other time-out.
    """

    def __init__(self, means: Means, deadline: float,
                 max_body: int = MAX_BODY):
        self.means = means
        self.deadline = deadline
        self.max_body = max_body
        self.stage = Stage.nothing

    def left(self, until: float | None = None) -> float:
        """Return the seconds to the deadline, or to `until` where that is
        before; raises TimeoutError where there are none."""
        until = self.deadline if until is None else min(until, self.deadline)
        seconds = until - self.means.clock.monotonic()
        if seconds <= 0:
            raise TimeoutError
        return min(seconds, LONGEST_WAIT)


class Wire:
    """A connected socket for one call after another: all I/O ends in time.

    `left` returns the seconds that are left, or raises TimeoutError.
    """

    def __init__(self, sock: socket.socket, left: Callable[[], float]):
        self._sock = sock
        self.begin(left)

    def begin(self, left: Callable[[], float]) -> None:
        """From here on the wire is used for another call."""
        self._left = left
        self.in_head = True         # an end is no answer
        self.ended = False          # the answer is read; nothing may follow
        self.spilled = False        # but something did
        self._received = 0
        self._early = b''
        self._watching = True

    # -- what http.client and urllib3 expect of a socket -------------------

    def makefile(self, mode: str) -> io.BufferedReader:
        return _Inflow(_Inlet(self))

    def fileno(self) -> int:
        return self._sock.fileno()

    def settimeout(self, seconds: Any) -> None:
        """Do nothing: the call's deadline holds, and no other."""

    def close(self) -> None:
        """Do nothing: http.client closes before it has read the body."""

    # -- the I/O -----------------------------------------------------------

    def drop(self) -> None:
        """Close the connection."""
        self._sock.close()

    def write(self, data: bytes) -> None:
        """Hand all of `data` to the kernel; not a byte after the deadline.

        Raises Early where a final answer comes first.
        """
        unsent = memoryview(data)
        self._sock.settimeout(0)
        self._left()
        while True:
            try:
                unsent = unsent[self._sock.send(unsent[:PIECE]):]
            except (BlockingIOError, ssl.SSLWantReadError,
                    ssl.SSLWantWriteError):
                pass
            if not unsent:
                return
            self._wait_for_room()

    def _wait_for_room(self):
        poll = select.poll()
        poll.register(self._sock, select.POLLOUT
                      | (select.POLLIN if self._watching else 0))
        with turns.away:
            events = poll.poll(self._left() * 1000)
        if not events:
            raise TimeoutError
        if self._watching and events[0][1] & select.POLLIN:
            self._listen()

    def _listen(self):
        """Take in what the peer says while we write."""
        try:
            heard = self._sock.recv(4096)
        except (BlockingIOError, ssl.SSLWantReadError):
            return          # the talk of TLS itself
        if not heard:
            raise Trouble('the connection was closed before the request '
                          'was fully written')
        self._early += heard
        self._judge_early()

    def _judge_early(self):
        """Raise Early for a final answer; HTTP has interim ones too."""
        if len(self._early) > 9:
            self._watching = False
            if self._early[9:10] != b'1':       # HTTP/1.1 1xx: go on
                raise Early

    def read_into(self, buffer) -> int:
        """Read what has come, at least a byte; return 0 at the end."""
        if self.ended:
            return 0
        if self._early:
            count = min(len(buffer), len(self._early))
            buffer[:count] = self._early[:count]
            self._early = self._early[count:]
        else:
            self._sock.settimeout(self._left())
            with turns.away:
                count = self._sock.recv_into(buffer)
        self._received += count
        if self.in_head and not count:
            raise Trouble('the connection was closed before the end of the '
                          'answer\'s headers')
        if self._received > (MAX_HEAD if self.in_head else MAX_RECEIVED):
            raise Trouble('the answer is too large')
        return count


class _Inlet(io.RawIOBase):
    """A wire as the raw stream under a buffered one."""

    def __init__(self, wire):
        self.wire = wire

    def readable(self):
        return True

    def readinto(self, buffer):
        return self.wire.read_into(buffer)


class _Inflow(io.BufferedReader):
    """What http.client reads an answer from, and closes at its end."""

    def close(self):
        if not self.closed:
            self.raw.wire.ended = True
            self.raw.wire.spilled = bool(self.peek(1))
        super().close()


class Reply(http.client.HTTPResponse):
    """An answer: its head is read here, strictly, its body by http.client.

    `headers` have their names in lower case. What is not HTTP raises
    HTTPException.
    """

    def begin(self):
        """Read the head; interim ones before it are passed over, but not
        for ever."""
        for _ in range(MAX_INTERIM):
            found = _STATUS_LINE.fullmatch(self._line())
            if not found:
                raise http.client.HTTPException('no status line')
            self.headers = self._fields()
            self.version = 10 if found[1] == '0' else 11
            self.status = int(found[2])
            if self.status == 101 or self.status >= 200:
                return
        raise Trouble('interim answers without end')

    def frame(self) -> None:
        """Find out where the body ends, by the head."""
        has_none = self.status in (204, 304) or self._method == 'HEAD'
        encoding = self.headers.get('transfer-encoding', '')
        self.chunked = not has_none and encoding.lower() == 'chunked'
        self.chunk_left = None
        self.length = None
        if has_none:
            self.length = 0
        elif not self.chunked:
            self.length = _length(self.headers.get('content-length', ''))
        self.will_close = self._check_close() or (
            self.length is None and not self.chunked)

    def _fields(self):
        fields, name = {}, ''
        for _ in range(MAX_LINES):
            line = self._line()
            if not line:
                return fields
            if name and line[0] in ' \t':       # the field goes on
                fields[name] = f'{fields[name]}{line}'.rstrip(' \t')
                continue
            name, colon, value = line.partition(':')
            name, value = name.lower(), value.strip(' \t')
            if not (colon and _NAME.fullmatch(name)):
                raise http.client.HTTPException('no header')
            fields[name] = (f'{fields[name]}, {value}' if name in fields
                            else value)
        raise http.client.HTTPException('too many headers')

    def _line(self):
        line = self.fp.readline().decode('latin-1')
        line = line.removesuffix('\n').removesuffix('\r')
        if '\r' in line or '\0' in line:
            raise http.client.HTTPException('a line in a line')
        return line


def _length(told):
    """Return what Content-Length says; None: the connection's end tells."""
    first, *others = {length.strip() for length in told.split(',')}
    if others:
        raise http.client.HTTPException('lengths that contradict each other')
    return int(first) if _LENGTH.fullmatch(first) else None
