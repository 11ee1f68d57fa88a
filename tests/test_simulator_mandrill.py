"""The simulated Mandrill answers for each recipient, as the sheet says."""

import pytest

import simulating
from simulating import MANDRILL_KEY, call, call_json, mandrill
from stampman.simulator import Simulator

IMAGE = {'type': 'image/png', 'name': 'logo', 'content': 'aGVsbG8='}


@pytest.fixture(scope='module')
def simulator():
    with Simulator(domains=['example.com']) as running:
        yield running


def to(*addresses):
    return [{'email': address, 'type': 'to'} for address in addresses]


def test_a_good_message_is_sent_to_each_with_an_id(simulator):
    simulator.ledger.clear()
    got = mandrill(simulator)
    assert got.status == 200
    assert [(one['email'], one['status'], one['reject_reason'])
            for one in got.json] == [('ann@example.net', 'sent', None),
                                     ('carl@example.net', 'sent', None)]
    entry, = simulator.ledger.entries('mandrill')
    assert entry.provider_ids == tuple(one['_id'] for one in got.json)
    assert (entry.stampman_id, entry.stampman_attempt) == (
        'message-1', 'attempt-1')
    assert [(one.email, one.kind) for one in entry.recipients] == [
        ('ann@example.net', 'to'), ('carl@example.net', 'bcc')]
    assert entry.subject == 'Your order'


def test_our_ids_may_stand_in_the_header(simulator):
    simulator.ledger.clear()
    mandrill(simulator, without=('metadata',), headers={
        'X-Stampman-Id': 'message-2/attempt-2'})
    entry, = simulator.ledger.entries()
    assert (entry.stampman_id, entry.stampman_attempt) == (
        'message-2', 'attempt-2')


@pytest.mark.parametrize('local, status, reject, queued', [
    ('reject-hard-bounce', 'rejected', 'hard-bounce', None),
    ('reject-spam', 'rejected', 'spam', None),
    ('reject-test-mode-limit', 'rejected', 'test-mode-limit', None),
    ('invalid', 'invalid', None, None),
    ('queued-sending-paused', 'queued', None, 'sending-paused'),
    ('queued-hourly-quota-exhausted', 'queued', None,
     'hourly-quota-exhausted'),
    ('reject-of-no-known-kind', 'sent', None, None)])
def test_a_local_part_asks_for_its_fate(
        simulator, local, status, reject, queued):
    one, = mandrill(simulator, to=to(f'{local}@example.net')).json
    assert (one['status'], one['reject_reason'], one['queued_reason']) == (
        status, reject, queued)
    assert bool(one['_id']) == (status in ('sent', 'queued'))


def test_only_who_was_taken_stands_in_the_ledger(simulator):
    simulator.ledger.clear()
    got = mandrill(simulator, to=to(
        'reject-unsub@example.net', 'ann@example.net', 'no address'))
    assert [one['status'] for one in got.json] == [
        'rejected', 'sent', 'invalid']
    entry, = simulator.ledger.entries()
    assert [one.email for one in entry.recipients] == ['ann@example.net']
    assert entry.provider_ids == (got.json[1]['_id'],)


def test_where_nobody_was_taken_the_ledger_stays_empty(simulator):
    simulator.ledger.clear()
    assert mandrill(simulator, to=to('invalid@example.net')).status == 200
    assert not simulator.ledger.entries()
    assert [call.took for call in simulator.ledger.calls()] == [False]


@pytest.mark.parametrize('count, call, status', [
    (10, {}, 'sent'), (11, {}, 'queued'), (1, {'async': True}, 'queued')])
def test_more_than_ten_are_handled_in_the_background(
        simulator, count, call, status):
    got = mandrill(simulator, call=call, to=to(
        *(f'u{n}@example.net' for n in range(count))))
    assert {one['status'] for one in got.json} == {status}
    assert {one['queued_reason'] for one in got.json} == {
        'multiple-recipients' if status == 'queued' else None}


def test_another_sender_domain_is_unsigned(simulator):
    got = mandrill(simulator, from_email='a@example.org')
    assert {(one['status'], one['reject_reason']) for one in got.json} == {
        ('rejected', 'unsigned')}


