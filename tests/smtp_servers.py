"""SMTP servers on loopback: a third party's, and one that breaks rules.

`MailServer` is aiosmtpd, which knows the protocol from others than us;
`Script` says what a test wants said, over a RawServer.
"""

import asyncio
import re
import socket
import threading
from typing import Any, NamedTuple

from aiosmtpd.smtp import SMTP, AuthResult

EHLO = ('250-mx.example.net\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n'
        '250-AUTH PLAIN LOGIN\r\n250 SIZE 35000000')
REPLIES = {
    'greeting': '220 mx.example.net ESMTP', 'EHLO': EHLO,
    'HELO': '250 mx.example.net', 'AUTH': '235 2.7.0 Welcome',
    'MAIL': '250 2.1.0 Ok', 'RCPT': '250 2.1.5 Ok',
    'DATA': '354 Go ahead', 'dot': '250 2.0.0 Ok: queued as 4FZx7q',
    'RSET': '250 2.0.0 Ok', 'NOOP': '250 2.0.0 Ok', 'QUIT': '221 2.0.0 Bye'}


class Mail(NamedTuple):
    """One message that was taken, with its envelope."""

    sender: str
    recipients: list[str]
    content: bytes
    options: list[str]
    is_secure: bool
    login: str | None


class MailServer:
    """aiosmtpd, for `with`; `mails` holds what it took.

    `tls` is a context for STARTTLS, or from the first byte on where
    `implicit`. `login` is the only (user name, password), `options` are
    aiosmtpd's own. `restart` ends all connections, on the same port.
    """

    def __init__(self, tls=None, implicit=False, login=None, port=0,
                 **options: Any):
        self.mails, self.connections = [], 0
        self._implicit = tls if implicit else None
        self._login = login
        self._options = {
            'enable_SMTPUTF8': True, 'hostname': 'mx.example.net',
            'tls_context': None if implicit else tls,
            'require_starttls': bool(tls) and not implicit,
            'auth_required': bool(login), 'auth_require_tls': bool(tls),
            'authenticator': self._knows, **options}
        if implicit:        # it only knows of TLS that it began itself
            self._options |= {
                'auth_require_tls': False, 'auth_required': False}
        self._listener = socket.create_server(('127.0.0.1', port))
        self.port = self._listener.getsockname()[1]

    async def handle_DATA(self, server, session, envelope):
        self.mails.append(Mail(
            envelope.mail_from, envelope.rcpt_tos, envelope.content,
            envelope.mail_options,
            bool(self._implicit or session.ssl), session.auth_data))
        return f'250 2.0.0 Ok: queued as Q{len(self.mails)}'

    def _knows(self, server, session, envelope, mechanism, data):
        name, password = data.login.decode(), data.password.decode()
        if (name, password) == self._login:
            return AuthResult(success=True, auth_data=mechanism)
        return AuthResult(success=False, handled=False)

    def _accept(self):
        self.connections += 1
        return SMTP(self, loop=self._loop, **self._options)

    def restart(self):
        self._on_loop(self._hang_up())

    def __enter__(self):
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(
            self._loop.create_server(
                self._accept, sock=self._listener, ssl=self._implicit))
        self._thread = threading.Thread(
            target=self._loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._on_loop(self._hang_up(for_good=True))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _on_loop(self, coroutine):
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _hang_up(self, for_good=False):
        if for_good:
            self._server.close()
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.sleep(0)


class Script:
    """A server's behaviour: a reply to each verb, and to `dot`.

    A reply is a text, a list of them for one time after another, or a
    function of (connection, server) after which nothing more is said.
    `heard` holds all command lines, `messages` what came complete, with the
    dots undone.
    """

    def __init__(self, **replies: Any):
        self.replies = {**REPLIES, **replies}
        self.heard, self.messages = [], []

    def __call__(self, connection, server):
        with connection.makefile('rb') as lines:
            if not self._say('greeting', connection, server):
                return
            for line in lines:
                self.heard.append(line.decode().rstrip('\r\n'))
                verb = re.match('[A-Za-z]*', self.heard[-1])[0].upper()
                if verb not in self.replies:
                    verb = 'other'
                if not self._say(verb, connection, server):
                    return
                if verb == 'DATA' and self.said.startswith('354'):
                    if not self._take(lines):
                        return
                    if not self._say('dot', connection, server):
                        return

    def _take(self, lines):
        content = []
        for line in lines:
            if line == b'.\r\n':
                self.messages.append(b''.join(content))
                return True
            content.append(line.removeprefix(b'.'))
        return False

    def _say(self, verb, connection, server):
        reply = self.replies[verb]
        if isinstance(reply, list):
            reply = reply.pop(0) if len(reply) > 1 else reply[0]
        if not isinstance(reply, str):
            reply(connection, server)
            return False
        self.said = reply
        connection.sendall(f'{reply}\r\n'.encode())
        return not reply.startswith('421')
