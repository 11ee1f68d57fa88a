"""Mandrill answers for each recipient: what that comes to as a whole."""

import json
import time

import pytest

from stampman.helpers.delivery import Kind
from stampman.helpers.mail import Email

from servers import RawServer, Recorder
from test_services import an_email, context, service

A, B, C, D = (f'{name}@example.org' for name in ('ann', 'bo', 'cy', 'di'))
KEY = 'md-a-key-of-the-tests'


@pytest.fixture(scope='module')
def server():
    with Recorder() as recorder:
        yield recorder


def entry(email, status='sent', reason=None, proof='an-id'):
    """Return one object of Mandrill's list."""
    return {'email': email, 'status': status, '_id': proof,
            'reject_reason': reason if status == 'rejected' else None,
            'queued_reason': reason if status == 'queued' else None}


def send(server, body, status=200, email=None, **fields):
    """Return the outcome of an email, to Ann unless said, so answered."""
    server.answer(status, body)
    return service('mandrill', server.url).send_email(
        email or an_email(**fields), context())


def fared(outcome):
    return [(one.email, str(one.kind), one.provider_message_id)
            for one in outcome.recipients]


def test_recipients_fare_differently(server):
    outcome = send(server, [
        entry(D, 'queued', 'multiple-recipients', 'id-d'),
        entry(B, 'rejected', 'hard-bounce', 'id-b'),
        entry(C, 'rejected', 'soft-bounce', None),
        entry(A, 'sent', proof='id-a')], recipients=[A, B], cc=C, bcc=D)
    assert outcome.kind is Kind.accepted and not outcome.alert
    assert outcome.provider_message_id == 'id-a'
    assert fared(outcome) == [
        (A, 'accepted', 'id-a'), (B, 'rejected', 'id-b'),
        (C, 'unsupported', None), (D, 'accepted', 'id-d')]
    assert [one.reason for one in outcome.recipients] == [
        '', 'it bounced for good before: hard-bounce',
        'it bounced not long ago: soft-bounce', '']
    assert outcome.reason == (
        '1 of 4 recipients rejected: it bounced for good before: '
        'hard-bounce; 1 of 4 recipients unsupported: it bounced not long '
        'ago: soft-bounce')


def test_all_who_are_taken_have_their_own_id_and_no_reason(server):
    outcome = send(server, [entry(A, proof='id-a'), entry(B, proof='id-b')],
                   recipients=[A, B])
    assert (outcome.kind, outcome.reason, outcome.code) == (
        Kind.accepted, '', '')
    assert fared(outcome) == [(A, 'accepted', 'id-a'),
                              (B, 'accepted', 'id-b')]


def test_all_are_rejected_for_reasons_of_their_own(server):
    outcome = send(server, [entry(A, 'rejected', 'spam'),
                            entry(B, 'invalid')], recipients=[A, B])
    assert outcome.kind is Kind.rejected and not outcome.alert
    assert outcome.provider_message_id is None
    assert outcome.code == 'spam'
    assert [kind for _, kind, _ in fared(outcome)] == ['rejected'] * 2
    assert outcome.reason == (
        '1 of 2 recipients rejected: the recipient complained before: spam; '
        '1 of 2 recipients rejected: the address is not valid: invalid')


def test_all_are_rejected_alike(server):
    outcome = send(server, [entry(one, 'rejected', 'unsub', None)
                            for one in (A, B)], recipients=[A, B])
    assert outcome.kind is Kind.rejected
    assert outcome.reason == 'the recipient unsubscribed: unsub'
    assert outcome.recipients == ()


def test_who_is_missing_is_uncertain_and_who_is_extra_does_not_count(server):
    outcome = send(server, [entry(A, proof='id-a'), entry(C, 'invalid')],
                   recipients=[A, B])
    assert outcome.kind is Kind.accepted and outcome.alert
    assert fared(outcome) == [(A, 'accepted', 'id-a'), (B, 'uncertain', None)]
    assert outcome.reason == ('1 of 2 recipients uncertain: the provider '
                              'does not name this recipient')


def test_who_is_missing_among_the_rejected_makes_it_uncertain(server):
    outcome = send(server, [entry(A, 'rejected', 'spam')], recipients=[A, B])
    assert outcome.kind is Kind.uncertain and outcome.alert
    assert [kind for _, kind, _ in fared(outcome)] == [
        'rejected', 'uncertain']


def test_addresses_are_compared_without_regard_to_case(server):
    outcome = send(server, [entry('ann@example.ORG', 'rejected', 'rule'),
                            entry('BO@example.org')],
                   recipients=['Ann@Example.org', 'bo@example.org'])
    assert fared(outcome) == [('Ann@example.org', 'unsupported', 'an-id'),
                              ('bo@example.org', 'accepted', 'an-id')]


