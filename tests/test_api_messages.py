"""Messages: listing, reading, and what a person can do with them."""

import pytest

from gateway_server import (
    ADMIN_KEY, EMAIL, POOL_KEY, GatewayServer, config, sendgrid_at)
from servers import Recorder

MESSAGES = '/example.com/messages/'
HELD_KEY = 'pool-key-of-held'
FAILED_KEY = 'pool-key-of-failed'


@pytest.fixture(scope='module')
def refusing():
    with Recorder() as recorder:
        recorder.answer(413)
        yield recorder


@pytest.fixture(scope='module')
def server(tmp_path_factory, silent, refusing):
    configured = config()
    configured['pools'] += [
        {'domain': 'held.example', 'api_key': HELD_KEY,
         'on_uncertain': 'hold',
         'services': {'sendgrid': sendgrid_at(silent.url)}},
        {'domain': 'failed.example', 'api_key': FAILED_KEY,
         'services': {'sendgrid': sendgrid_at(refusing.url)}}]
    with GatewayServer(
            tmp_path_factory.mktemp('messages'), configured) as running:
        yield running


@pytest.fixture(scope='module')
def ids(server):
    """Five messages of example.com, the oldest first."""
    return [server.send({**EMAIL, 'recipients': [f'a{number}@example.org'],
                         'cc': 'Everyone@bücher.example'}).json['id']
            for number in range(5)]


def post(server, path, body=None, key=POOL_KEY):
    return server.request('POST', path, body, key=key)


def listed(server, query=''):
    reply = server.get(f'{MESSAGES}{query}', POOL_KEY)
    assert reply.status == 200, reply.text
    return [message['id'] for message in reply.json['messages']]


def test_messages_are_listed_newest_first(server, ids):
    assert listed(server) == ids[::-1]


def test_pages_lead_through_all_messages(server, ids):
    seen, path = [], f'{MESSAGES}?limit=2&state=accepted'
    while path:
        page = server.get(path, POOL_KEY).json
        seen.append([message['id'] for message in page['messages']])
        assert page['has_more'] == ('next' in page)
        path = page.get('next', '').partition(str(server.port))[2]

    assert seen == [[ids[4], ids[3]], [ids[2], ids[1]], [ids[0]]]


def test_filters_are_all_obeyed(server, ids):
    made = server.get(f'{MESSAGES}{ids[2]}', POOL_KEY).json['created_at']
    offset = made.replace('Z', '%2B00:00')

    assert listed(server, '?recipient=a3@example.org') == [ids[3]]
    assert listed(server, '?recipient=a3@EXAMPLE.org&state=') == [ids[3]]
    assert listed(server, '?recipient=nobody@example.org') == []
    assert listed(server, '?recipient=Everyone@xn--bcher-kva.example&limit=1'
                  ) == [ids[4]]
    assert listed(server, '?state=failed') == []
    assert listed(server, '?until=2020-01-01T00:00:00Z') == []
    assert ids[0] not in listed(server, f'?since={offset}')
    assert ids[4] in listed(server, f'?since={made}')
    assert ids[4] not in listed(server, f'?until={made}')


@pytest.mark.parametrize('query, field', [
    ('colour=red', 'colour'), ('state=lost', 'state'), ('limit=0', 'limit'),
    ('limit=101', 'limit'), ('limit=ten', 'limit'), ('limit=1e1', 'limit'),
    ('limit=%D9%A1', 'limit'), ('since=yesterday', 'since'),
    ('since=2026-01-01T00:00:00', 'since'),
    ('until=2026-01-01', 'until'), ('recipient=nobody', 'recipient'),
    ('after=1', 'after'), ('state=failed&state=queued', 'state'),
    ('until=2026-13-01T00:00:00Z', 'until'),
    ("after=0'%20or%201", 'after')])
def test_a_filter_that_is_wrong_is_named(server, query, field):
    reply = server.get(f'{MESSAGES}?{query}', POOL_KEY)

    assert (reply.status, reply.fields) == (422, [field])


def test_a_message_tells_its_story(server, ids):
    story = server.get(f'{MESSAGES}{ids[0]}', POOL_KEY).json

    assert story['status'] == 'accepted'
    assert [(one['email'], one['kind'], one['status'])
            for one in story['recipients']] == [
        ('a0@example.org', 'to', 'accepted'),
        ('Everyone@xn--bcher-kva.example', 'cc', 'accepted')]
    attempt, = story['attempts']
    assert attempt['service'] == attempt['provider'] == 'capture'
    assert attempt['outcome'] == 'accepted'
    assert attempt['started_at'] <= attempt['ended_at']
    assert story['created_at'].endswith('Z')
    assert story['created_at'] < story['expires_at']


