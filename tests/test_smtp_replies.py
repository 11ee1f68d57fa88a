"""SMTP's replies, line by line of the sheet, and recipients told apart."""

import json
import time
from pathlib import Path

import pytest

from stampman.helpers.delivery import Kind

from servers import RawServer
from smtp_calling import LOGIN, MESSAGE, an_email, closing, send, service
from smtp_servers import Script

DATA = json.loads(
    (Path(__file__).parent / 'providers' / 'smtp.json').read_text('utf-8'))
FLAGS = ('alert', 'throttled', 'domain_only', 'recipient_only')


def fate(email=None, envelope=None, login=LOGIN, seconds=5.0, **replies):
    """Return how one message ended, and what the server heard."""
    script = Script(**replies)
    with RawServer(script) as server:
        with closing(service(server.port, **login)) as smtp:
            return send(smtp, email, seconds, envelope), script


@pytest.mark.parametrize('case', [
    pytest.param(case, id=case['name']) for case in DATA['replies']])
def test_a_reply_means_what_the_sheet_says(case):
    outcome, script = fate(**{case['step']: case['reply']})
    assert outcome.kind == case['kind'], outcome.reason
    assert outcome.code == case['code']
    assert [flag for flag in FLAGS
            if getattr(outcome, flag)] == case['flags']
    assert len(script.messages) == (case['step'] == 'dot')
    assert case['reply'][:3] in outcome.reason
    assert outcome.http_status is None and not outcome.recipients


@pytest.mark.parametrize('reply, expected', DATA['queue_ids'])
def test_the_id_is_the_servers_or_else_the_messages_own(reply, expected):
    outcome, _ = fate(dot=reply)
    assert outcome.kind is Kind.accepted
    assert outcome.provider_message_id == (
        expected or f'{MESSAGE}@example.com')


def test_what_a_reply_repeats_is_neither_shown_nor_judged():
    email = an_email(subject='Your daily quota of canary-4711')
    outcome, _ = fate(email, dot='554 5.6.0 Your daily quota of canary-4711 '
                      'to ann.other@example.org, pass-6d0f2c, '
                      'AHNob3AtbG9naW4AcGFzcy02ZDBmMmM=, cGFzcy02ZDBmMmM=')
    assert outcome.kind is Kind.unsupported
    assert outcome.reason == (
        'the end of the message: 554: 5.6.0 [secret] to a***@example.org, '
        '[secret], [secret], [secret]')


FOUR = ['ann@example.org', 'bob@example.org', 'cy@example.org',
        'eve@example.org']
MIXED = ['250 2.1.5 Ok', '550 5.1.1 User unknown', '450 4.2.1 Busy',
         '550 5.7.1 Blocked by policy']


def kinds(outcome):
    return {one.email: one.kind for one in outcome.recipients}


def test_recipients_fare_as_their_own_replies_say():
    outcome, script = fate(an_email(recipients=FOUR), RCPT=[*MIXED])
    assert outcome.kind is Kind.accepted
    assert outcome.code == '2.0.0' and not outcome.alert
    assert outcome.provider_message_id == '4FZx7q'
    assert kinds(outcome) == dict(zip(FOUR, (
        Kind.accepted, Kind.rejected, Kind.deferred, Kind.unsupported)))
    assert [one.provider_message_id for one in outcome.recipients] == [
        '4FZx7q', None, None, None]
    assert outcome.recipients[1].reason == 'RCPT: 550: 5.1.1 User unknown'
    assert len(script.messages) == 1


TOO_MANY = '452 4.5.3 Too many recipients'


def test_who_is_too_many_at_once_gets_a_transaction_of_its_own():
    outcome, script = fate(
        an_email(recipients=FOUR),
        RCPT=['250 Ok', '250 Ok', TOO_MANY, '250 Ok', TOO_MANY, '250 Ok'],
        dot=['250 Ok: queued as A1', '250 Ok: queued as B2',
             '250 Ok: queued as C3'])
    assert outcome.kind is Kind.accepted
    assert [one.provider_message_id for one in outcome.recipients] == [
        'A1', 'A1', 'B2', 'C3']
    assert len(script.messages) == 3
    assert [line[:4] for line in script.heard].count('MAIL') == 3
    assert [line[:4] for line in script.heard].count('EHLO') == 1


def test_no_further_transaction_begins_that_may_not_be_done_in_time():
    outcome, script = fate(
        an_email(recipients=FOUR[:2]), seconds=2.0,
        RCPT=['250 Ok', TOO_MANY, '250 Ok'])
    assert kinds(outcome) == dict(zip(FOUR, (
        Kind.accepted, Kind.deferred)))
    assert len(script.messages) == 1


@pytest.mark.parametrize('second, kind, third', [
    (lambda connection, server: None, Kind.uncertain, Kind.deferred),
    ('451 4.3.0 Local error', Kind.deferred, Kind.deferred),
    ('554 5.7.1 Spam', Kind.unsupported, Kind.unsupported)])
def test_a_second_transaction_that_ends_badly_leaves_the_first_alone(
        second, kind, third):
    outcome, script = fate(
        an_email(recipients=FOUR[:3]),
        RCPT=['250 Ok', TOO_MANY, '250 Ok', TOO_MANY],
        dot=['250 Ok: queued as A1', second])
    assert outcome.kind is Kind.accepted
    assert kinds(outcome) == dict(zip(FOUR, (Kind.accepted, kind, third)))


@pytest.mark.parametrize('step', ['DATA', 'dot'])
@pytest.mark.parametrize('reply', [
    '550 5.1.1 User unknown', '552 5.2.2 Mailbox full'])
