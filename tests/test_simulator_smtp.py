"""The simulated relay, spoken to by hand and by the standard library."""

import base64
import smtplib
import socket
import ssl
import time

import pytest

from certificates import Authority
from servers import PATIENCE
from stampman.simulator.faults import Faults
from stampman.simulator.ledger import Ledger, Recipient
from stampman.simulator.smtp import Limits, SmtpDoor

MESSAGE = (b'From: Shop <shop@example.com>\r\nTo: Ada <ada@example.org>\r\n'
           b'Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n'
           b'X-Stampman-Id: message-1/attempt-1\r\n\r\nHello\r\n')
ENVELOPE = 'shop@example.com', ['ada@example.org', 'eve@example.net']
PLAIN = base64.b64encode(b'\0user\0right').decode()


class Client:
    """A client that says what it is told, byte for byte."""

    def __init__(self, door):
        self.connection = socket.create_connection(
            ('127.0.0.1', door.port), PATIENCE)
        self._stream = self.connection.makefile('rb')

    def reply(self):
        """Return the code and the lines of the next reply; () at the end."""
        lines = []
        while line := self._stream.readline():
            lines.append(line.decode().rstrip('\r\n'))
            if line[3:4] == b' ':
                return int(line[:3]), [text[4:] for text in lines]
        return ()

    def say(self, line):
        """Say one line and return the code that is answered."""
        self.connection.sendall(
            (line if isinstance(line, bytes) else line.encode()) + b'\r\n')
        return (self.reply() or (None,))[0]

    def say_all(self, *lines):
        return [self.say(line) for line in lines]

    def rest(self):
        """Return all bytes until the connection ends."""
        return self._stream.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stream.close()
        self.connection.close()


@pytest.fixture
def opened():
    """Return a function that opens relays, which end with the test."""
    doors = []

    def open_door(*rules, **settings):
        door = SmtpDoor(Ledger(), Faults(), **settings)
        for rule in rules:
            door.faults.add(rule)
        doors.append(door)
        door.start()
        return door
    yield open_door
    for door in doors:
        door.stop()


@pytest.fixture
def client(opened):
    """A client that is greeted, of a relay with nothing special."""
    with Client(opened()) as connected:
        assert connected.reply()[0] == 220
        yield connected


def send(door, message=MESSAGE, *, to=ENVELOPE[1], **options):
    """Send with the standard library; return who was refused."""
    with smtplib.SMTP('127.0.0.1', door.port, timeout=PATIENCE) as client:
        return client.sendmail(ENVELOPE[0], to, message, **options)


def test_what_was_taken_stands_in_the_ledger(opened):
    door = opened()
    assert send(door) == {}
    [entry] = door.ledger.entries('smtp')
    assert (entry.stampman_id, entry.stampman_attempt) == (
        'message-1', 'attempt-1')
    assert entry.sender == 'shop@example.com'
    assert entry.recipients == (Recipient('ada@example.org', 'to'),
                                Recipient('eve@example.net', 'bcc'))
    assert entry.subject == 'Grüße'
    assert entry.size == len(MESSAGE)
    assert door.ledger.content(entry.number)['text'] == 'Hello\r\n'


def test_the_extensions_are_offered(opened):
    with Client(opened(limits=Limits(size=1000))) as client:
        client.reply()
        client.connection.sendall(b'EHLO me.example\r\n')
        code, offered = client.reply()
    assert code == 250
    assert {'SIZE 1000', '8BITMIME', 'SMTPUTF8',
            'AUTH PLAIN LOGIN'} <= set(offered)


def test_a_connection_carries_many_messages_each_with_its_id(opened):
    door = opened()
    ids = []
    with smtplib.SMTP('127.0.0.1', door.port, timeout=PATIENCE) as client:
        client.ehlo()
        for _ in range(3):
            client.mail(ENVELOPE[0])
            client.rcpt('ada@example.org')
            code, text = client.data(MESSAGE)
            assert code == 250
            ids.append(text.decode().rpartition('queued as ')[2])
    assert ids == [entry.provider_ids[0] for entry in door.ledger.entries()]
    assert len(set(ids)) == 3
    calls = [call.path for call in door.ledger.calls()]
    assert calls == ['connect', 'EHLO', *(
        3 * ['MAIL', 'RCPT', 'DATA', '.']), 'QUIT']


