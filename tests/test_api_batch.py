"""A batch: many emails in one request, each with a result of its own."""

import pytest

from gateway_server import (
    ADMIN_KEY, EMAIL, POOL_KEY, GatewayServer, config, sendgrid_at)

BATCH, MESSAGES = '/example.com/send/batch', '/example.com/messages/'
KEY = 'Idempotency-Key'
# What is wrong with an item, the code and the fields of its error.
WRONG = [
    ({**EMAIL, 'cc': ['a@example.org', 'b@example.org', 'x']},
     422, 'invalid_fields', ['cc[2]']),
    ({**EMAIL, 'cc': [{'email': 'a@example.org'}, {'email': 'x'}],
      'to': 'b@example.org'}, 422, 'invalid_fields', ['cc[1].email', 'to']),
    ({'from': 'x', 'text': 'y'}, 422, 'invalid_fields',
     ['from', 'recipients']),
    ({**EMAIL, 'from_email': 'ceo@bank.example'}, 403, 'forbidden',
     ['from_email']),
    ({**EMAIL, 'send_at': '2020-01-01T00:00:00Z'}, 422, 'invalid_fields',
     ['send_at']),
    ({**EMAIL, 'pool_api_key': POOL_KEY}, 422, 'invalid_fields',
     ['pool_api_key']),
    ({}, 422, 'invalid_fields', ['from_email', 'recipients', 'content']),
    ({**EMAIL, 'attachments': [{'filename': 'a', 'content': ''}] * 51},
     422, 'invalid_fields', ['attachments']),
    *((item, 422, 'invalid_fields', []) for item in ('x', [], None, 7))]


@pytest.fixture(scope='module')
def server(tmp_path_factory, taking):
    with GatewayServer(tmp_path_factory.mktemp('batch'), config(
            {'sendgrid': sendgrid_at(taking.url)})) as running:
        yield running


def post(server, emails, key=POOL_KEY, **headers):
    return server.request(
        'POST', BATCH, {'emails': emails}, headers, key)


def numbered(*numbers):
    return [{**EMAIL, 'subject': f'Order {number}'} for number in numbers]


def count(server):
    return len(server.get(f'{MESSAGES}?limit=100', POOL_KEY).json['messages'])


def test_each_email_has_its_result_and_the_good_ones_are_sent(
        server, taking):
    before = len(taking.requests)
    emails = numbered(1) + [one[0] for one in WRONG] + numbered(2)

    reply = post(server, emails)

    assert reply.status == 200, reply.text
    told = reply.json
    assert (told['stored'], told['refused']) == (2, len(WRONG))
    results = told['results']
    assert [one['index'] for one in results] == list(range(len(emails)))
    for one in (results[0], results[-1]):
        assert set(one) == {'index', 'message'}
        assert one['message']['status'] == 'queued'
        assert one['message']['url'].endswith(
            MESSAGES + one['message']['id'])
        assert one['message']['recipients'][0]['email'] == 'ada@example.org'
    for one, (_, status, code, fields) in zip(results[1:-1], WRONG):
        assert set(one) == {'index', 'error'}
        error = one['error']
        assert (error['status'], error['code']) == (status, code)
        assert sorted(found['field'] for found in error['errors']) == sorted(
            fields)
        assert error['detail'] and error['title'] and error['type']
        assert error['request_id'] == reply.headers['X-Request-Id']
    taking.wait_for(before + 2)
    assert {one.json['subject'] for one in taking.requests[before:]} == {
        'Order 1', 'Order 2'}


@pytest.mark.parametrize('body, status, fields', [
    ({}, 422, ['emails']), ({'emails': []}, 422, ['emails']),
    ({'emails': None}, 422, ['emails']), ({'emails': EMAIL}, 422, ['emails']),
    ({'emails': 'x'}, 422, ['emails']), ({'emails': [{}] * 501}, 422,
                                         ['emails']),
    ({'emails': [EMAIL], 'colour': 1}, 422, ['colour']),
    ({'emails': [EMAIL], 'idempotency_key': 'x'}, 422, ['idempotency_key']),
    (EMAIL, 422, ['emails', *EMAIL]), ([EMAIL], 400, [])])
def test_what_is_no_batch_is_refused_whole(server, body, status, fields):
    before = count(server)
    reply = server.request('POST', BATCH, body, key=POOL_KEY)
    assert reply.status == status, reply.text
    assert sorted(reply.fields) == sorted(fields)
    assert count(server) == before


def test_how_many_may_come_is_told(server):
    reply = post(server, [EMAIL] * 501)
    assert reply.json['errors'] == [{
        'field': 'emails', 'message': 'at most 500 are allowed, not 501'}]


