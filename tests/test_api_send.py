"""What a send is answered, for each way that it can go."""

import base64
import json
import threading
import uuid

import pytest

from gateway_server import (
    EMAIL, POOL_KEY, GatewayServer, config, sendgrid_at)
from servers import Recorder

TAKEN = (202, b'', {'X-Message-Id': 'theirs-1'})
ERROR = {'errors': [{'field': 'personalizations.0.to.0.email',
                     'message': 'does not contain a valid address'}]}
# domain: what its SendGrid answers, its policy, and what follows of it
WAYS = {
    'accepted': (TAKEN, {}, 200, 'accepted'),
    'deferred': ((503, b'down'), {}, 202, 'deferred'),
    'refused': ((401, b'no'), {}, 202, 'deferred'),
    'uncertain': ((504, b''), {}, 202, 'uncertain'),
    'held': ((504, b''), {'on_uncertain': 'hold'}, 202, 'uncertain'),
    'rejected': ((400, ERROR), {}, 422, 'rejected'),
    'failed': ((413, b''), {}, 422, 'failed'),
}
NEXT = {'deferred', 'refused', 'uncertain'}


@pytest.fixture(scope='module')
def providers():
    recorders = {name: Recorder() for name in WAYS}
    for name, recorder in recorders.items():
        recorder.answer(*WAYS[name][0])
        recorder.__enter__()
    yield recorders
    for recorder in recorders.values():
        recorder.__exit__(None, None, None)


@pytest.fixture(scope='module')
def server(tmp_path_factory, providers):
    configured = config({
        'main': sendgrid_at(providers['refused'].url, 1),
        'spare': {'provider': 'capture', 'priority': 2}})
    configured['pools'] += [
        {'domain': f'{name}.example', 'api_key': f'{POOL_KEY}-{name}',
         'services': {'main': sendgrid_at(recorder.url)}, **WAYS[name][1]}
        for name, recorder in providers.items()]
    with GatewayServer(
            tmp_path_factory.mktemp('send'), configured) as running:
        yield running


def send(server, name, **fields):
    return server.request(
        'POST', f'/{name}.example/send',
        {name: value for name, value in {
            **EMAIL, 'from_email': f'shop@{name}.example', **fields}.items()
         if value is not ...}, key=f'{POOL_KEY}-{name}')


@pytest.mark.parametrize('name', WAYS)
def test_a_send_is_answered_by_where_the_message_stands(server, name):
    _, _, status, state = WAYS[name]

    reply = send(server, name)

    assert reply.status == status, reply.text
    told = reply.json
    assert uuid.UUID(told['id']).version == 7
    assert told['url'].endswith(f'/{name}.example/messages/{told["id"]}')
    assert reply.headers['Location'] == told['url']
    assert [one['email'] for one in told['recipients']] == [
        'ada@example.org']
    assert told['recipients'][0]['status'] == state
    assert ('next_attempt_at' in told) == (name in NEXT)
    assert told.get('service_used') == (
        'main' if state == 'accepted' else None)
    assert list(told['services_fail']) == (
        [] if state == 'accepted' else ['main'])
    assert told['possible_duplicate'] is False
    assert 'simulated' not in told


@pytest.mark.parametrize('name', ['rejected', 'failed'])
def test_what_is_refused_for_good_is_a_problem_with_its_reasons(server, name):
    reply = send(server, name)

    assert reply.headers['Content-Type'] == 'application/problem+json'
    told = reply.json
    assert (told['status'], told['code']) == (422, name)
    assert told['type'] and told['title'] and told['request_id']
    assert 'HTTP' in told['services_fail']['main']
    assert told['detail'] and told['recipients'][0]['reason']
    shown = server.get(f'/{name}.example/messages/{told["id"]}',
                       f'{POOL_KEY}-{name}').json
    assert shown['status'] == name


def test_the_next_service_takes_what_the_first_does_not(server):
    told = server.send().json

    assert told['status'] == 'accepted'
    assert told['service_used'] == 'spare'
    assert set(told['services_fail']) <= {'main'}
    assert told['simulated'] is True


def test_the_provider_gets_every_field_and_no_key(server, providers):
    picture = base64.b64encode(b'\x89PNG').decode()
    reply = send(
        server, 'accepted', pool_api_key=f'{POOL_KEY}-accepted',
        to=['Zoë <zoe@bücher.example>'], text='héllo', html='<p>hi</p>',
        cc='cy@example.org', reply_to='help@accepted.example',
        headers={'X-Order': '7'}, tags=['order'], metadata={'order': '7'},
        recipients=..., content=..., attachments=[
            {'filename': 'a.png', 'content_type': 'image/png',
             'content': picture}])

    assert reply.status == 200, reply.text
    body = providers['accepted'].requests[-1].body.decode()
    assert POOL_KEY not in body
    for part in ('zoe@xn--bcher-kva.example', 'cy@example.org', 'X-Order',
                 picture, 'help@accepted.example', '<p>hi</p>'):
        assert part in body
    assert 'héllo' in json.dumps(json.loads(body), ensure_ascii=False)


def test_what_cannot_be_delivered_at_once_is_queued(tmp_path):
    with Recorder() as provider, GatewayServer(tmp_path, config(
            {'sendgrid': sendgrid_at(provider.url)}), threads=3) as server:
        provider.answer(*TAKEN)
        provider.hold()
        first = []
        waiting = threading.Thread(
            target=lambda: first.append(server.send()))
        waiting.start()
        provider.wait_for(1)

        second = server.send()

        provider.release()
        waiting.join()
        assert (second.status, second.json['status']) == (202, 'queued')
        assert (first[0].status, first[0].json['status']) == (
            200, 'accepted')


def test_a_store_that_is_away_is_a_503_and_nothing_is_sent(tmp_path):
    with Recorder() as provider:
        away = GatewayServer(tmp_path, config(
            {'sendgrid': sendgrid_at(provider.url)}))
        away.spoil_store()
        with away as server:
            reply = server.send()
            ready = server.get('/readyz')
            alive = server.get('/healthz')

        assert (reply.status, reply.json['code']) == (
            503, 'store_unavailable')
        assert int(reply.headers['Retry-After']) >= 1
        assert (ready.status, ready.json['code']) == (503, 'not_ready')
        assert ready.json['checks']['store'] != 'ok'
        assert alive.status == 200
        assert provider.requests == []


def test_a_pools_rate_is_a_429_that_says_when(tmp_path):
    configured = config()
    configured['pools'][0]['rate'] = 0.01
    with GatewayServer(tmp_path, configured) as server:
        assert server.send().status == 200

        reply = server.send()

    assert (reply.status, reply.json['code']) == (429, 'too_many_requests')
    assert 1 <= int(reply.headers['Retry-After']) <= 100
