"""What need not be sent while the client waits: Prefer, and send_at."""

import http.client
import json
import time
from datetime import UTC, datetime

import pytest

from fakes import Time
from gateway_server import (
    EMAIL, POOL_KEY, GatewayServer, Page, api_in_process, config,
    sendgrid_at)

SEND, MESSAGES = '/example.com/send', '/example.com/messages/'
DAY = 86400


@pytest.fixture(scope='module')
def server(tmp_path_factory, taking):
    with GatewayServer(tmp_path_factory.mktemp('later'), config(
            {'sendgrid': sendgrid_at(taking.url)})) as running:
        yield running


def at(ahead):
    """Return the time so many seconds from now, as the API tells it."""
    moment = datetime.fromtimestamp(time.time() + ahead, UTC)
    return moment.isoformat(timespec='milliseconds').replace('+00:00', 'Z')


# -- Prefer ------------------------------------------------------------------

ASYNC = ['respond-async', 'Respond-ASYNC', ' respond-async ',
         'respond-async, wait=10', 'wait=10,respond-async',
         'return=minimal; foo="a, respond-sync"; bar, respond-async',
         'respond-async=""', 'respond-async = ""', ',, respond-async ,',
         'respond-async; x=1; y="\\"", respond-async=no',
         'respond-async;', 'respond-async ; ;a']
NOT_ASYNC = ['wait=10', 'return=representation', 'handling=lenient; a="b"',
             'respond-async=no', 'respond-async=no, respond-async',
             'foo="respond-async"', 'foo; respond-async', 'respond-async2']
MALFORMED = ['', ',', 'respond-async foo', 'a=', 'a="', 'a="b"c', '=a',
             'a b', 'a, =', '"respond-async"', 'respond-async/1', 'a;=b',
             'é', '(a)', 'a=b=c', 'a="\\']


@pytest.mark.parametrize('prefer', ASYNC)
def test_who_prefers_not_to_wait_is_answered_at_once(server, prefer):
    reply = server.send(Prefer=prefer)

    assert (reply.status, reply.json['status']) == (202, 'queued')
    assert reply.headers['Preference-Applied'] == 'respond-async'
    assert reply.json['next_attempt_at'] and reply.headers['Location']
    assert reply.json['services_fail'] == {}


@pytest.mark.parametrize('prefer', NOT_ASYNC)
def test_other_preferences_are_ignored_as_the_rfc_asks(server, prefer):
    reply = server.send(Prefer=prefer)

    assert (reply.status, reply.json['status']) == (200, 'accepted')
    assert 'Preference-Applied' not in reply.headers


@pytest.mark.parametrize('path, body', [
    (SEND, EMAIL), (f'{SEND}/batch', {'emails': [EMAIL]})])
@pytest.mark.parametrize('prefer', MALFORMED)
def test_what_is_no_list_of_preferences_is_refused(
        server, prefer, path, body):
    reply = server.request('POST', path, body, {'Prefer': prefer}, POOL_KEY)

    assert (reply.status, reply.fields) == (400, ['Prefer'])


def test_several_headers_are_one_list(server):
    body = json.dumps(EMAIL).encode()
    connection = http.client.HTTPConnection('127.0.0.1', server.port)
    connection.putrequest('POST', SEND)
    for name, value in (
            ('Content-Type', 'application/json'), ('Prefer', 'wait=10'),
            ('Authorization', f'Bearer {POOL_KEY}'),
            ('Prefer', 'respond-async'), ('Content-Length', len(body))):
        connection.putheader(name, value)
    connection.endheaders(body)
    reply = connection.getresponse()
    assert (reply.status, reply.headers['Preference-Applied']) == (
        202, 'respond-async')
    connection.close()


@pytest.mark.parametrize('prefer', [
    'a; ' * 2500 + '@', 'a' + '; ' * 3500 + '@', ', ' * 3500 + '@',
    'a="' + '\\a' * 3500, 'a=b,' * 1800 + '@', ' ' * 7000 + '@'])
def test_no_list_of_preferences_takes_long_to_read(server, prefer):
    began = time.monotonic()
    assert server.send(Prefer=prefer).status == 400
    assert time.monotonic() - began < 2


