"""One SMTP conversation that ends by its deadline, over one connection.

Commands and extensions are smtplib's; every wait, every reply and the two
handshakes are held here. What a server says before it is asked is never
taken for an answer.
"""

import base64
import binascii
import contextlib
import hmac
import re
import smtplib
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import NamedTuple

from stampman.helpers.turns import turns
from stampman.services._dial import dial, in_words
from stampman.services._smtp_rules import Step
from stampman.services._wire import (
    LONGEST_WAIT, Early, Means, Stage, Trouble, Wire)

MAX_LINE = 8192         # bytes of one line of a reply
MAX_LINES = 100         # lines of one reply
MAX_CHALLENGES = 3      # questions before a login is over
_LINE = re.compile(rb'([1-5][0-9]{2})(?:([ -])(.*))?', re.DOTALL)
_ENHANCED = re.compile(r'([245])\.[0-9]{1,3}\.[0-9]{1,3}(?=\s|$)')
_CLOSED = 'the server closed the connection'


class Server(NamedTuple):
    """Where to speak, as whom, and how it is secured.

    `tls` is `starttls`, `tls` or `none`; `own_name` is what we say we are.
    """

    host: str
    port: int
    tls: str
    username: str
    password: str
    own_name: str


class Reply(NamedTuple):
    """A whole reply: its code, its lines as one text."""

    code: int
    text: str

    @property
    def enhanced(self) -> str:
        """Its enhanced code (RFC 3463), or ''."""
        found = _ENHANCED.match(self.text)
        is_one = found and (found[1] == '2') == (self.code < 300)
        return found[0] if is_one else ''


class Refused(Exception):
    """A reply that ends what was meant to be said."""

    def __init__(self, step: Step, reply: Reply):
        super().__init__(f'{step}: {reply.code}')
        self.step = step
        self.reply = reply


class Unfit(Exception):
    """The server cannot be used as the settings ask; in words for people."""


class LineWire(Wire):
    """A wire for replies that come when they have been asked for."""

    def begin(self, left):
        super().begin(left)
        self.in_head = False        # an end is told by who reads

    @property
    def sock(self) -> socket.socket:
        return self._sock

    def _judge_early(self):
        self._watching = False
        raise Early

    def has_heard(self) -> bool:
        """Say, without a wait, whether the peer has said more.

        Raises Trouble where it has closed the connection.
        """
        self._sock.settimeout(0)
        try:
            heard = self._sock.recv(4096)
        except (BlockingIOError, ssl.SSLWantReadError):
            return bool(self._early)        # or the talk of TLS itself
        if not heard:
            raise Trouble(_CLOSED)
        self._early += heard
        return True