@pytest.mark.parametrize('first, second, kind, proof', [
    (('sent', None, 'id-1'), ('sent', None, 'id-1'), 'accepted', 'id-1'),
    (('sent', None, 'id-1'), ('queued', None, 'id-2'), 'accepted', 'id-1'),
    (('rejected', 'spam', 'x'), ('invalid', None, 'y'), 'rejected', None),
    (('sent', None, 'id-1'), ('rejected', 'spam', 'x'), 'uncertain', None),
    (('rejected', 'rule', 'x'), ('invalid', None, 'y'), 'uncertain', None),
    (('invalid', None, 'x'), ('sent', None, 'id-1'), 'uncertain', None)])
def test_a_recipient_who_is_named_twice(server, first, second, kind, proof):
    outcome = send(server, [entry(A, *first), entry(A.upper(), *second)])
    assert (outcome.kind, outcome.provider_message_id) == (kind, proof)
    assert outcome.alert is (kind == 'uncertain')
    assert ('contradicts itself' in outcome.reason) is outcome.alert


PLAIN, LATE, STALLED, UNKNOWN = (
    ('sent', None), ('queued', 'sending-backlogged'),
    ('queued', 'sending-paused'), ('queued', 'a-word'))


@pytest.mark.parametrize('better, worse, flags', [
    (PLAIN, LATE, {'throttled'}), (PLAIN, UNKNOWN, {'alert'}),
    (PLAIN, STALLED, {'stalled', 'alert'}), (LATE, UNKNOWN, {'alert'}),
    (LATE, STALLED, {'stalled', 'alert'}),
    (UNKNOWN, STALLED, {'stalled', 'alert'}),
    (('rejected', 'rule'), ('rejected', 'a-word'), {'alert'}),
    (('rejected', 'unsigned'), ('rejected', 'test-mode-limit'), {'alert'})])
def test_of_what_is_said_twice_of_a_recipient_the_worse_counts(
        server, better, worse, flags):
    for first, second in ((better, worse), (worse, better)):
        outcome = send(server, [entry(A, *first, 'id-1'),
                                entry(A, *second, 'id-2')])
        assert worse[1] in outcome.reason
        assert flags == {flag for flag in (
            'alert', 'throttled', 'stalled', 'domain_only')
            if getattr(outcome, flag)}
        if outcome.kind is Kind.accepted:
            assert outcome.provider_message_id == (
                'id-1' if first == worse else 'id-2')


@pytest.mark.parametrize('odd', [
    None, 17, True, 'sent', [], {}, ['sent'], {'email': None},
    {'email': [A], 'status': 'sent', '_id': 'x'},
    {'email': {'email': A}, 'status': 'sent', '_id': 'x'},
    {'email': A}, {'email': A, 'status': 1, '_id': 'x'},
    {'email': A, 'status': ['sent'], '_id': 'x'},
    {'email': A, 'status': {'sent': True}, '_id': 'x'},
    {'email': A, 'status': 'sent', '_id': {'id': 'x'}},
    {'email': A, 'status': 'sent', '_id': ['x']},
    {'email': A, 'status': 'SENT', '_id': 'x'}])
def test_an_entry_of_another_form_leaves_its_recipient_uncertain(server, odd):
    outcome = send(server, [odd])
    assert outcome.kind is Kind.uncertain and outcome.alert
    outcome = send(server, [odd, entry(B)], recipients=[A, B])
    assert outcome.kind is Kind.accepted and outcome.alert
    assert [kind for _, kind, _ in fared(outcome)] == [
        'uncertain', 'accepted']


GOOD = json.dumps(entry(A)).encode()


@pytest.mark.parametrize('body', [
    b'', b'[', b'[' + GOOD, b'[' + GOOD + b',]', GOOD + b']',
    b'[' + GOOD + b', NaN]', b'[' + GOOD + b', 1e400]',
    b'[' + GOOD.replace(b'{', b'{"status": "invalid", ') + b']',
    b'[' + GOOD + b', "\xff"]', b'\xef\xbb\xbf[' + GOOD + b']',
    b'[' + GOOD + b', ' + b'[' * 10_000 + b']' * 10_000 + b']',
    b'[' + GOOD + b', "\\ud800"]', b'[[' + GOOD + b']]',
    b'{"results": [' + GOOD + b']}', b'"sent"', b'true',
    b'[' + GOOD + b', "' + b'x' * 65_536 + b'"]'])
def test_an_answer_that_is_no_sound_json_is_no_proof(server, body):
    outcome = send(server, body)
    assert (outcome.kind, outcome.alert) == (Kind.uncertain, True)
    assert outcome.provider_message_id is None


