"""What cannot be read is refused, and no thread of the simulator dies."""

import base64
import json
import random
import socket

import pytest

import simulating
from servers import PATIENCE
from simulating import MIME, call, mailgun, sendgrid
from stampman.simulator import Simulator
from test_simulator_ses import raw
from test_simulator_ses import send as send_by_ses
from test_simulator_smtp import Client, PLAIN

# What the parser of the standard library has stumbled over.
UNREADABLE = (b'From: a@example.com\r\nTo: a@[\r\n\r\nx\r\n',
              b'From: a@example.com\r\nCc: <a@[>\r\n\r\nx\r\n')
PIECES = (b'@', b'[', b']', b'<', b'>', b'"', b'(', b'\\', b';', b':', b',',
          b'=?', b'?=', b'=?utf-8?b?', b'=', b"*0*=''", b'\xff', b'\0', b'\r',
          b'\t', b'\r\n', b'boundary', b'charset=idna', b'multipart/mixed')
ROUNDS = 60


@pytest.fixture(scope='module')
def simulator():
    with Simulator(keys={'smtp': 'user:right'}, smtp_port=0) as running:
        yield running


@pytest.fixture
def unbroken(simulator, capfd):
    """Nothing may be said on stderr, where a thread dies."""
    simulator.ledger.clear()
    yield simulator
    assert 'Traceback' not in capfd.readouterr().err


def by_mailgun(simulator, message):
    return mailgun(
        simulator, [('to', 'ann@example.net')],
        [('message', 'm.eml', message)],
        path='/mailgun/v3/example.com/messages.mime').status


def by_ses(simulator, message):
    return send_by_ses(simulator, raw(message, Destination={
        'ToAddresses': ['ann@example.net']})).status


def by_smtp(simulator, message):
    with Client(simulator.smtp) as client:
        client.reply()
        client.say_all('EHLO me', 'AUTH PLAIN ' + PLAIN,
                       'MAIL FROM:<a@example.com> BODY=8BITMIME SMTPUTF8',
                       'RCPT TO:<c@d.example>', 'DATA')
        return client.say(message + b'\r\n.')


@pytest.mark.parametrize('message', UNREADABLE)
@pytest.mark.parametrize('send, refused', [
    (by_mailgun, 400), (by_ses, 400), (by_smtp, 554)])
def test_a_message_that_cannot_be_read_is_refused(
        unbroken, send, refused, message):
    assert send(unbroken, message) == refused
    assert not unbroken.ledger.entries()
    assert send(unbroken, MIME) in (200, 250)


def spoilt(chance):
    """Return the good message with a few pieces at random places."""
    message = bytearray(MIME)
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(len(message))
        message[place:place + chance.randint(0, 3)] = chance.choice(PIECES)
    return bytes(message)


@pytest.mark.parametrize('send, answers', [
    (by_mailgun, {200, 400}), (by_ses, {200, 400}), (by_smtp, {250, 554})])
def test_whatever_a_message_is_there_is_an_answer(unbroken, send, answers):
    chance = random.Random(3)
    got = [send(unbroken, spoilt(chance)) for _ in range(ROUNDS)]
    assert set(got) == answers
    assert len(unbroken.ledger.entries()) == sum(
        code in (200, 250) for code in got)


@pytest.mark.parametrize('path, headers', [
    (simulating.SENDGRID_PATH, {
        'Authorization': f'Bearer {simulating.SENDGRID_KEY}',
        'Content-Type': 'application/json'}),
    ('/faults', {'Content-Type': 'application/json'})])
def test_whatever_a_body_is_there_is_an_answer(unbroken, path, headers):
    chance = random.Random(4)
    good = json.dumps(simulating.SENDGRID_MAIL)
    for _ in range(ROUNDS):
        place = chance.randrange(len(good))
        body = good[:place] + chance.choice(
            '0[]{}",:-eu\\') + good[place + chance.randint(0, 9):]
        assert call(unbroken, 'POST', path, body.encode(), headers
                    ).status in (202, 400)


@pytest.mark.parametrize('target', [
    b'http://[bad/', b'//[', b'http://[::1/ledger', b'/ledger/\xff'])
def test_a_target_that_is_no_url_is_answered(unbroken, target):
    with socket.create_connection(
            ('127.0.0.1', unbroken.port), PATIENCE) as connection:
        connection.sendall(b'GET ' + target + b' HTTP/1.1\r\nHost: localhost'
                           b'\r\nConnection: close\r\n\r\n')
        with connection.makefile('rb') as stream:
            head = stream.readline()
            assert stream.read()
    assert head.split()[1] in (b'400', b'404')
    assert sendgrid(unbroken).status == 202


def test_a_login_of_any_bytes_is_answered(unbroken):
    chance = random.Random(5)
    for _ in range(ROUNDS):
        token = base64.b64encode(chance.randbytes(chance.randint(1, 9)))
        with Client(unbroken.smtp) as client:
            client.reply()
            client.say('EHLO me')
            assert client.say(b'AUTH PLAIN ' + token) in (501, 535)