class Conversation(smtplib.SMTP):
    """One connection to a server, for one message after another.

    `step` is what was asked last and `stage` how far the content of the
    message came. Each method may raise Trouble, TimeoutError or another
    OSError; then the connection is of no more use.
    """

    ehlo_msg = 'EHLO'

    def __init__(self, server: Server, means: Means, until: float):
        """`until`, in seconds of the monotonic clock, is when it is over."""
        super().__init__(local_hostname=server.own_name)
        self.server = server
        self.means = means
        self.until = until
        self.step = Step.connect
        self.stage = Stage.nothing
        self.idle_since = 0.0       # seconds of the monotonic clock
        self.is_broken = False      # nothing more can be asked
        self.wire = None
        self.reply = None
        self._inbox = bytearray()
        self._piece = bytearray(4096)
        self._unasked = False

    def begin(self, until: float) -> None:
        """From here on it is about another message."""
        self.until = until
        self.stage = Stage.nothing
        self.wire.begin(self._left)

    def drop(self) -> None:
        """Close the connection without another word."""
        if self.wire:
            self.wire.drop()

    def leave(self) -> None:
        """Say QUIT between two messages, wait for nothing, and close."""
        with contextlib.suppress(OSError):      # it goes in any case
            self.wire.sock.setblocking(False)
            self.wire.sock.send(b'QUIT\r\n')
        self.drop()

    # -- from the first byte to the login ----------------------------------

    def open(self) -> None:
        """Connect, greet, secure the connection and log in.

        Raises Refused, and Unfit where the server lacks what is asked for.
        """
        server = self.server
        with self._in_setup() as left:
            sock = dial(self.means.names, server.host, server.port, left)
            self._over(sock, is_secure=server.tls == 'tls')
        self.step = Step.greeting
        self._expect(220, self._read())
        self._hello()
        if server.tls == 'starttls':
            self._start_tls()
        if server.username:
            self._log_in()

    @contextlib.contextmanager
    def _in_setup(self) -> Iterator:
        """Give what connects or shakes hands its own, short time."""
        clock, whole = self.means.clock, self.until
        self.until = min(whole, clock.monotonic() + self.means.connect_limit)
        with in_words(lambda: self.server.host):
            yield self._left
        self.until = whole

    def _over(self, sock, is_secure):
        """Go on over `sock`, behind a handshake."""
        self.wire = LineWire(sock, self._left)
        if is_secure:
            sock.settimeout(self._left())
            with turns.away:
                sock = self.means.tls().wrap_socket(
                    sock, server_hostname=self.server.host)
            self.wire = LineWire(sock, self._left)

    def _hello(self):
        self.step = Step.ehlo
        self.ehlo()
        is_plain = self.server.tls == 'none' and not self.server.username
        if self.reply.code in (500, 502) and is_plain:
            self.helo()
        self._expect(250, self.reply)

    def _start_tls(self):
        if not self.has_extn('starttls'):
            raise Unfit('the server offers no STARTTLS')
        self._expect(220, self.ask(Step.starttls, 'STARTTLS'))
        if self._inbox or self.wire.has_heard():
            # It would be read as if it had come over TLS (CVE-2011-0411).
            raise Trouble('the server, or somebody between, says more than '
                          'it was asked before TLS', alert=True)
        with self._in_setup():
            self._over(self.wire.sock, is_secure=True)
        self._hello()

    def _log_in(self):
        offered = self.esmtp_features.get('auth', '').upper().split()
        ways = [way for way in _LOGINS if way in offered]
        if not ways:
            raise Unfit('the server offers no login that we know: '
                        'PLAIN, LOGIN or CRAM-MD5')
        answers = _LOGINS[ways[0]](self.server)
        first = next(answers)
        reply = self.ask(Step.auth, f'AUTH {ways[0]}'
                         + (f' {_base64(first)}' if first else ''))
        for _ in range(MAX_CHALLENGES):
            if reply.code != 334:
                break
            try:
                answer = answers.send(_unbase64(reply.text))
            except (StopIteration, binascii.Error):
                break       # it asks what has no answer
            reply = self.ask(Step.auth, _base64(answer))
        self._expect(235, reply)

    def _expect(self, code, reply):
        if reply.code != code:
            raise Refused(self.step, reply)

    # -- asking and being answered -----------------------------------------

    def ask(self, step: Step, command: str) -> Reply:
        """Return the reply to one command."""
        self.step = step
        self.docmd(command)
        return self.reply

    def hand_over(self, message: bytes,
                  until_after: Callable[[], float]) -> Reply:
        """Write a message of whole lines, and its end; return the reply.

        `until_after` returns the deadline, in seconds of the monotonic
        clock, that holds once the last byte is written. A server that
        replies before that has not taken it: the stage is `nothing`, the
        code at least 400.
        """
        self.step = Step.dot
        stuffed = message.replace(b'\r\n.', b'\r\n..')
        self._unasked = bool(self._inbox) or self.wire.has_heard()
        if not self._unasked:
            try:
                self.wire.write(stuffed + b'.\r\n')
            except TimeoutError:
                raise
            except OSError as error:
                return self._why_unwritten(error)
            self.stage = Stage.written
            self.until = until_after()
        reply = self._read()
        self.stage = Stage.answered if not self._unasked else self.stage
        self.is_broken = self._unasked
        return reply

    def _why_unwritten(self, error):
        """The server may have said why, before it closed or did not."""
        self._unasked = self.is_broken = True
        try:
            return self._read()
        except OSError as unread:
            raise (unread if isinstance(error, Early) else error) from None

    # -- what smtplib asks for ---------------------------------------------

    def putcmd(self, cmd, args=''):
        """Write nothing where the server has spoken already: it goes."""
        self._unasked = bool(self._inbox) or self.wire.has_heard()
        if not self._unasked:
            super().putcmd(cmd, args)

    def send(self, s):
        self.wire.write(s.encode() if isinstance(s, str) else s)

    def getreply(self):
        reply = self._read()
        return reply.code, reply.text.encode()

    def close(self):
        self.drop()

    # -- reading -----------------------------------------------------------

    def _read(self):
        lines, code = [], None
        for _ in range(MAX_LINES):
            found = _LINE.fullmatch(self._line())
            if not found or code not in (None, found[1]):
                raise Trouble('what the server says is not SMTP')
            code = found[1]
            lines.append((found[3] or b'').decode(errors='replace').strip())
            if found[2] != b'-':
                break
        else:
            raise Trouble('the server\'s reply does not end')
        self.reply = Reply(int(code), '\n'.join(lines))
        self.is_broken |= self.reply.code == 421
        if self._unasked and self.reply.code < 400:
            raise Trouble('the server replies before it is asked')
        return self.reply

    def _line(self):
        while (end := self._inbox.find(b'\n')) < 0:
            if len(self._inbox) > MAX_LINE:
                raise Trouble('a line of the server\'s reply is too long')
            count = self.wire.read_into(self._piece)
            if not count:
                raise Trouble(_CLOSED)
            self._inbox += self._piece[:count]
        line = bytes(self._inbox[:end])
        del self._inbox[:end + 1]
        return line.removesuffix(b'\r')

    def _left(self):
        seconds = self.until - self.means.clock.monotonic()
        if seconds <= 0:
            raise TimeoutError
        return min(seconds, LONGEST_WAIT)


def _base64(text):
    return base64.b64encode(text.encode()).decode()


def _unbase64(text):
    return base64.b64decode(text, validate=True)


# Each yields what goes along with AUTH, then the answer to each challenge.

def _plain(server):
    yield f'\0{server.username}\0{server.password}'


def _login(server):
    yield ''
    yield server.username
    yield server.password


def _cram_md5(server):
    challenge = yield ''
    digest = hmac.digest(server.password.encode(), challenge, 'md5').hex()
    yield f'{server.username} {digest}'


_LOGINS = {'PLAIN': _plain, 'LOGIN': _login, 'CRAM-MD5': _cram_md5}