def test_a_rejection_is_not_of_those_who_were_never_named(step, reply):
    outcome, _ = fate(
        an_email(recipients=FOUR[:3]), RCPT=['250 Ok', TOO_MANY],
        **{step: reply})
    assert outcome.kind is Kind.deferred
    assert kinds(outcome) == dict(zip(FOUR, (
        Kind.rejected, Kind.deferred, Kind.deferred)))


def test_too_many_at_the_very_first_is_a_reply_like_any_other():
    outcome, script = fate(RCPT=TOO_MANY)
    assert outcome.kind is Kind.deferred and outcome.recipient_only
    assert not script.messages


def test_an_endless_word_costs_no_time():
    """Rules search the words: none may take time in the square."""
    started = time.monotonic()
    reply = ''.join('550-' + 'a' * 8180 + '\r\n' for _ in range(99))
    outcome, _ = fate(dot=reply + '550 no')
    assert outcome.kind is Kind.unsupported
    assert time.monotonic() - started < 2


def test_each_recipient_has_its_time():
    many = an_email(recipients=[f'r{n}@example.org' for n in range(101)])
    smtp = service(25)
    assert smtp.seconds_for(many) == smtp.seconds_for(an_email()) + 20


def test_an_id_that_is_our_login_is_not_shown():
    outcome, _ = fate(
        dot='250 Ok: queued as AHNob3AtbG9naW4AcGFzcy02ZDBmMmM')
    assert outcome.kind is Kind.accepted
    assert outcome.provider_message_id == '[secret]'


def test_251_accepts_a_recipient_too():
    outcome, _ = fate(RCPT='251 2.1.5 Will forward')
    assert outcome.kind is Kind.accepted


def test_where_nobody_is_accepted_no_message_is_handed_over():
    outcome, script = fate(
        an_email(recipients=FOUR[:3]), RCPT=[*MIXED[1:]])
    assert outcome.kind is Kind.deferred
    assert kinds(outcome) == dict(zip(FOUR, (
        Kind.rejected, Kind.deferred, Kind.unsupported)))
    assert 'DATA' not in script.heard
    assert script.heard[-2:] == ['RSET', 'QUIT']


@pytest.mark.parametrize('dot, kind', [
    ('451 4.3.0 Local error', Kind.deferred),
    ('554 5.7.1 Spam', Kind.unsupported),
    ('554 5.7.1 Virus', Kind.rejected),
    (lambda connection, server: connection.close(), Kind.uncertain)])
def test_what_is_said_of_the_message_is_for_those_accepted_alone(dot, kind):
    outcome, _ = fate(an_email(recipients=FOUR[:2]), dot=dot,
                      RCPT=[MIXED[0], MIXED[1]])
    fared = kinds(outcome) or dict.fromkeys(FOUR[:2], outcome.kind)
    assert fared == {FOUR[0]: kind, FOUR[1]: Kind.rejected}


def test_too_many_recipients_are_deferred_and_the_others_go():
    outcome, _ = fate(
        an_email(recipients=FOUR),
        RCPT=[MIXED[0], MIXED[0], '452 4.5.3 Too many recipients'])
    assert list(kinds(outcome).values()) == [
        Kind.accepted, Kind.accepted, Kind.deferred, Kind.deferred]


def test_a_server_that_goes_among_the_recipients_took_it_for_none():
    outcome, script = fate(
        an_email(recipients=FOUR[:3]),
        RCPT=[MIXED[1], MIXED[0], '421 4.3.2 Shutting down'])
    assert kinds(outcome) == dict(zip(FOUR, (
        Kind.rejected, Kind.deferred, Kind.deferred)))
    assert not script.messages


def test_an_envelope_of_some_is_told_of_those_alone():
    outcome, script = fate(
        an_email(recipients=FOUR), envelope=('bob@example.org',
                                             'eve@example.org'),
        RCPT=[MIXED[0], MIXED[1]])
    assert list(kinds(outcome)) == ['bob@example.org', 'eve@example.org']
    assert b'To: ann@example.org, bob@example.org' in script.messages[0]


@pytest.mark.parametrize('step, reply, ok, says', [
    ('greeting', '554 Go away', None, 'the greeting: 554'),
    ('AUTH', '535 5.7.8 Wrong', False, 'AUTH: 535: the login is refused'),
    ('AUTH', '454 4.7.0 Later', None, 'AUTH: 454'),
    ('MAIL', '550 5.7.1 Not yours', False,
     'MAIL: 550: the sender is not allowed there'),
    ('RSET', '500 What?', None, 'RSET: 500'),
    ('NOOP', '421 4.3.2 Bye', None, 'NOOP: 421'),
    ('MAIL', lambda connection, server: connection.close(), False,
     'MAIL: the server closed the connection')])
def test_a_probe_says_what_is_wrong(step, reply, ok, says):
    script = Script(**{step: reply})
    with RawServer(script) as server:
        result = service(server.port, **LOGIN).probe()
    assert result.ok is ok
    assert result.detail.startswith(says)
    assert result.domain_only == ('the sender' in says)
    assert not [line for line in script.heard if line.startswith('RCPT')]


def test_a_probe_goes_up_to_the_sender_and_sends_nothing():
    script = Script()
    with RawServer(script) as server:
        assert service(server.port).probe().ok
    assert script.heard == [
        'EHLO example.com', 'MAIL FROM:<postmaster@example.com>', 'RSET',
        'NOOP', 'QUIT']
