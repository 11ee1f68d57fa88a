"""TLS in front of a PostgreSQL server of the tests, whose build has none.

As at Heroku: who does not ask for TLS is turned away, and the certificate is
of nobody that a client knows.
"""

import select
import socket
import ssl

import trustme

from servers import RawServer

# What a client sends instead of its start-up packet.
WANTS_TLS = (8).to_bytes(4) + (80877103).to_bytes(4)
WANTS_GSSAPI = (8).to_bytes(4) + (80877104).to_bytes(4)


class TlsFront(RawServer):
    """Listens on `port`, for `with`; the server is at `behind`.

    `encrypted` and `refused` count the connections with TLS and without.
    """

    def __init__(self, behind: int, context: ssl.SSLContext | None = None):
        """`context` has another certificate."""
        super().__init__(self._speak)
        self._behind = behind
        self.encrypted = self.refused = 0
        self._context = context or _unknown()

    def _speak(self, connection, _server):
        wish = connection.recv(8)
        if wish == WANTS_GSSAPI:
            connection.sendall(b'N')
            wish = connection.recv(8)
        if wish != WANTS_TLS:
            self.refused += bool(wish)
            return
        connection.sendall(b'S')
        with self._context.wrap_socket(
                connection, server_side=True) as client, \
                socket.create_connection(('127.0.0.1', self._behind)) as far:
            self.encrypted += 1
            self._pass_on(client, far)

    def _pass_on(self, client, far):
        """Carry what either side says to the other, until one ends."""
        while not self.stopped.is_set():
            ready = [client] if client.pending() else select.select(
                (client, far), (), (), 0.5)[0]
            for one in ready:
                told = one.recv(65536)
                if not told:
                    return
                (far if one is client else client).sendall(told)


def _unknown():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert('postgres.invalid').configure_cert(context)
    return context