@pytest.mark.parametrize('path', [
    'messages/send', 'users/ping.json', 'users/info', 'senders/domains'])
def test_another_key_is_401_everywhere(simulator, path):
    got = call_json(simulator, f'/mandrill/api/1.4/{path}', {'key': 'other'})
    assert got.status == 401
    assert got.json == {'status': 'error', 'code': -1, 'name': 'Invalid_Key',
                        'message': 'Invalid API key'}


@pytest.mark.parametrize('without', [
    ('from_email',), ('to',), ('text', 'html')])
def test_each_required_field_is_missed(simulator, without):
    got = mandrill(simulator, without=without)
    assert (got.status, got.json['name'], got.json['code']) == (
        500, 'ValidationError', -2)


@pytest.mark.parametrize('changes, named', [
    ({'from_email': 'shop'}, 'from_email'), ({'to': []}, 'message.to'),
    ({'to': ['ann@example.net']}, 'message.to.0'),
    ({'to': [{'email': 'a@example.net', 'type': 'all'}]}, 'to.0.type'),
    ({'to': [{'name': 'Ann'}]}, 'to.0.email'),
    ({'subject': 'x' * 999}, 'subject'), ({'subject': 1}, 'subject'),
    ({'tags': ['_own']}, 'tags'), ({'tags': ['x' * 51]}, 'tags'),
    ({'metadata': {'a': 1}}, 'metadata.a'),
    ({'headers': {'X-A': None}}, 'headers.X-A'),
    ({'preserve_recipients': 'yes'}, 'preserve_recipients'),
    ({'images': [{**IMAGE, 'type': 'text/html'}]}, 'images.0.type'),
    ({'images': [{**IMAGE, 'content': '%'}]}, 'images.0.content'),
    ({'attachments': [{'type': 'a/b', 'name': 'a'}]},
     'attachments.0.content'),
    ({'attachments': [{'type': 'a/b', 'content': 'aGk='}]},
     'attachments.0.name'),
    ({'recipients': []}, 'recipients')])
def test_what_is_wrong_is_a_validation_error(simulator, changes, named):
    got = mandrill(simulator, **changes)
    assert (got.status, got.json['name']) == (500, 'ValidationError')
    assert named in got.json['message']


def test_files_and_headers_are_taken(simulator):
    assert mandrill(
        simulator, images=[IMAGE], attachments=[
            {**IMAGE, 'content': ''}], tags=['order'],
        headers={'Reply-To': 'a@example.com'}, track_opens=False
    ).status == 200


def test_the_message_and_its_call_are_objects(simulator):
    path = simulating.MANDRILL_PATH
    for body in (b'', b'[]', b'{"key": "a", "key": "b"}'):
        assert call(simulator, 'POST', path, body).json['name'] == (
            'ValidationError')
    for value in ({}, {'message': []}, {'message': {}, 'more': 1}):
        got = call_json(simulator, path, {'key': MANDRILL_KEY, **value})
        assert got.json['name'] == 'ValidationError'


def test_a_time_to_send_at_takes_a_paid_account(simulator):
    got = mandrill(simulator, call={'send_at': '2030-01-01 00:00:00'})
    assert (got.status, got.json['name'], got.json['code']) == (
        402, 'PaymentRequired', 10)


def test_the_probes_answer(simulator):
    def ask(path):
        return call_json(simulator, f'/mandrill/api/1.4/{path}',
                         {'key': MANDRILL_KEY}).json

    assert ask('users/ping') == 'PONG!'
    assert ask('users/info')['hourly_quota'] == 10_000
    domain, = ask('senders/domains.json')
    assert domain['domain'] == 'example.com'
    assert domain['dkim']['valid'] and domain['valid_signing']


def test_every_call_is_a_post_to_a_known_path(simulator):
    assert call(simulator, 'GET', simulating.MANDRILL_PATH).status == 405
    got = call_json(simulator, '/mandrill/api/1.4/messages/sent', {})
    assert (got.status, got.json['name']) == (404, 'Unknown_Method')


def test_a_body_over_25_mb_is_too_large(simulator):
    assert mandrill(simulator, text='x' * 25_000_000).status == 413