def test_the_content_is_for_an_admin_only(server):
    sent = server.send({**EMAIL, 'html': '<p>canary</p>', 'attachments': [
        {'filename': 'a.txt', 'content': 'aGVsbG8='}]}).json
    path = f'{MESSAGES}{sent["id"]}'

    assert 'email' not in server.get(path, POOL_KEY).json
    assert 'canary' not in server.get(path, POOL_KEY).text
    email = server.get(path, ADMIN_KEY).json['email']
    assert email['html'] == '<p>canary</p>'
    assert email['attachments'][0]['content'] == 'aGVsbG8='
    assert email['attachments'][0]['size'] == 5


@pytest.mark.parametrize('message_id', [
    '01a20bb1-1772-7953-92e3-5049b35b9dcb', 'x', '%00', '..', "'", 'x' * 500])
def test_what_does_not_exist_is_not_found(server, message_id):
    assert server.get(f'{MESSAGES}{message_id}', POOL_KEY).status == 404
    for act in ('retry', 'cancel'):
        reply = post(server, f'{MESSAGES}{message_id}/{act}')
        assert reply.status == 404


@pytest.mark.parametrize('act, body', [
    ('retry', None), ('cancel', {}), ('resolve', {'verdict': 'send_again'})])
def test_an_accepted_message_stays_as_it_is(server, ids, act, body):
    reply = post(server, f'{MESSAGES}{ids[0]}/{act}', body)

    assert (reply.status, reply.json['code']) == (409, 'conflict')
    assert server.get(f'{MESSAGES}{ids[0]}', POOL_KEY).json[
        'status'] == 'accepted'


@pytest.mark.parametrize('act, body, field', [
    ('retry', {'now': True}, 'now'), ('cancel', {'why': 'x'}, 'why'),
    ('resolve', None, 'verdict'), ('resolve', {}, 'verdict'),
    ('resolve', {'verdict': 'maybe'}, 'verdict'),
    ('resolve', {'verdict': 7}, 'verdict'),
    ('resolve', {'verdict': 'accepted', 'x': 1}, 'x')])
def test_an_act_takes_what_it_knows_and_nothing_else(
        server, ids, act, body, field):
    reply = post(server, f'{MESSAGES}{ids[0]}/{act}', body)

    assert (reply.status, reply.fields) == (422, [field])


@pytest.mark.parametrize('body, mimetype, status', [
    (b'verdict=accepted', 'application/x-www-form-urlencoded', 415),
    (b'accepted', 'text/plain', 415), (b'{', 'application/json', 400)])
def test_an_act_reads_only_json(server, ids, body, mimetype, status):
    reply = server.request(
        'POST', f'{MESSAGES}{ids[0]}/resolve', body,
        {'Content-Type': mimetype}, POOL_KEY)

    assert reply.status == status


@pytest.mark.parametrize('verdict, state, services', [
    ('accepted', 'accepted', 'sendgrid'), ('not_sent', 'failed', None)])
def test_a_person_settles_what_is_uncertain(
        server, verdict, state, services):
    held = server.request('POST', '/held.example/send', {
        **EMAIL, 'from_email': 'shop@held.example'}, key=HELD_KEY).json
    path = f'/held.example/messages/{held["id"]}'

    reply = post(server, f'{path}/resolve', {
        'verdict': verdict, 'pool_api_key': HELD_KEY}, None)

    assert (reply.status, reply.json['status']) == (200, state)
    assert reply.json.get('service_used') == services
    assert reply.json['attempts'][0]['resolved'] == verdict
    assert post(server, f'{path}/resolve', {'verdict': verdict},
                HELD_KEY).status == 409


def test_a_failed_message_is_tried_again(server, refusing):
    failed = server.request('POST', '/failed.example/send', {
        **EMAIL, 'from_email': 'shop@failed.example'}, key=FAILED_KEY).json
    assert failed['code'] == 'failed'
    path = f'/failed.example/messages/{failed["id"]}'

    reply = post(server, f'{path}/retry', None, ADMIN_KEY)

    assert reply.status == 200
    assert reply.json['status'] in ('queued', 'sending', 'failed')
    assert 'email' in reply.json
    refusing.wait_for(2)


def test_a_deferred_message_is_cancelled(tmp_path):
    with Recorder() as down, GatewayServer(tmp_path, config(
            {'sendgrid': sendgrid_at(down.url)})) as server:
        down.answer(503)
        deferred = server.send().json
        path = f'{MESSAGES}{deferred["id"]}'

        reply = post(server, f'{path}/cancel')

        assert (reply.status, reply.json['status']) == (200, 'cancelled')
        assert 'next_attempt_at' not in reply.json
        assert post(server, f'{path}/cancel').status == 409
        assert post(server, f'{path}/retry').status == 200