def test_dots_at_the_beginning_of_a_line_arrive(opened):
    door = opened()
    send(door, b'From: shop@example.com\r\n\r\n.\r\n..two\r\n')
    assert door.ledger.content(1)['text'] == '.\r\n..two\r\n'


@pytest.mark.parametrize('end', [b'\n.\r\n', b'\n.\n', b'\r\n.\n', b'\r.\r'])
def test_only_a_dot_between_two_crlf_ends_a_message(client, end):
    client.say_all('EHLO me', 'MAIL FROM:<a@b.example>', 'RCPT TO:<c@d.e>',
                   'DATA')
    client.connection.sendall(
        b'From: a@b.example\r\n\r\nx' + end + b'RSET\r\n.\r\n')
    assert client.reply()[0] == 554     # for its bare CR or LF, and at once
    assert client.say('NOOP') == 250    # RSET was no command


@pytest.mark.parametrize('line, code', [
    ('EHLO', 501), ('HELO', 501), ('EHLO two words', 501),
    ('MAIL FROM:<a@b.example>', 503), ('RCPT TO:<a@b.example>', 503),
    ('DATA', 503), ('AUTH PLAIN', 503), ('STARTTLS', 503),
    ('BDAT 5 LAST', 500), ('', 500), (' NOOP', 500), (b'NOOP \xff', 500),
    ('NOOP \0', 500), ('NOOP' + 20_000 * 'x', 500), ('VRFY', 501),
    ('VRFY ada', 252), ('NOOP', 250), ('noop', 250), ('RSET', 250),
    ('RSET now', 501), ('HELP', 214), ('QUIT now', 501), ('QUIT', 221)])
def test_what_is_said_to_a_stranger(client, line, code):
    assert client.say(line) == code


@pytest.mark.parametrize('line, code', [
    ('MAIL FROM:<>', 250), ('mail from:<a@b.example>', 250),
    ('MAIL FROM:<"a b>"@b.example>', 250), ('MAIL FROM:<a@[127.0.0.1]>', 250),
    ('MAIL FROM:<a@b.example> SIZE=100 BODY=8BITMIME SMTPUTF8', 250),
    ('MAIL FROM:<ä@b.example> SMTPUTF8', 250),
    ('MAIL FROM:<ä@b.example>', 553), ('MAIL FROM:a@b.example', 501),
    ('MAIL FROM: <a@b.example>', 501), ('MAIL TO:<a@b.example>', 501),
    ('MAIL FROM:<a>', 501), ('MAIL FROM:<a@b@c>', 501),
    ('MAIL FROM:<a@b.example> SIZE=many', 501),
    ('MAIL FROM:<a@b.example> SIZE=1 SIZE=1', 501),
    ('MAIL FROM:<a@b.example> BODY=BINARYMIME', 501),
    ('MAIL FROM:<a@b.example> SMTPUTF8=yes', 501),
    ('MAIL FROM:<a@b.example> RET=HDRS', 555),
    ('MAIL FROM:<a@b.example> SIZE=99999999999', 552),
    (f'MAIL FROM:<{300 * "a"}@b.example>', 501),
    ('RCPT TO:<a@b.example>', 503), ('DATA', 503)])
def test_what_is_said_to_a_sender(client, line, code):
    assert client.say_all('EHLO me.example', line) == [250, code]


@pytest.mark.parametrize('line, code', [
    ('RCPT TO:<c@d.example>', 250), ('RCPT TO:<>', 501),
    ('RCPT TO:c@d.example', 501), ('RCPT TO:<ö@d.example>', 553),
    ('RCPT TO:<c@d.example> NOTIFY=NEVER', 555), ('DATA', 554),
    ('DATA now', 501), ('MAIL FROM:<a@b.example>', 503),
    ('AUTH PLAIN ' + PLAIN, 503)])
def test_what_is_said_about_recipients(client, line, code):
    assert client.say_all('EHLO me.example', 'MAIL FROM:<a@b.example>',
                          line) == [250, 250, code]


def test_who_says_helo_has_no_parameters(client):
    assert client.say_all('HELO me', 'MAIL FROM:<a@b.example> SIZE=1',
                          'MAIL FROM:<a@b.example>') == [250, 555, 250]


