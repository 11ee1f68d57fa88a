"""A provider that takes everything, in a process of its own.

`python -m bench.provider --delay 200` prints its port. It answers each POST
as SendGrid does, after so many milliseconds, and any GET with how many it
has taken: `{"taken": 17}`. One thread and bare epoll, as in `load`.
"""

import argparse
import heapq
import json
import select
import socket
import sys
import time
from collections.abc import Sequence

ONE_READ = 1 << 18      # bytes
BACKLOG = 1024          # connections that wait to be accepted


def is_whole(data: bytes) -> bool:
    """Say whether a request has come to its end."""
    end = data.find(b'\r\n\r\n')
    if end < 0:
        return False
    head = data[:end + 2].lower()
    at = head.find(b'\r\ncontent-length:')
    length = 0 if at < 0 else int(
        head[at + 17:head.find(b'\r\n', at + 17)])
    return len(data) >= end + 4 + length


class Provider:
    """`serve` does not return; `port` is known before."""

    def __init__(self, delay: float = 0.0):
        self.taken = 0
        self._delay = delay         # seconds
        self._listener = socket.create_server(
            ('127.0.0.1', 0), backlog=BACKLOG)
        self.port = self._listener.getsockname()[1]
        self._poll = select.epoll()
        self._poll.register(self._listener, select.EPOLLIN)
        self._open = {}             # sockets by descriptor
        self._data = {}             # what has come of a request
        self._due = []              # answers: when, number, socket

    def serve(self) -> None:
        listening = self._listener.fileno()
        while True:
            wait = max(0.0, self._due[0][0] - time.monotonic()
                       ) if self._due else None
            for descriptor, _ in self._poll.poll(wait):
                if descriptor == listening:
                    self._accept()
                else:
                    self._read(descriptor)
            while self._due and self._due[0][0] <= time.monotonic():
                _, number, connection = heapq.heappop(self._due)
                self._answer(number, connection)

    def _accept(self):
        connection, _ = self._listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        descriptor = connection.fileno()
        self._open[descriptor], self._data[descriptor] = connection, b''
        self._poll.register(descriptor, select.EPOLLIN)

    def _read(self, descriptor):
        connection = self._open[descriptor]
        try:
            data = connection.recv(ONE_READ)
        except ConnectionError:
            data = b''
        if not data:
            self._poll.unregister(descriptor)
            del self._open[descriptor], self._data[descriptor]
            connection.close()
            return
        data = self._data[descriptor] + data
        if not is_whole(data):
            self._data[descriptor] = data
            return
        self._data[descriptor] = b''
        if data.startswith(b'GET '):
            self._tell(connection)
            return
        self.taken += 1
        if self._delay:
            heapq.heappush(self._due, (
                time.monotonic() + self._delay, self.taken, connection))
        else:
            self._answer(self.taken, connection)

    def _answer(self, number, connection):
        try:
            connection.sendall(
                b'HTTP/1.1 202 Accepted\r\nServer: bench\r\n'
                b'X-Message-Id: bench-%d\r\nContent-Length: 0\r\n\r\n'
                % number)
        except OSError:     # it has gone meanwhile
            pass

    def _tell(self, connection):
        body = json.dumps({'taken': self.taken}).encode()
        connection.sendall(
            b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n'
            b'Content-Length: %d\r\n\r\n%s' % (len(body), body))


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('--delay', type=float, default=0.0,
                        help='milliseconds')
    provider = Provider(parser.parse_args(words).delay / 1000)
    print(provider.port, flush=True)
    provider.serve()


if __name__ == '__main__':
    main(sys.argv[1:])
