"""An SMTP relay on loopback: RFC 5321 with AUTH, SIZE, 8BITMIME, SMTPUTF8.

It is strict where a relay may be: order, syntax, parameters, the form of
the message. A fault is done at its stage (`connect`, `ehlo`, `auth`, `mail`,
`rcpt`, `data`, and `dot`, which ends the message), once the command is found
to be in order. Up to `auth` nobody knows yet whether the client will send:
there a rule is done whatever it is `on`. Who keeps a connection for the next
message does not come by `connect`, `ehlo` and `auth` again.
"""

import socket
import socketserver
import ssl
import threading
from collections.abc import Collection, Mapping
from typing import NamedTuple

from stampman.simulator._smtp_session import Session
from stampman.simulator.faults import Faults
from stampman.simulator.ledger import Ledger


class Limits(NamedTuple):
    """What one connection may ask for; sizes in bytes, times in seconds."""

    size: int = 26_214_400
    recipients: int = 100
    messages: int | None = None
    idle: float = 300.0


class SmtpDoor:
    """The relay; `port` is known at once, connections are served from
    `start` to `stop`.

    `accounts` are passwords by their users: with them AUTH is required,
    without them anything is let in. `domains` are those that may send, as
    A-labels in lower case (None: all). `tls` offers STARTTLS, and AUTH only
    behind it; with `implicit` a connection begins with TLS.
    """

    def __init__(self, ledger: Ledger, faults: Faults, *, port: int = 0,
                 accounts: Mapping[str, str] | None = None,
                 domains: Collection[str] | None = None,
                 tls: ssl.SSLContext | None = None, implicit: bool = False,
                 limits: Limits = Limits()):
        """Raises OSError where the port is taken."""
        self.ledger = ledger
        self.faults = faults
        self.accounts = accounts or {}
        self.domains = domains
        self.tls = tls
        self.implicit = implicit
        self.limits = limits
        self._server = _Listener(self, port)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,))

    def start(self) -> None:
        """Serve, in threads of its own."""
        self._thread.start()

    def stop(self) -> None:
        """End every connection, and the faults that wait."""
        self.faults.stopping.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.hang_up()
        self._server.server_close()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()


class _Listener(socketserver.ThreadingTCPServer):
    """Knows its connections, to end them; closing it waits for their
    threads."""

    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, door, port):
        self.door = door
        self._open = set()
        self._is_over = False
        self._lock = threading.Lock()
        super().__init__(('127.0.0.1', port), None)

    def finish_request(self, request, client_address):
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        Session(self.door, self.keep(request), self.keep).serve()

    def shutdown_request(self, request):
        super().shutdown_request(request)
        with self._lock:    # with TLS it was another one that was closed
            self._open = {one for one in self._open if one.fileno() >= 0}

    def keep(self, connection):
        """Remember a connection, to end it with all others."""
        with self._lock:
            self._open.add(connection)
            if self._is_over:
                _hang_up(connection)
        return connection

    def hang_up(self):
        with self._lock:
            self._is_over = True
            for connection in self._open:
                _hang_up(connection)


def _hang_up(connection):
    try:
        # An SSLSocket's own would take the keys from who is reading.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError:
        pass            # the client was faster