@pytest.mark.parametrize('again', ['RSET', 'EHLO me.example'])
def test_a_message_that_was_begun_can_be_dropped(client, again):
    assert client.say_all(
        'EHLO me', 'MAIL FROM:<a@b.example>', 'RCPT TO:<c@d.example>', again,
        'RCPT TO:<c@d.example>') == [250, 250, 250, 250, 503]


@pytest.mark.parametrize('message, options, code', [
    (b'Subject: no sender\r\n\r\nx\r\n', '', b'554-5.6.0'),
    (b'From: a@b.c\r\n\r\n' + 999 * b'x' + b'\r\n', '', b'554-5.6.0'),
    (b'From: a@b.c\r\n\r\none\ntwo\r\n', '', b'554-5.6.0'),
    ('From: a@b.c\r\n\r\nä\r\n'.encode(), '', b'554-5.6.3'),
    ('From: a@b.c\r\n\r\nä\r\n'.encode(), ' BODY=8BITMIME', b'250'),
    ('From: a@b.c\r\nSubject: ä\r\n\r\n'.encode(), ' BODY=8BITMIME',
     b'554-5.6.7'),
    ('From: a@b.c\r\nSubject: ä\r\n\r\n'.encode(),
     ' BODY=8BITMIME SMTPUTF8', b'250'),
    (b'From: a@b.c\r\n\r\n' + 200 * (50 * b'x' + b'\r\n'), '',
     b'552-5.3.4')])
def test_a_message_must_be_what_was_announced(opened, message, options,
                                              code):
    door = opened(limits=Limits(size=5000))
    with Client(door) as client:
        client.reply()
        client.say_all('EHLO me', f'MAIL FROM:<a@b.example>{options}',
                       'RCPT TO:<c@d.example>', 'DATA')
        client.connection.sendall(message + b'.\r\n')
        answered, [text] = client.reply()
        assert f'{answered}-{text}'.encode().startswith(code)
        assert client.say('MAIL FROM:<a@b.example>') == 250
    assert len(door.ledger.entries()) == (code == b'250')


def test_utf8_in_a_header_is_read(opened):
    door = opened()
    send(door, 'From: a@b.c\r\nSubject: Grüße\r\n\r\nä\r\n'.encode(),
         mail_options=['SMTPUTF8', 'BODY=8BITMIME'])
    assert door.ledger.entries()[0].subject == 'Grüße'
    assert door.ledger.content(1)['text'] == 'ä\r\n'


def test_a_message_that_is_cut_off_is_not_taken(opened):
    door = opened()
    with Client(door) as client:
        client.reply()
        client.say_all('EHLO me', 'MAIL FROM:<a@b.example>',
                       'RCPT TO:<c@d.example>', 'DATA')
        client.connection.sendall(MESSAGE + b'.')
    door.stop()
    assert not door.ledger.entries()


def test_limits_of_a_connection(opened):
    door = opened(limits=Limits(recipients=1, messages=1))
    with Client(door) as client:
        client.reply()
        assert client.say_all(
            'EHLO me', 'MAIL FROM:<a@b.example>', 'RCPT TO:<c@d.example>',
            'RCPT TO:<e@d.example>', 'DATA') == [250, 250, 250, 452, 354]
        assert client.say(MESSAGE + b'.') == 250
        assert client.say('MAIL FROM:<a@b.example>') == 421
        assert client.rest() == b''


def test_who_says_nothing_is_sent_away(opened):
    with Client(opened(limits=Limits(idle=0.05))) as client:
        assert client.reply()[0] == 220
        assert client.reply()[0] == 421
        assert client.rest() == b''


# -- who it is --------------------------------------------------------------

def test_with_accounts_nobody_sends_without_a_password(opened):
    with Client(opened(accounts={'user': 'right'})) as client:
        client.reply()
        assert client.say_all(
            'EHLO me', 'MAIL FROM:<a@b.example>', 'AUTH PLAIN ' + PLAIN,
            'AUTH PLAIN ' + PLAIN, 'MAIL FROM:<a@b.example>') == [
                250, 530, 235, 503, 250]


