"""A way to a PostgreSQL server that breaks where a commit passes by."""

import select
import socket
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from urllib.parse import urlsplit

# What commits: the end of a message that holds nothing else, and the starts
# of statements that are a transaction by themselves (store/_combined.py).
COMMIT = b'COMMIT\0'
ALONE = (b'WITH message AS', b'WITH held AS', b'WITH locked AS')
PATIENCE = 30.0             # seconds

Strike = Callable[[socket.socket, socket.socket, bytes], None]


class Proxy:
    """Passes on what is said to the server of a database URL, for `with`.

    `url` leads through it. Where `strike` is set, the next commit is handed
    to it, with the sockets to the client and to the server; when it returns
    both are closed. `journeys` counts what the client has said.
    """

    def __init__(self, url: str):
        self._to = urlsplit(url)
        self.strike: Strike | None = None
        self.strikes = self.journeys = 0
        self._threads = []
        self._open = set()

    def __enter__(self):
        self._door = socket.create_server(('127.0.0.1', 0))
        before, _, _ = self._to.netloc.rpartition(':')
        self.url = self._to._replace(
            netloc=f'{before}:{self._door.getsockname()[1]}').geturl()
        self._start(self._let_in)
        return self

    def __exit__(self, *_):
        self.shut()
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)

    def shut(self) -> None:
        """Let nobody in any more."""
        with suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()

    def _start(self, *call):
        thread = threading.Thread(target=call[0], args=call[1:])
        self._threads.append(thread)
        thread.start()

    def _let_in(self):
        with suppress(OSError):     # the door is shut
            while True:
                self._start(self._pass_on, self._door.accept()[0])

    def _pass_on(self, client):
        server = socket.create_connection(
            (self._to.hostname, self._to.port))
        other = {client: server, server: client}
        self._open |= {*other}
        with closing(client), closing(server), suppress(OSError):
            while True:
                for one in select.select([*other], [], [])[0]:
                    data = one.recv(1 << 16)
                    if not data:
                        return
                    self.journeys += one is client
                    if one is client and self.strike and _commits(data):
                        strike, self.strike = self.strike, None
                        self.strikes += 1
                        return strike(client, server, data)
                    other[one].sendall(data)


def _commits(data):
    return data.endswith(COMMIT) or any(start in data for start in ALONE)


def lost_on_the_way(client, server, data):
    """The server never hears of it, but of the end of the connection."""


def answer_is_lost(client, server, data):
    """It has happened, and nobody is told."""
    server.sendall(data)
    server.recv(1 << 16)


def nothing_comes_back(client, server, data):
    """It has happened; the client waits until it loses patience."""
    answer_is_lost(client, server, data)
    client.recv(1)


class Late:
    """It reaches the server when it is `released`; then it has `passed`."""

    def __init__(self):
        self.released = threading.Event()
        self.passed = threading.Event()

    def __call__(self, client, server, data):
        self.released.wait(PATIENCE)
        answer_is_lost(client, server, data)
        self.passed.set()
