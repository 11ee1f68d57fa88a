"""A light HTTP client with many connections, in a process of its own.

`python -m bench.load HOST PORT` reads one whole HTTP request from its input
and sends it again and again: by so many clients, each of which waits for its
answer (`--clients`), or at times that ask for no answer (`--rate`, Poisson;
then the time of an answer counts from when its request was due, not from
when it could be sent). It prints `begin` when the warm-up is over, then a
line of JSON: a `Result`.

One thread and bare epoll: asyncio would cost twice as much, beside servers
that are measured on the same cores.
"""

import argparse
import json
import math
import random
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

clock = time.perf_counter
PATIENCE = 30.0     # seconds for what is still open after an open loop
LOOKS = 0.1         # seconds
ONE_READ = 1 << 16  # bytes


class Answer(NamedTuple):
    """When its request was due, how long it took (seconds), its status."""

    began: float
    took: float
    status: int


class Result(NamedTuple):
    """What was seen in `seconds`: answers by status, requests that got
    none, percentiles of the time an answer took, in milliseconds, and the
    share of a core that the client itself took."""

    seconds: float
    statuses: dict[str, int]
    failed: int
    p50: float
    p99: float
    longest: float
    own: float


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the least value that `share` of all are not above."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def status_of(data: bytes) -> int:
    """Return the status of a whole answer; 0 while some of it is missing.

    Raises ValueError where its length is not told.
    """
    end = data.find(b'\r\n\r\n')
    if end < 0:
        return 0
    head = data[:end + 2].lower()
    at = head.find(b'\r\ncontent-length:')
    if at < 0:
        raise ValueError(f'an answer without a length: {head!r}')
    length = int(head[at + 17:head.find(b'\r\n', at + 17)])
    return int(head[9:12]) if len(data) >= end + 4 + length else 0


class Connection:
    """One connection; a request that is open on it began at `began`."""

    __slots__ = ('socket', 'began', 'data')

    def __init__(self, address):
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.began = 0.0        # 0: nothing is open
        self.data = b''


class Client:
    """All connections to one server, and the answers that came."""

    def __init__(self, address: tuple[str, int], request: bytes):
        self.answers = []
        self.failures = []      # times of those that got no answer
        self._address = address
        self._request = request
        self._poll = select.epoll()
        self._open = {}

    def connect(self) -> Connection:
        made = Connection(self._address)
        self._open[made.socket.fileno()] = made
        self._poll.register(made.socket, select.EPOLLIN)
        return made

    def send(self, connection: Connection, began: float) -> None:
        connection.began = began
        try:
            connection.socket.sendall(self._request)
        except OSError:         # it was closed: the poll tells
            pass

    @property
    def waiting(self) -> int:
        return sum(one.began > 0 for one in self._open.values())

    def collect(self, until: float) -> Iterator[Connection]:
        """Wait for answers, at the latest until a time; give each connection
        that is free again, or a new one for one that failed."""
        # epoll itself waits for whole milliseconds.
        select.select([self._poll], (), (), max(0.0, until - clock()))
        for descriptor, _ in self._poll.poll(0):
            connection = self._open[descriptor]
            try:
                data = connection.socket.recv(ONE_READ)
            except ConnectionError:
                data = b''
            if not data:
                began = connection.began
                self._drop(connection)
                if began:
                    self.failures.append(clock())
                    yield self.connect()
                continue
            data = connection.data + data
            status = status_of(data)
            if not status:
                connection.data = data
                continue
            now, began = clock(), connection.began
            self.answers.append(Answer(began, now - began, status))
            connection.began, connection.data = 0.0, b''
            yield connection

    def is_open(self, connection: Connection) -> bool:
        return connection.socket.fileno() in self._open

    def close(self) -> None:
        for connection in [*self._open.values()]:
            self._drop(connection)
        self._poll.close()

    def _drop(self, connection):
        del self._open[connection.socket.fileno()]
        self._poll.unregister(connection.socket)
        connection.socket.close()


class Window:
    """The time that counts: it begins after a warm-up."""

    def __init__(self, warm_up: float, seconds: float,
                 begin: Callable[[], None]):
        self.since = clock() + warm_up
        self.until = self.since + seconds
        self._begin = begin
        self._cpu = None

    def goes_on(self) -> bool:
        """Say whether it is not over; it must be asked again and again."""
        now = clock()
        if self._cpu is None and now >= self.since:
            self._cpu = time.process_time()
            self._begin()
        return now < self.until

    def own(self) -> float:
        """Return the share of a core that this process took in it."""
        return (time.process_time() - self._cpu) / (clock() - self.since)


def closed_loop(client: Client, clients: int, window: Window) -> None:
    """Let each of so many send its next request when it has an answer."""
    for _ in range(clients):
        client.send(client.connect(), clock())
    while window.goes_on():
        for connection in client.collect(window.until):
            client.send(connection, clock())


def open_loop(client: Client, rate: float, window: Window,
              chance: random.Random) -> None:
    """Send so many a second, whatever becomes of those before."""
    free = []
    due = clock()
    while window.goes_on() or client.waiting:
        while due <= clock() and due < window.until:
            while free and not client.is_open(free[-1]):
                free.pop()
            client.send(free.pop() if free else client.connect(), due)
            due += chance.expovariate(rate)
        free.extend(client.collect(min(due, clock() + LOOKS)))
        if clock() > window.until + PATIENCE:
            client.failures += [window.until] * client.waiting
            return


def run(address: tuple[str, int], request: bytes, *, seconds: float,
        warm_up: float = 0.0, clients: int = 0, rate: float = 0.0,
        seed: int = 1, begin: Callable[[], None] = lambda: None) -> Result:
    """Send for so many seconds; `begin` is called after the warm-up.

    In a closed loop the answers of that time count, in an open one those to
    the requests that were due in it.
    """
    client = Client(address, request)
    window = Window(warm_up, seconds, begin)
    try:
        if rate:
            open_loop(client, rate, window, random.Random(seed))
        else:
            closed_loop(client, clients, window)
        own = window.own()
    finally:
        client.close()
    counted = [one for one in client.answers if window.since <= (
        one.began if rate else one.began + one.took) < window.until]
    took = sorted(one.took * 1000 for one in counted) or [math.nan]
    return Result(
        seconds, dict(Counter(str(one.status) for one in counted)),
        sum(at >= window.since for at in client.failures),
        percentile(took, 0.5), percentile(took, 0.99), took[-1], own)


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('host')
    parser.add_argument('port', type=int)
    parser.add_argument('--clients', type=int, default=0)
    parser.add_argument('--rate', type=float, default=0.0)
    parser.add_argument('--seconds', type=float, default=3.0)
    parser.add_argument('--warm-up', type=float, default=1.0)
    parser.add_argument('--seed', type=int, default=1)
    asked = vars(parser.parse_args(words))
    result = run(
        (asked.pop('host'), asked.pop('port')), sys.stdin.buffer.read(),
        begin=lambda: print('begin', flush=True), **asked)
    print(json.dumps(result._asdict()), flush=True)


if __name__ == '__main__':
    main(sys.argv[1:])
