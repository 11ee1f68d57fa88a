"""Erasing: the content and the addresses go, the story stays."""

import pytest

from gateway_server import (
    ADMIN_KEY, EMAIL, POOL_KEY, GatewayServer, Page, config, sendgrid_at)
from servers import Recorder

HELD_KEY, FAILED_KEY = 'pool-key-of-held', 'pool-key-of-failed'
MESSAGES = '/example.com/messages/'
CANARIES = ('canary', 'ada@example.org', 'eve@example.org')


@pytest.fixture(scope='module')
def server(tmp_path_factory, silent):
    configured = config()
    with Recorder() as refusing:
        refusing.answer(413)
        configured['pools'] += [
            {'domain': 'held.example', 'api_key': HELD_KEY,
             'on_uncertain': 'hold',
             'services': {'sendgrid': sendgrid_at(silent.url)}},
            {'domain': 'failed.example', 'api_key': FAILED_KEY,
             'services': {'sendgrid': sendgrid_at(refusing.url)}}]
        with GatewayServer(
                tmp_path_factory.mktemp('erase'), configured) as running:
            yield running


def send(server, domain='example.com', key=POOL_KEY, **fields):
    """Send an email full of canaries; return the path of its message."""
    reply = server.request('POST', f'/{domain}/send', {
        **EMAIL, 'from_email': f'shop@{domain}', 'subject': 'canary',
        'content': 'canary', 'bcc': 'eve@example.org', 'attachments': [
            {'filename': 'canary.txt', 'content': 'aGk='}], **fields},
        key=key)
    assert reply.json['id'], reply.text
    return f'/{domain}/messages/{reply.json["id"]}'


@pytest.mark.parametrize('key', [POOL_KEY, ADMIN_KEY])
@pytest.mark.parametrize('method, act, body', [
    ('DELETE', '', None), ('DELETE', '', {}), ('POST', '/erase', None)])
def test_what_is_erased_is_gone_and_its_story_stays(
        server, key, method, act, body):
    path = send(server)

    reply = server.request(method, path + act, body, key=key)

    assert reply.status == 200, reply.text
    told = reply.json
    assert told['status'] == 'accepted' and told['erased_at'].endswith('Z')
    assert [(one['email'], one['kind'], one['status'])
            for one in told['recipients']] == [
        ('erased-1', 'to', 'accepted'), ('erased-2', 'bcc', 'accepted')]
    assert told['attempts'][0]['outcome'] == 'accepted'
    for reader in (POOL_KEY, ADMIN_KEY):
        shown = server.get(path, reader)
        assert shown.json == told
        assert not [one for one in CANARIES if one in shown.text]
    listed = server.get(f'{MESSAGES}?limit=1', POOL_KEY).json['messages'][0]
    assert listed['erased_at'] == told['erased_at']
    found = server.get(f'{MESSAGES}?recipient=eve@example.org', POOL_KEY)
    assert told['id'] not in found.text


def test_erasing_again_changes_nothing(server):
    path = send(server)
    first, second = (server.request('DELETE', path, key=POOL_KEY)
                     for _ in range(2))
    assert (first.status, second.status) == (200, 200)
    assert first.json == second.json


def test_the_key_may_stand_in_the_body(server):
    path = send(server)
    assert server.request('DELETE', path, {
        'pool_api_key': POOL_KEY}).json['erased_at']
    wrong = server.request('DELETE', path, {'why': 'x'}, key=POOL_KEY)
    assert (wrong.status, wrong.fields) == (422, ['why'])


def test_what_waits_is_not_erased(server):
    path = send(server, 'held.example', HELD_KEY)

    reply = server.request('DELETE', path, key=HELD_KEY)

    assert (reply.status, reply.json['code']) == (409, 'conflict')
    assert 'uncertain' in reply.json['detail']
    assert 'resolved' in reply.json['detail']
    assert 'canary' in server.get(path, ADMIN_KEY).text
    server.request('POST', f'{path}/resolve', {'verdict': 'not_sent'},
                   key=HELD_KEY)
    erased = server.request('DELETE', path, key=HELD_KEY)
    assert (erased.status, erased.json['status']) == (200, 'failed')


def test_what_is_erased_cannot_be_tried_again(server, admin):
    path = send(server, 'failed.example', FAILED_KEY)
    assert admin.page(path).form(f'{path}/retry')
    server.request('DELETE', path, key=FAILED_KEY)

    reply = server.request('POST', f'{path}/retry', key=FAILED_KEY)

    assert (reply.status, reply.json['code']) == (409, 'conflict')
    assert 'content is not kept any more' in reply.json['detail']
    page = admin.page(path)
    assert [one[1] for one in page.forms] == ['/logout']
    assert 'The content is not kept any more.' in page.text


def test_an_admin_erases_by_the_button(server, admin):
    path = send(server)
    form = admin.page(path).form(f'{path}/erase')
    assert form[0] == 'POST'

    reply = admin.submit(form)

    assert reply.status == 200
    page = Page(reply.text)
    assert 'Erased at' in page.text and 'erased-2' in page.text
    assert not [one for one in CANARIES if one in reply.text]
    assert [one[1] for one in page.forms] == ['/logout']
    assert admin.submit(form).status == 200


def test_what_waits_has_no_such_button(server, admin):
    path = send(server, 'held.example', HELD_KEY)
    assert f'{path}/erase' not in [one[1] for one in admin.page(path).forms]


def test_its_key_still_answers_without_an_address(server):
    headers = {'Idempotency-Key': 'erased'}
    sent = server.send({**EMAIL, 'subject': 'canary'}, **headers).json
    server.request('DELETE', f'{MESSAGES}{sent["id"]}', key=POOL_KEY)
    again = server.send({**EMAIL, 'subject': 'canary'}, **headers)
    assert (again.status, again.json['id']) == (200, sent['id'])
    assert again.json['recipients'][0]['email'] == 'erased-1'
    assert again.json['erased_at']