@pytest.mark.parametrize('status, body, kind', [
    (500, [entry(A)], 'accepted'), (500, [entry(A, 'invalid')], 'rejected'),
    (400, [entry(A, 'rejected', 'unsigned')], 'refused'),
    (500, [], 'deferred'), (400, [], 'unsupported'),
    (500, [entry(B)], 'deferred'), (502, [entry(B)], 'uncertain')])
def test_a_list_that_names_the_recipient_counts_before_the_status(
        server, status, body, kind):
    outcome = send(server, body, status)
    assert (outcome.kind, outcome.http_status) == (kind, status)


@pytest.mark.parametrize('first, second, kind, flags', [
    (('sent',), ('rejected', 'hard-bounce'), 'accepted', set()),
    (('sent',), ('rejected', 'unsigned'), 'accepted', {'alert'}),
    (('sent',), ('rejected', 'test-mode-limit'), 'accepted', {'alert'}),
    (('queued', 'sending-backlogged'), ('rejected', 'spam'), 'accepted',
     {'throttled'}),
    (('sent',), ('queued', 'hourly-quota-exhausted'), 'accepted',
     {'throttled'}),
    (('sent',), ('queued', 'sending-paused'), 'accepted',
     {'stalled', 'alert'}),
    (('queued', 'account-suspended'), ('queued', 'sending-backlogged'),
     'accepted', {'stalled', 'alert', 'throttled'}),
    (('rejected', 'unsigned'), ('rejected', 'invalid-sender'), 'refused',
     {'alert', 'domain_only'}),
    (('rejected', 'unsigned'), ('rejected', 'hard-bounce'), 'refused',
     {'alert', 'domain_only'}),
    (('rejected', 'unsigned'), ('rejected', 'test-mode-limit'), 'refused',
     {'alert'}),
    (('rejected', 'custom'), ('invalid',), 'unsupported', set()),
    (('bounced',), ('rejected', 'unsigned'), 'uncertain', {'alert'})])
def test_flags_are_those_of_the_recipients_who_decide(
        server, first, second, kind, flags):
    outcome = send(server, [entry(A, *first), entry(B, *second)],
                   recipients=[A, B])
    assert outcome.kind == kind
    assert flags == {flag for flag in (
        'alert', 'throttled', 'stalled', 'domain_only')
        if getattr(outcome, flag)}


def test_what_waits_is_told_before_what_is_rejected(server):
    outcome = send(server, [
        entry(A, 'queued', 'sending-paused'),
        entry(B, 'queued', 'sending-paused'), entry(C, 'rejected', 'spam')],
        recipients=[A, B, C])
    assert outcome.reason == (
        'taken, but it may never be sent: sending-paused; 1 of 3 recipients '
        'rejected: the recipient complained before: spam')
    assert outcome.code == 'sending-paused'
    assert [one.reason for one in outcome.recipients] == [
        *['taken, but it may never be sent: sending-paused'] * 2,
        'the recipient complained before: spam']


def test_who_waits_has_a_reason_beside_who_does_not(server):
    outcome = send(server, [
        entry(A), entry(B, 'queued', 'hourly-quota-exhausted'),
        entry(C, 'queued', 'account-suspended')], recipients=[A, B, C])
    assert outcome.kind is Kind.accepted
    assert [one.reason for one in outcome.recipients] == [
        '', 'taken, but it will be late: hourly-quota-exhausted',
        'taken, but it may never be sent: account-suspended']
    assert outcome.reason == (
        'taken, but it will be late: hourly-quota-exhausted; taken, but it '
        'may never be sent: account-suspended')


@pytest.mark.parametrize('status', ['queued', 'rejected', 'other'])
def test_an_unknown_word_that_echoes_the_email_or_the_key_is_masked(
        server, status):
    echo = f'Secret Subject {KEY} ann@example.org\r\n\0 Secret Text' + (
        'x' * 400)
    one = {**entry(A, status, echo),
           'status': echo if status == 'other' else status}
    outcome = send(server, [one, entry(B)], recipients=[A, B],
                   subject='Secret Subject', content='Secret Text')
    for told in (outcome.reason, outcome.code, outcome.recipients[0].reason):
        assert 'Secret' not in told and KEY not in told
        assert 'ann@' not in told and told.isprintable()
        assert len(told) <= 300
    assert '[secret]' in outcome.recipients[0].reason


def test_a_subject_that_is_one_of_mandrills_words_hides_no_reason(server):
    outcome = send(server, [entry(A, 'rejected', 'hard-bounce')],
                   subject='hard-bounce')
    assert outcome.reason == 'it bounced for good before: hard-bounce'