def test_the_worker_sends_what_nobody_waits_for(server, taking):
    before = len(taking.requests)
    message_id = server.send(Prefer='respond-async').json['id']
    taking.wait_for(before + 1)
    for _ in range(100):
        told = server.get(f'{MESSAGES}{message_id}', POOL_KEY).json
        if told['status'] == 'accepted':
            break
        time.sleep(0.02)
    assert told['service_used'] == 'sendgrid'


def test_a_replay_says_where_it_stands_and_applies_nothing(server):
    headers = {'Idempotency-Key': 'later'}
    first = server.send(**headers)
    second = server.send(**headers, Prefer='respond-async')
    assert (second.status, second.json['id']) == (200, first.json['id'])
    assert second.headers['Idempotent-Replayed'] == 'true'
    assert 'Preference-Applied' not in second.headers


def test_elsewhere_a_preference_changes_nothing(server):
    assert server.get(MESSAGES, POOL_KEY, Prefer='safe').status == 200


# -- send_at -----------------------------------------------------------------

def test_what_is_scheduled_is_queued_until_then(server, taking):
    before, due = len(taking.requests), at(DAY)

    reply = server.send({**EMAIL, 'send_at': due})

    assert (reply.status, reply.json['status']) == (202, 'queued')
    assert reply.json['send_at'] == reply.json['next_attempt_at'] == due
    assert 'Preference-Applied' not in reply.headers
    story = server.get(f'{MESSAGES}{reply.json["id"]}', POOL_KEY).json
    assert (story['send_at'], story['attempts']) == (due, [])
    assert story['expires_at'] > due
    page = server.get(f'{MESSAGES}?limit=1', POOL_KEY).json['messages']
    assert (page[0]['send_at'], page[0]['next_attempt_at']) == (due, due)
    assert len(taking.requests) == before


def test_it_is_cancelled_before_it_is_due(server):
    sent = server.send({**EMAIL, 'send_at': at(60)}).json
    reply = server.request(
        'POST', f'{MESSAGES}{sent["id"]}/cancel', key=POOL_KEY)
    assert (reply.status, reply.json['status']) == (200, 'cancelled')
    assert 'next_attempt_at' not in reply.json
    assert reply.json['send_at'] == sent['send_at']


def test_set_going_again_it_still_waits_for_its_time(server):
    sent = server.send({**EMAIL, 'send_at': at(DAY)}).json
    for act in 'cancel', 'retry':
        reply = server.request(
            'POST', f'{MESSAGES}{sent["id"]}/{act}', key=POOL_KEY)
    assert (reply.status, reply.json['status']) == (200, 'queued')
    assert reply.json['next_attempt_at'] == sent['send_at']


@pytest.mark.parametrize('ahead, status', [
    (-400, 422), (-100, 200), (30 * DAY - 60, 202), (30 * DAY + 60, 422)])
def test_it_may_lie_ahead_by_thirty_days(server, ahead, status):
    reply = server.send({**EMAIL, 'send_at': at(ahead)})
    assert reply.status == status
    assert status != 422 or reply.fields == ['send_at']


def test_it_is_sent_when_its_time_has_come(tmp_path):
    clock = Time(time.time())
    api = api_in_process(tmp_path, clock.clock)
    headers = {'Authorization': f'Bearer {POOL_KEY}'}
    client, due = api.test_client(), clock.at + DAY
    sent = client.post(SEND, headers=headers, json={
        **EMAIL, 'send_at': datetime.fromtimestamp(due, UTC).isoformat()}
    ).json
    clock.pass_by(DAY - 1)
    assert not api.gateway.deliver_due('me')
    clock.pass_by(2)
    assert api.gateway.deliver_due('me')
    told = client.get(f'{MESSAGES}{sent["id"]}', headers=headers).json
    assert (told['status'], told['send_at']) == (
        'accepted', sent['send_at'])
    api.gateway.store.close()


def test_the_form_schedules_and_the_page_tells(server, admin):
    due = at(DAY)
    reply = admin.submit(
        admin.page(SEND).form(SEND), from_email='shop@example.com',
        recipients='a@example.org', content='hi', send_at=due)
    assert reply.status == 202
    assert f'Not before{due}' in Page(reply.text).text.replace('\n', '')
    path = reply.headers['Location'].partition(str(server.port))[2]
    page = admin.page(path)
    assert due in page.text
    assert admin.submit(page.form(f'{path}/cancel')).status == 200
