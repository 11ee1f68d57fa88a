"""One connection to the simulator: requests in, answers and faults out.

An answer is written in one piece, so that a fault can be done to its bytes.
"""

import os
import re
import select
import socket
import struct
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

from stampman.simulator.exchange import (
    Reply, Request, Verdict, as_text)
from stampman.simulator.faults import PATTERNS

MAX_BODY = 64 * 1024 * 1024     # bytes of any request
GARBAGE = b'\x15\x03\x01\x00\x02\x02\x46 this is not HTTP\r\n\r\n'
FILLER = b' ' * 65_536
LOOK = 0.1      # seconds between looks at whether a client is still there


class BadBody(Exception):
    """Raised where a request has no body that can be read; holds the
    answer."""

    def __init__(self, reply: Reply):
        super().__init__(reply.status)
        self.reply = reply


class Connection(BaseHTTPRequestHandler):
    """Serves a connection by the `simulator` that its server holds."""

    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True

    @property
    def simulator(self):
        return self.server.simulator

    def handle(self):
        """Who goes away in the middle is no error of ours."""
        try:
            super().handle()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def log_message(self, format, *args):
        """The ledger's calls are the log."""

    def do_GET(self):
        """Serve one request, whatever its method."""
        try:
            parts = urlsplit(self.path)
        except ValueError:      # such as `http://[`
            self.close_connection = True
            self.send(as_text(400, 'the target of the request is no URL'))
            return
        provider = self.simulator.provider_at(parts.path)
        if provider is None:
            self.send(self._controlled(parts))
            return
        path = parts.path.removeprefix(f'/{provider.prefix}')
        on = ('send' if provider.is_sending(self.command, path) else 'probe')
        rule = self.simulator.faults.choose(
            provider.name, lambda rule: rule.what not in PATTERNS
            and rule.on in (on, 'any'))
        if rule and rule.what == 'reset' and not rule.took:
            self._note(provider, parts.path, 'reset', False)
            self.reset()
            return
        try:
            verdict = provider.answer(self._request(parts, path))
        except BadBody as bad:
            verdict = Verdict(bad.reply)
        if on == 'send' and verdict.taken:
            verdict = self._rejected(provider, verdict)
        self._finish(provider, parts.path, rule, verdict)

    do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = do_GET

    def _controlled(self, parts):
        try:
            return self.simulator.control.answer(
                self._request(parts, parts.path))
        except BadBody as bad:
            return bad.reply

    def _request(self, parts, path):
        """Read the body; raises BadBody."""
        headers = {}
        for name, value in self.headers.items():
            name = name.lower()
            headers[name] = (f'{headers[name]},{value}' if name in headers
                             else value)
        length = headers.get('content-length', '0')
        if 'transfer-encoding' in headers or not re.fullmatch(
                '[0-9]{1,18}', length):
            self.close_connection = True
            raise BadBody(as_text(411, 'Content-Length is required'))
        if int(length) > MAX_BODY:
            self.close_connection = True
            raise BadBody(as_text(413, 'the request is too large'))
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise ConnectionResetError('the request has no end')
        return Request(self.command, parts.path, path, parts.query, headers,
                       body)

    def _rejected(self, provider, verdict):
        rule = self.simulator.faults.choose(
            provider.name, lambda rule: rule.what == 'reject' and any(
                rule.matches(one.email) for one in verdict.taken.recipients))
        return provider.rejecting(verdict, rule.matches) if rule else verdict

    def _finish(self, provider, path, rule, verdict):
        """Write down what is taken, and then answer, or not."""
        deed = DEEDS.get(rule.what) if rule else None
        reply = self._replaced(provider, rule, verdict)
        took = verdict.taken is not None and (rule is None or rule.took)
        if took:
            self.simulator.ledger.take(provider.name, verdict.taken)
        self._note(provider, path, rule.what if deed else reply.status, took)
        if deed:
            deed(self, rule, reply)
        else:
            self.send(reply)

    def _replaced(self, provider, rule, verdict):
        """Return the answer, or what stands in its place by a rule."""
        what = rule.what if rule else None
        if what == 'status':
            return Reply(rule.value, rule.body.encode(),
                         tuple(rule.headers.items()))
        if what == 'redirect':
            return Reply(307, b'', (('Location', rule.value),))
        if what in ('error', 'rate_limit'):
            word = rule.value if what == 'error' else 'RATE_LIMIT'
            return provider.error(word, verdict.taken) or verdict.reply
        return verdict.reply

    def _note(self, provider, path, answered, took):
        self.simulator.ledger.call(provider.name, path, answered, took)

    def send(self, reply: Reply) -> None:
        """Answer with `reply`."""
        self.wfile.write(self.written(reply))

    def written(self, reply: Reply, length: int | None = -1) -> bytes:
        """Return an answer's bytes, which tell its length or, where
        `length` is given, that one; None: the end of the connection is its
        end."""
        if length is None:
            self.close_connection = True
        elif length < 0:
            length = len(reply.body)
        lines = [f'HTTP/1.1 {reply.status} {_phrase(reply.status)}',
                 f'Date: {formatdate(self.simulator.now(), usegmt=True)}',
                 *(f'{name}: {value}' for name, value in reply.headers)]
        if length is not None and not _is_empty(reply.status):
            lines.append(f'Content-Length: {length}')
        if self.close_connection:
            lines.append('Connection: close')
        head = '\r\n'.join((*lines, '', '')).encode('latin-1')
        bare = self.command == 'HEAD' or _is_empty(reply.status)
        return head if bare else head + reply.body

    def reset(self) -> None:
        """End the connection with a RST instead of a FIN."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                   struct.pack('ii', 1, 0))
        os.close(self.connection.detach())

    def hang(self, seconds: float | None) -> None:
        """Say nothing for so long, or until the client or the simulator
        has gone."""
        self.close_connection = True
        clock = self.simulator.clock.monotonic
        end = None if seconds is None else clock() + seconds
        while not self.simulator.faults.wait(0):
            left = LOOK if end is None else min(LOOK, end - clock())
            if left <= 0 or self._has_gone(left):
                return

    def _has_gone(self, seconds):
        readable, _, _ = select.select([self.connection], [], [], seconds)
        return bool(readable) and not self.connection.recv(
            4096, socket.MSG_DONTWAIT)


def _phrase(status):
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return 'Simulated'


def _is_empty(status):
    return status < 200 or status in (204, 304)


def _hang(connection, rule, reply):
    connection.hang(rule.value)


def _slow(connection, rule, reply):
    if not connection.simulator.faults.wait(rule.value):
        connection.send(reply)


def _drip(connection, rule, reply):
    connection.close_connection = True
    for byte in connection.written(reply):
        connection.wfile.write(bytes((byte,)))
        if connection.simulator.faults.wait(rule.value):
            return


def _reset(connection, rule, reply):
    connection.reset()


def _close(connection, rule, reply):
    connection.close_connection = True


def _garbage(connection, rule, reply):
    connection.close_connection = True
    connection.wfile.write(GARBAGE)


def _huge(connection, rule, reply):
    length = max(rule.value, len(reply.body))
    connection.wfile.write(connection.written(reply, length))
    left = length - len(reply.body)
    while left > 0 and not connection.simulator.faults.wait(0):
        connection.wfile.write(FILLER[:left])
        left -= len(FILLER)


def _endless(connection, rule, reply):
    connection.wfile.write(connection.written(reply, None))
    while not connection.simulator.faults.wait(0):
        connection.wfile.write(FILLER)


def _truncated(connection, rule, reply):
    connection.close_connection = True
    whole = connection.written(reply)
    cut = len(whole) - 1
    connection.wfile.write(
        whole[:cut if rule.value is None else min(rule.value, cut)])


# What is done to the connection; all other faults replace the answer.
DEEDS = {'hang': _hang, 'slow': _slow, 'drip': _drip, 'reset': _reset,
         'close': _close, 'garbage': _garbage, 'huge': _huge,
         'endless': _endless, 'truncated': _truncated}
