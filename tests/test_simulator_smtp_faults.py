"""Faults of the simulated relay, over real connections."""

import smtplib
import socket
import time

import pytest

from servers import PATIENCE
from stampman.simulator.faults import Faults
from stampman.simulator.ledger import Ledger
from stampman.simulator.smtp import SmtpDoor

MESSAGE = b'From: shop@example.com\r\nSubject: Hello\r\n\r\nHello\r\n'
STEPS = (('ehlo', b'EHLO me.example'), ('auth', b'AUTH PLAIN AGEAYg=='),
         ('mail', b'MAIL FROM:<shop@example.com>'),
         ('rcpt', b'RCPT TO:<ada@example.org>'), ('data', b'DATA'),
         ('dot', MESSAGE + b'.'))


@pytest.fixture
def opened():
    """Return a function that opens relays with faults; they end with the
    test."""
    doors = []

    def open_door(*rules):
        doors.append(SmtpDoor(Ledger(), Faults()))
        for rule in rules:
            doors[-1].faults.add(rule)
        doors[-1].start()
        return doors[-1]
    yield open_door
    for door in doors:
        door.stop()


def converse(door):
    """Go through all steps; return what each is answered.

    The last is b'' where the connection ends, `reset` where it is reset.
    """
    answers = {}
    with socket.create_connection(('127.0.0.1', door.port),
                                  PATIENCE) as connection:
        stream = connection.makefile('rb')
        for stage, line in (('connect', b''), *STEPS):
            try:
                if line:
                    connection.sendall(line + b'\r\n')
                answers[stage] = _reply(stream)
            except ConnectionResetError:
                answers[stage] = 'reset'
            if answers[stage] in (b'', 'reset') \
                    or answers[stage][:1] not in b'23':
                break
        stream.close()
    return answers


def _reply(stream):
    while line := stream.readline():
        if line[3:4] != b'-':
            return line
    return b''


def last_of(answers):
    return list(answers.items())[-1]


def test_without_a_fault_every_step_is_answered(opened):
    door = opened()
    answers = converse(door)
    assert [answer[:3] for answer in answers.values()] == [
        b'220', b'250', b'235', b'250', b'250', b'354', b'250']
    assert len(door.ledger.entries()) == 1


STAGES = ['connect', *(stage for stage, _ in STEPS)]


@pytest.mark.parametrize('stage', STAGES)
def test_a_reply_at_any_stage(opened, stage):
    door = opened(f'smtp:status=451,body=4.3.0 Not today,stage={stage}')
    assert last_of(converse(door)) == (stage, b'451 4.3.0 Not today\r\n')
    assert not door.ledger.entries()


@pytest.mark.parametrize('stage', STAGES)
@pytest.mark.parametrize('fault, sees', [
    ('close', b''), ('hang=0.01', b''), ('reset=before', 'reset')])
def test_the_end_of_a_connection_at_any_stage(opened, stage, fault, sees):
    door = opened(f'smtp:{fault},stage={stage}')
    assert last_of(converse(door)) == (stage, sees)
    assert not door.ledger.entries()
    assert door.ledger.calls()[-1].answered == fault.partition('=')[0]


@pytest.mark.parametrize('fault, sees', [
    ('status=451,took=true', b'451'), ('close,took=true', b''),
    ('hang=0.01,took=true', b''), ('reset=after', 'reset')])
def test_a_message_is_taken_and_the_client_cannot_know(opened, fault, sees):
    door = opened(f'smtp:{fault}')
    stage, answer = last_of(converse(door))
    assert (stage, answer if answer == 'reset' else answer[:3]) == (
        'dot', sees)
    assert len(door.ledger.entries()) == 1
    assert door.ledger.calls()[-1].took


@pytest.mark.parametrize('word, stage, answer', [
    ('AUTH', 'auth', b'535 5.7.8'), ('ACCOUNT', 'mail', b'550 5.7.1'),
    ('RATE_LIMIT', 'mail', b'454 4.7.0'),
    ('UNAVAILABLE', 'mail', b'451 4.3.0'),
    ('RECIPIENT', 'rcpt', b'550 5.1.1'),
    ('SUPPRESSED', 'rcpt', b'550 5.2.1'), ('SENDER', 'mail', b'553 5.1.7'),
    ('CONTENT', 'dot', b'554 5.7.1'), ('PAYLOAD', 'mail', b'501 5.5.4'),
    ('TOO_LARGE', 'dot', b'552 5.3.4')])
def test_each_class_of_error_has_its_stage_and_its_words(
        opened, word, stage, answer):
    door = opened(f'smtp:error={word}')
    at, told = last_of(converse(door))
    assert (at, told[:9]) == (stage, answer)
    assert not door.ledger.entries()


def test_a_class_of_error_can_come_at_another_stage(opened):
    door = opened('smtp:error=UNAVAILABLE,stage=dot')
    assert last_of(converse(door))[0] == 'dot'