@pytest.mark.parametrize('lines, codes', [
    (['AUTH PLAIN', PLAIN], [334, 235]),
    (['AUTH LOGIN', 'dXNlcg==', 'cmlnaHQ='], [334, 334, 235]),
    (['AUTH LOGIN dXNlcg==', 'cmlnaHQ='], [334, 235]),
    (['auth plain ' + PLAIN], [235]),
    (['AUTH LOGIN dXNlcg==', 'd3Jvbmc='], [334, 535]),
    (['AUTH LOGIN bm9ib2R5', 'cmlnaHQ='], [334, 535]),
    (['AUTH PLAIN', '*'], [334, 501]), (['AUTH PLAIN %%%'], [501]),
    (['AUTH PLAIN ='], [501]), (['AUTH PLAIN dXNlcg=='], [501]),
    (['AUTH CRAM-MD5'], [504]), (['AUTH'], [504])])
def test_every_way_to_give_a_password(opened, lines, codes):
    with Client(opened(accounts={'user': 'right'})) as client:
        client.reply()
        assert client.say_all('EHLO me', *lines) == [250, *codes]


def test_the_third_wrong_password_ends_the_connection(opened):
    with Client(opened(accounts={'user': 'other'})) as client:
        client.reply()
        assert client.say_all('EHLO me', *3 * ['AUTH PLAIN ' + PLAIN]) == [
            250, 535, 535, 421]
        assert client.rest() == b''


def test_no_password_is_written_down(opened):
    door = opened(accounts={'user': 'right'})
    with Client(door) as client:
        client.reply()
        client.say_all(PLAIN, 'AUTH PLAIN ' + PLAIN)
    assert {call.path for call in door.ledger.calls()} == {
        'connect', '?', 'AUTH'}


def test_with_a_certificate_passwords_are_for_tls_only(opened, tmp_path):
    authority = Authority(tmp_path)
    door = opened(tls=authority.server('127.0.0.1'),
                  accounts={'user': 'right'})
    trusting = ssl.create_default_context(cafile=authority.file)
    with smtplib.SMTP('127.0.0.1', door.port, timeout=PATIENCE) as client:
        client.ehlo()
        assert client.has_extn('starttls') and not client.has_extn('auth')
        assert client.docmd('AUTH', 'PLAIN ' + PLAIN)[0] == 538
        client.starttls(context=trusting)
        assert client.docmd('MAIL', 'FROM:<a@b.example>')[0] == 503
        client.ehlo()
        assert not client.has_extn('starttls')
        client.login('user', 'right')
        client.sendmail(*ENVELOPE, MESSAGE)
    assert len(door.ledger.entries()) == 1


def test_what_is_said_before_tls_is_forgotten(opened, tmp_path):
    authority = Authority(tmp_path)
    door = opened(tls=authority.server('127.0.0.1'))
    with Client(door) as client:
        client.reply()
        client.say('EHLO me')
        client.connection.sendall(b'STARTTLS\r\nNOOP\r\n')
        assert client.reply()[0] == 220
        encrypted = ssl.create_default_context(
            cafile=authority.file).wrap_socket(
                client.connection, server_hostname='127.0.0.1')
        with encrypted:
            encrypted.sendall(b'QUIT\r\n')
            assert encrypted.recv(100).startswith(b'221')


def test_tls_from_the_first_byte(opened, tmp_path):
    authority = Authority(tmp_path)
    door = opened(tls=authority.server('127.0.0.1'), implicit=True)
    with smtplib.SMTP_SSL(
            '127.0.0.1', door.port, timeout=PATIENCE,
            context=ssl.create_default_context(
                cafile=authority.file)) as client:
        client.login('anybody', 'at all')
        client.sendmail(*ENVELOPE, MESSAGE)
    assert len(door.ledger.entries()) == 1


def test_a_stop_ends_what_is_connected(opened, tmp_path):
    plain = opened()
    encrypted = opened(tls=Authority(tmp_path).server('127.0.0.1'),
                       implicit=True)
    with Client(plain) as client, Client(encrypted) as shaking_hands:
        client.reply()
        began = time.monotonic()
        for door in (plain, encrypted):
            door.stop()
        assert time.monotonic() - began < PATIENCE
        assert client.rest() == shaking_hands.rest() == b''