@pytest.mark.parametrize('content_type, body', [
    ('application/x-www-form-urlencoded', f'pool_api_key={POOL_KEY}'),
    ('multipart/form-data; boundary=x', '--x--'), ('text/plain', '{}')])
def test_a_batch_is_json_alone(server, admin, content_type, body):
    for headers in ({'Authorization': f'Bearer {POOL_KEY}'},
                    {'Cookie': admin.cookie}):
        reply = server.request('POST', BATCH, body.encode(), {
            'Content-Type': content_type, **headers})
        assert reply.status == 415


def test_the_key_may_stand_beside_the_emails(server):
    for key, status in ((POOL_KEY, 200), (ADMIN_KEY, 401), ('x', 401)):
        reply = server.request('POST', BATCH, {
            'emails': [EMAIL], 'pool_api_key': key})
        assert reply.status == status


def test_a_batch_without_a_good_one_stores_nothing(server):
    before = count(server)
    told = post(server, [{}, 7], **{KEY: 'none'}).json
    assert (told['stored'], told['refused']) == (0, 2)
    assert count(server) == before
    # What was refused is not remembered.
    mended = post(server, [EMAIL, EMAIL], **{KEY: 'none'})
    assert mended.json['stored'] == 2
    assert 'Idempotent-Replayed' not in mended.headers


def test_a_batch_that_comes_again_is_the_same_messages(server):
    emails = [EMAIL, {}, {**EMAIL, 'from_email': 'a@bank.example'}, EMAIL]
    first, second = (post(server, emails, **{KEY: 'b'}) for _ in range(2))
    assert 'Idempotent-Replayed' not in first.headers
    assert second.headers['Idempotent-Replayed'] == 'true'
    ids = [[one.get('message', {}).get('id') for one in reply.json['results']]
           for reply in (first, second)]
    assert ids[0] == ids[1] and ids[0][0] and ids[0][3]
    assert ids[0][1:3] == [None, None]
    assert second.json['refused'] == 2


@pytest.mark.parametrize('emails', [
    numbered(1), numbered(2, 1), numbered(1, 2, 3), numbered(1, 3),
    [*numbered(1, 2), {}]])
def test_another_batch_under_the_key_is_refused_whole(server, emails):
    assert post(server, numbered(1, 2), **{KEY: 'c'}).status == 200
    before = count(server)
    reply = post(server, emails, **{KEY: 'c'})
    assert (reply.status, reply.json['code']) == (
        422, 'idempotency_key_reused')
    assert count(server) == before


def test_a_key_of_a_batch_is_no_key_of_its_only_email(server):
    assert post(server, [EMAIL], **{KEY: 'd'}).status == 200
    reply = server.send(**{KEY: 'd'})
    assert (reply.status, reply.json['code']) == (
        422, 'idempotency_key_reused')


def test_a_batch_is_for_the_worker_whatever_is_preferred(server):
    reply = post(server, [EMAIL], Prefer='respond-async')
    assert reply.status == 200
    assert reply.json['results'][0]['message']['status'] == 'queued'


def test_each_may_have_its_time(server):
    told = post(server, [{**EMAIL, 'expires_at': '2020-01-01T00:00:00Z'},
                         EMAIL]).json
    assert (told['stored'], told['refused']) == (1, 1)


def test_over_the_pools_rate_nothing_is_stored(tmp_path):
    configured = config()
    configured['pools'][0]['rate'] = 0.01
    with GatewayServer(tmp_path, configured) as server:
        assert post(server, [EMAIL] * 3).json['stored'] == 3
        reply = post(server, [EMAIL] * 2)
        assert (reply.status, reply.json['code']) == (
            429, 'too_many_requests')
        assert 200 <= int(reply.headers['Retry-After']) <= 300
        assert count(server) == 3


def test_while_the_store_is_away_it_is_a_503(tmp_path):
    away = GatewayServer(tmp_path, config())
    away.spoil_store()
    with away as server:
        assert post(server, [EMAIL]).status == 503


def test_five_hundred_are_stored_at_once(server):
    emails = numbered(*range(500))
    told = post(server, emails).json
    assert told['stored'] == 500
    assert len({one['message']['id'] for one in told['results']}) == 500


def test_all_together_may_not_have_too_many_recipients(tmp_path):
    configured = config(limits={'recipients': 2})
    with GatewayServer(tmp_path, configured) as server:
        pair = {**EMAIL, 'recipients': ['a@example.org', 'b@example.org']}
        reply = post(server, [pair] * 11)
        assert (reply.status, reply.fields) == (422, ['emails'])
        assert count(server) == 0
        assert post(server, [pair] * 10).json['stored'] == 10
