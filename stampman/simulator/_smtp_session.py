"""One connection of the simulated SMTP relay, command by command."""

import base64
import socket
import struct
from collections.abc import Callable

from stampman.simulator._smtp_faults import Fault, Over, answer_at
from stampman.simulator._smtp_words import (
    MAIL_PARAMETERS, NO_ROOM, Refused, mailbox, objection, parameters_in,
    path_in, read_taken, reply)
from stampman.simulator.addresses import is_among

NAME = 'localhost'
MAX_COMMAND = 12_288        # bytes; a long AUTH needs them (RFC 4954)
WRONG_PASSWORDS = 3         # on one connection, then it ends


class Session:
    """One connection to `door`.

    `keep` is told a connection that takes the place of another.
    """

    def __init__(self, door, connection: socket.socket,
                 keep: Callable[[socket.socket], socket.socket]):
        self.door = door
        self._keep = keep
        self._use(connection)
        self._encrypted = self._turned_away = self._user_known = False
        self._hello = ''            # `EHLO` or `HELO`
        self._wrong_passwords = self._messages = 0
        self._took = False
        self._forget()

    def _use(self, connection):
        connection.settimeout(self.door.limits.idle)
        self._connection = connection
        self._stream = connection.makefile('rb')

    def _forget(self):
        """Begin without a message."""
        self._sender, self._recipients = None, []
        self._parameters = {}

    def serve(self) -> None:
        """Serve the client until either side ends it."""
        try:
            if self.door.tls and self.door.implicit:
                self._encrypt()
            self._answer('connect', self._greet)
            while True:
                line = self._line()
                verb = line.split(b' ')[0].strip().upper().decode(
                    'ascii', 'replace')
                self._answer(verb if verb in COMMANDS else '?',
                             lambda: self._command(verb, line))
        except (Over, OSError):
            pass        # there is no more to say, or the client has gone
        finally:
            self._stream.close()
            self._connection.close()

    def _answer(self, what, act):
        """Say what `act` returns, and note the call."""
        self._took = False
        try:
            answer = act()
        except Refused as refusal:
            answer = refusal.reply
        except Fault as fault:
            self._note(what, fault.what)
            fault.last()
            raise
        self._note(what, answer.code)
        self._say(answer)
        if answer.code in (221, 421):
            raise Over()
        if (what, answer.code) in AFTER_REPLY:
            AFTER_REPLY[what, answer.code](self)

    def _note(self, what, answered):
        self.door.ledger.call('smtp', what, answered, self._took)

    def _say(self, answer):
        *more, last = answer.lines
        text = ''.join(f'{answer.code}-{line}\r\n' for line in more)
        raw = f'{text}{answer.code} {last}\r\n'.encode()
        if not answer.pace:
            return self.send(raw)
        for byte in raw:
            self.wait(answer.pace)
            self.send(bytes([byte]))

    def send(self, raw: bytes) -> None:
        """Send bytes as they are."""
        self._connection.sendall(raw)

    def reset(self) -> None:
        """Close the connection with a RST instead of a FIN."""
        self._connection.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        self._stream.close()
        self._connection.close()

    def wait(self, seconds: float) -> None:
        """Wait so long; raises Over where the relay stops meanwhile."""
        if self.door.faults.wait(seconds):
            raise Over()

    def _line(self):
        try:
            line = self._stream.readline(MAX_COMMAND)
            while line and not line.endswith(b'\n') \
                    and len(line) >= MAX_COMMAND:
                line = b'?' + self._stream.readline(MAX_COMMAND - 1)
        except TimeoutError:
            self._say(reply(421, f'4.4.2 {NAME} Error: timeout exceeded'))
            raise Over() from None
        if not line.endswith(b'\n'):
            raise Over()
        return line

    def _encrypt(self):
        """Whatever was sent before it is not read: it may be forged."""
        self._stream.close()
        encrypted = self.door.tls.wrap_socket(
            self._connection, server_side=True,
            do_handshake_on_connect=False)
        self._use(self._keep(encrypted))
        encrypted.do_handshake()
        self._encrypted, self._hello = True, ''
        self._forget()

    # -- commands ----------------------------------------------------------

    def _greet(self):
        self._turned_away = True    # unless the greeting says 220
        greeting = answer_at(self, 'connect', lambda: reply(
            220, f'{NAME} ESMTP simulated by Stampman'))
        self._turned_away = greeting.code != 220
        return greeting

    def _command(self, verb, line):
        try:
            text = line.decode()
        except UnicodeDecodeError:
            raise Refused(500, '5.5.2 The line is not UTF-8') from None
        if not text.endswith('\r\n') or not text[:-2].isprintable():
            raise Refused(500, '5.5.2 The line has control characters')
        if verb not in COMMANDS:
            raise Refused(500, '5.5.2 Command not recognized')
        if self._turned_away and verb != 'QUIT':
            raise Refused(503, '5.5.1 This service is not available')
        argument = text[len(verb):].strip()
        if verb in WITHOUT_ARGUMENT and argument:
            raise Refused(501, '5.5.4 This command has no argument')
        if verb in AFTER_HELLO and not self._hello:
            raise Refused(503, '5.5.1 Send EHLO first')
        return COMMANDS[verb](self, argument)

    def _ehlo(self, argument):
        return self._greeted('EHLO', argument, self._extensions())

    def _helo(self, argument):
        return self._greeted('HELO', argument, ())

    def _greeted(self, verb, argument, more):
        if not argument or ' ' in argument:
            raise Refused(501, f'5.5.4 Say {verb} with your host name')

        def act():
            self._forget()
            self._hello = verb
            return reply(250, NAME, *more)
        return answer_at(self, 'ehlo', act)

    def _extensions(self):
        offered = [f'SIZE {self.door.limits.size}', '8BITMIME', 'SMTPUTF8',
                   'ENHANCEDSTATUSCODES', 'PIPELINING']
        if self.door.tls and not self._encrypted:
            return [*offered, 'STARTTLS']
        return [*offered, 'AUTH PLAIN LOGIN']

    def _starttls(self, argument):
        if not self.door.tls:
            raise Refused(502, '5.5.1 STARTTLS is not offered')
        if self._encrypted:
            raise Refused(503, '5.5.1 TLS is already on')
        return reply(220, '2.0.0 Ready to start TLS')

    def _auth(self, argument):
        mechanism, _, initial = argument.partition(' ')
        if self.door.tls and not self._encrypted:
            raise Refused(538, '5.7.11 Encryption required')
        if self._hello != 'EHLO' or self._user_known \
                or self._sender is not None:
            raise Refused(503, '5.5.1 AUTH is not possible now')
        if mechanism.upper() not in ('PLAIN', 'LOGIN'):
            raise Refused(504, '5.5.4 This mechanism is not offered')
        user, password = (self._plain if mechanism.upper() == 'PLAIN'
                          else self._login)(initial)
        return answer_at(self, 'auth', lambda: self._known(user, password))

    def _plain(self, initial):
        parts = self._asked('', initial).split('\0')
        if len(parts) != 3:
            raise Refused(501, '5.5.2 PLAIN is authzid, user, password')
        return parts[1:]

    def _login(self, initial):
        return (self._asked('Username:', initial),
                self._asked('Password:'))

    def _asked(self, prompt, response=''):
        """Return what the client says to a challenge, decoded."""
        if not response:
            challenge = base64.b64encode(prompt.encode()).decode()
            self._say(reply(334, challenge))
            response = self._line().decode('ascii', 'replace').strip()
        if response == '*':
            raise Refused(501, '5.7.0 Authentication is cancelled')
        try:
            return base64.b64decode(
                '' if response == '=' else response, validate=True).decode()
        except ValueError:
            raise Refused(501, '5.5.2 Not base64 of UTF-8') from None

    def _known(self, user, password):
        accounts = self.door.accounts
        if accounts and accounts.get(user) != password:
            self._wrong_passwords += 1
            if self._wrong_passwords >= WRONG_PASSWORDS:
                raise Refused(421, '4.7.0 Too many wrong passwords')
            raise Refused(535, '5.7.8 Authentication credentials invalid')
        self._user_known = True
        return reply(235, '2.7.0 Authentication successful')

    def _mail(self, argument):
        limits = self.door.limits
        if self.door.accounts and not self._user_known:
            raise Refused(530, '5.7.0 Authentication required')
        if self._sender is not None:
            raise Refused(503, '5.5.1 There is a sender already')
        if limits.messages is not None and self._messages >= limits.messages:
            raise Refused(421, '4.7.0 Too many messages on one connection')
        sender, told = path_in('FROM:', argument)
        parameters = parameters_in(
            told, MAIL_PARAMETERS if self._hello == 'EHLO' else {})
        if int(parameters.get('SIZE', 0)) > limits.size:
            raise Refused(552, f'5.3.4 {NO_ROOM}')
        if sender:      # a bounce has none
            mailbox(sender, 'SMTPUTF8' in parameters, '7')
            self._require_domain(sender.rpartition('@')[2])
        if self.door.faults.is_on('smtp', 'quota'):
            raise Refused(451, '4.7.1 Maximum credits exceeded')

        def act():
            self._sender, self._parameters = sender, parameters
            return reply(250, '2.1.0 Ok')
        return answer_at(self, 'mail', act)

    def _require_domain(self, domain):
        known = self.door.domains
        if known is not None and not is_among(domain, known):
            raise Refused(553, f'5.7.1 Sender domain {domain} is not '
                          'verified for this account')

    def _rcpt(self, argument):
        if self._sender is None:
            raise Refused(503, '5.5.1 Send MAIL first')
        address, told = path_in('TO:', argument)
        parameters_in(told, {})
        mailbox(address, 'SMTPUTF8' in self._parameters, '3')
        if len(self._recipients) >= self.door.limits.recipients:
            raise Refused(452, '4.5.3 Too many recipients')

        def act():
            self._recipients.append(address)
            return reply(250, '2.1.5 Ok')
        return answer_at(self, 'rcpt', act, address)

    def _data(self, argument):
        if self._sender is None:
            raise Refused(503, '5.5.1 Send MAIL first')
        if not self._recipients:
            raise Refused(554, '5.5.1 No valid recipients')
        return answer_at(self, 'data', lambda: reply(
            354, 'End data with <CR><LF>.<CR><LF>'))

    def _receive(self):
        content = self._content()
        self._answer('.', lambda: self._dot(content))

    def _content(self):
        """Return the message without its dots; None where it is too large.

        A dot ends it between two CRLF only: with any less, one message
        could be smuggled into another.
        """
        lines, size, before = [], 0, b'\r\n'
        while True:
            line = self._stream.readline(65_536)
            if not line:
                raise Over()
            if before == b'\r\n' and line.startswith(b'.'):
                if line == b'.\r\n':
                    break
                line = line[1:]
            before = (before + line)[-2:]
            size += len(line)
            if size <= self.door.limits.size:
                lines.append(line)
        return b''.join(lines) if size <= self.door.limits.size else None

    def _dot(self, content):
        sender, recipients = self._sender, self._recipients
        parameters = self._parameters
        self._forget()
        if content is None:
            raise Refused(552, f'5.3.4 {NO_ROOM}')
        if wrong := objection(content, parameters):
            raise Refused(554, wrong)
        taken = read_taken(content, sender, recipients)
        self._messages += 1

        def act():
            self.door.ledger.take('smtp', taken)
            self._took = True
            return reply(250, f'2.0.0 Ok: queued as {taken.provider_ids[0]}')
        return answer_at(self, 'dot', act)

    def _rset(self, argument):
        self._forget()
        return reply(250, '2.0.0 Ok')

    def _noop(self, argument):
        return reply(250, '2.0.0 Ok')

    def _vrfy(self, argument):
        if not argument:
            raise Refused(501, '5.5.4 Say whom')
        return reply(252, '2.5.0 It is not said who is here; send the mail')

    def _help(self, argument):
        return reply(214, f'2.0.0 {" ".join(COMMANDS)}')

    def _quit(self, argument):
        return reply(221, '2.0.0 Bye')


COMMANDS = {
    'EHLO': Session._ehlo, 'HELO': Session._helo,
    'STARTTLS': Session._starttls, 'AUTH': Session._auth,
    'MAIL': Session._mail, 'RCPT': Session._rcpt, 'DATA': Session._data,
    'RSET': Session._rset, 'NOOP': Session._noop, 'VRFY': Session._vrfy,
    'HELP': Session._help, 'QUIT': Session._quit}
WITHOUT_ARGUMENT = {'STARTTLS', 'DATA', 'RSET', 'QUIT'}
AFTER_HELLO = {'STARTTLS', 'AUTH', 'MAIL', 'RCPT', 'DATA'}
AFTER_REPLY = {('STARTTLS', 220): Session._encrypt,
               ('DATA', 354): Session._receive}