def test_a_greeting_that_turns_away_leaves_nothing_but_quit(opened):
    door = opened('smtp:status=554,stage=connect')
    with socket.create_connection(('127.0.0.1', door.port),
                                  PATIENCE) as connection:
        stream = connection.makefile('rb')
        connection.sendall(b'EHLO me\r\nNOOP\r\nQUIT\r\n')
        assert [line[:3] for line in stream] == [
            b'554', b'503', b'503', b'221']
        stream.close()


def test_421_ends_the_connection(opened):
    door = opened('smtp:status=421,stage=mail')
    with socket.create_connection(('127.0.0.1', door.port),
                                  PATIENCE) as connection:
        stream = connection.makefile('rb')
        connection.sendall(b'EHLO me\r\nMAIL FROM:<a@b.example>\r\n')
        assert stream.read().endswith(b'421 4.0.0 This fault is switched '
                                      b'on\r\n')
        stream.close()


def test_some_recipients_are_refused_and_some_deferred(opened):
    door = opened('smtp:reject=*@example.net', 'smtp:defer=later@*')
    with smtplib.SMTP('127.0.0.1', door.port, timeout=PATIENCE) as client:
        refused = client.sendmail('shop@example.com', [
            'ada@example.org', 'Eve@Example.net', 'later@example.org'],
            MESSAGE)
    assert {who: (code, text[:5]) for who, (code, text) in refused.items()
            } == {'Eve@Example.net': (550, b'5.1.1'),
                  'later@example.org': (450, b'4.2.1')}
    [entry] = door.ledger.entries()
    assert [one.email for one in entry.recipients] == ['ada@example.org']


def test_all_recipients_refused_is_no_message(opened):
    door = opened('smtp:reject=*')
    with smtplib.SMTP('127.0.0.1', door.port, timeout=PATIENCE) as client:
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail('shop@example.com', ['ada@example.org'], MESSAGE)
    assert not door.ledger.entries()


def test_garbage_in_the_place_of_an_answer(opened):
    stage, answer = last_of(converse(opened('smtp:garbage')))
    assert stage == 'dot'
    assert not answer[:3].isdigit()


@pytest.mark.parametrize('fault, least', [
    ('slow=0.2', 0.2), ('drip=0.005', 0.15)])
def test_an_answer_that_takes_its_time_is_whole(opened, fault, least):
    door = opened(f'smtp:{fault}')
    began = time.monotonic()
    assert last_of(converse(door))[1].startswith(b'250 2.0.0 Ok: queued as ')
    assert time.monotonic() - began >= least
    assert len(door.ledger.entries()) == 1


def test_more_than_the_rate_is_throttled(opened):
    door = opened('smtp:rate_limit=2')
    ends = [last_of(converse(door))[1][:3] for _ in range(3)]
    assert ends == [b'250', b'250', b'454']


def test_a_fault_happens_as_often_as_it_is_told(opened):
    door = opened('smtp:status=451,stage=mail,times=1')
    assert [last_of(converse(door))[1][:3] for _ in range(2)] == [
        b'451', b'250']


def test_a_fault_can_be_switched_on_while_a_connection_is_open(opened):
    door = opened()
    with smtplib.SMTP('127.0.0.1', door.port, timeout=PATIENCE) as client:
        client.sendmail('a@b.example', ['ada@example.org'], MESSAGE)
        door.faults.add('smtp:error=UNAVAILABLE')
        with pytest.raises(smtplib.SMTPSenderRefused):
            client.sendmail('a@b.example', ['ada@example.org'], MESSAGE)
        door.faults.clear()
        client.sendmail('a@b.example', ['ada@example.org'], MESSAGE)
    assert len(door.ledger.entries()) == 2


@pytest.mark.parametrize('rule', [
    'sendgrid:close', '*:endless', '*:redirect=http://127.0.0.1:9/',
    '*:close,on=probe', 'smtp:reject=*@elsewhere.example'])
def test_faults_that_are_not_about_this_message_change_nothing(opened, rule):
    door = opened(rule)
    assert last_of(converse(door))[1].startswith(b'250')
    assert [left.number for left in door.faults.rules()] == [1]


@pytest.mark.parametrize('on', ['send', 'probe', 'any'])
def test_up_to_auth_a_fault_meets_whoever_comes(opened, on):
    door = opened(f'smtp:status=454,stage=auth,on={on}')
    assert last_of(converse(door))[0] == 'auth'


def test_a_stop_ends_a_fault_that_waits_for_ever(opened):
    door = opened('smtp:hang,stage=mail')
    with socket.create_connection(('127.0.0.1', door.port),
                                  PATIENCE) as connection:
        stream = connection.makefile('rb')
        connection.sendall(b'EHLO me\r\nMAIL FROM:<a@b.example>\r\n')
        assert _reply(stream) and _reply(stream)
        door.stop()
        assert stream.read() == b''
        stream.close()