@pytest.mark.parametrize('proof, kept', [
    (' abc\r\n ', 'abc'), ('a\0b', 'a b'), ('x' * 300, 'x' * 255)])
def test_an_id_is_kept_on_one_line_and_not_too_long(server, proof, kept):
    outcome = send(server, [entry(A, proof=proof)])
    assert outcome.provider_message_id == kept


def test_a_thousand_recipients_are_all_told_apart_in_time(server):
    """Their answer has far more than the 64 KB that are kept elsewhere."""
    domain = '.'.join(['d' * 60] * 3)
    everyone = [f'{n:060}@{domain}' for n in range(1000)]
    email = Email(from_email='shop@example.com', subject='Order',
                  content='x', recipients=everyone[:500],
                  bcc=everyone[500:])
    answer = [entry(one, *(('rejected', 'spam') if n % 10 == 0 else (
        'queued', 'multiple-recipients')), f'{n:032x}')
        for n, one in enumerate(everyone)]
    started = time.process_time()
    outcome = send(server, answer[::-1], email=email)
    assert time.process_time() - started < 2.0
    assert outcome.kind is Kind.accepted and not outcome.alert
    assert fared(outcome) == [
        (one, 'rejected' if n % 10 == 0 else 'accepted', f'{n:032x}')
        for n, one in enumerate(everyone)]
    assert outcome.reason.startswith('100 of 1000 recipients rejected')


def test_a_long_error_to_one_recipient_is_read_whole(server):
    outcome = send(server, {'status': 'error', 'message': 'x' * 60_000,
                            'name': 'ValidationError'}, 500)
    assert outcome.kind is Kind.unsupported


def test_the_key_stands_in_the_body_alone(server):
    send(server, [entry(A)])
    sent = server.requests[-1]
    assert sent.json['key'] == KEY
    assert sent.body.count(KEY.encode()) == 1
    assert KEY not in sent.path + sent.query + str(sent.headers)


@pytest.mark.parametrize('fields, named', [
    ({'subject': 's' * 999}, 'subject: at most 998 characters are carried'),
    ({'tags': ['fine', '_mine']}, 'tags: a tag cannot begin with "_"'),
    ({'tags': ['t' * 51]}, 'tags: at most 50 characters in a tag'),
    ({'html': '<p>x</p>', 'attachments': [
        {'filename': 'a.pdf', 'content_type': 'application/pdf',
         'content': 'eA==', 'content_id': 'a'}]},
     'attachments[0].content_id: only images are carried inline')])
def test_what_mandrill_cannot_carry_is_not_sent(server, fields, named):
    before = len(server.requests)
    outcome = send(server, [entry(A)], **fields)
    assert outcome.kind is Kind.unsupported
    assert outcome.reason.startswith(named)
    assert len(server.requests) == before


def test_what_mandrill_just_can_carry_is_sent(server):
    outcome = send(server, [entry(A)], subject='s' * 998,
                   tags=['t' * 50, 'a_b'], html='<p>x</p>', attachments=[
                       {'filename': 'a', 'content_type': 'IMAGE/png',
                        'content': 'eA==', 'content_id': 'a'}])
    assert outcome.kind is Kind.accepted


def test_a_probe_shows_no_key_that_is_echoed(server):
    server.answer(500, {'status': 'error', 'code': -1, 'name': KEY,
                        'message': f'{{"key":"{KEY}"}} ann@example.org'})
    result = service('mandrill', server.url).probe()
    assert result.ok is False
    assert KEY not in result.detail and 'ann@' not in result.detail


@pytest.mark.parametrize('others, ok, detail', [
    (600, False, 'example.com has no valid DKIM there'),
    (2600, True, 'whether example.com is verified there cannot be known')])
def test_a_domain_is_found_among_many(server, others, ok, detail):
    domains = [{'domain': f'{n}.{"x" * 300}.example', 'valid_signing': True}
               for n in range(others)] + [
        {'domain': 'example.com', 'verified_at': '2013-01-01 15:50:21',
         'valid_signing': False}]
    server.script((200, {'hourly_quota': 100, 'backlog': 0}), (200, domains))
    result = service('mandrill', server.url).probe()
    assert result.ok is ok and detail in result.detail


def test_a_probe_whose_domains_are_not_answered_speaks_of_the_account():
    def answer_once(connection, server):
        server.read_request(connection)
        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 36\r\n\r\n'
                           b'{"hourly_quota": 100, "backlog": 0 }')
        server.read_request(connection)

    with RawServer(answer_once) as server:
        result = service('mandrill', server.url).probe()
        assert server.complete_requests == 2
    assert result.ok is True
    assert result.detail == (
        'the key is valid, for 100 emails an hour; whether example.com is '
        'verified there cannot be known')
