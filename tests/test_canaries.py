"""No secret and no content in any output: one test scans them all.

A provider that repeats all it was sent stands behind a real server; what
comes out of every door is searched for what must not.
"""

import base64
import json
import sqlite3

import pytest

from gateway_server import Browser, config, sendgrid_at
from processes import Server
from servers import Recorder

SECRETS = {
    'pool key': 'canary-pool-key-5b1f8e',
    'admin key': 'canary-admin-key-77ac01',
    'provider key': 'canary-provider-key-e093d2',
    'session key': 'canary-session-key-of-32-characters-at-least',
    'unknown key': 'canary-of-a-key-that-nobody-holds',
}
CONTENT = {
    'subject': 'Canary subject four-seven-one',
    'content': 'Your code is canary-482913.',
    'html': '<p>Your code is canary-482913-html.</p>',
    'from_name': 'Canary Sender Name',
    'headers': {'X-Canary': 'canary-header-value'},
    'metadata': {'order': 'canary-metadata-value'},
    'tags': ['canary-tag-value'],
}
WORDS = ['canary-subject', 'Canary subject four-seven-one', 'canary-482913',
         'canary-482913-html', 'Canary Sender Name', 'canary-header-value',
         'canary-metadata-value', 'canary-tag-value']
ADDRESSES = ['canary.recipient@example.org', 'canary.copy@example.org']
EMAIL = {'from_email': 'shop@example.com', 'recipients': ADDRESSES[:1],
         'cc': ADDRESSES[1:], **CONTENT}


class Parrot(Recorder):
    """A provider that repeats whatever it was sent, in its error."""

    def take(self, request):
        given = super().take(request)
        told = request.body.decode() + str(request.headers)
        return given._replace(body={'errors': [
            {'message': told, 'field': told}], 'message': told})


@pytest.fixture(scope='module')
def outputs(tmp_path_factory):
    """Everything that anybody gets to see, by the door it came from."""
    folder = tmp_path_factory.mktemp('canaries')
    found = {}
    with Parrot() as first, Parrot() as second:
        first.answer(400)
        second.answer(503)
        configured = config({
            name: {**sendgrid_at(provider.url, number),
                   'api_key': SECRETS['provider key']}
            for number, (name, provider) in enumerate(
                (('first', first), ('second', second)), 1)})
        configured['pools'][0]['api_key'] = SECRETS['pool key']
        configured['admins'][0]['api_key'] = SECRETS['admin key']
        server = Server(folder, STAMPMAN_SECRET_KEY=SECRETS['session key'])
        with server.configure(configured):
            walk(server, found)
        for words in (['check'], ['check', '--live'], ['migrate'],
                      ['send', '--from', 'shop@example.com', '--to',
                       ADDRESSES[0], '--subject', CONTENT['subject'],
                       '--text', CONTENT['content']]):
            result = server.run(*words)
            found['$ ' + ' '.join(words[:2])] = result.stdout + result.stderr
        found['log'] = server.log
        assert len(first.requests) > 2 and len(second.requests) > 1
    with sqlite3.connect(folder / 'stampman.db') as database:
        found['attempts'] = str(database.execute(
            'SELECT * FROM attempts').fetchall())
        found['health'] = str(database.execute(
            'SELECT * FROM health').fetchall())
    database.close()
    return found


def walk(server, found):
    """Go through the doors of a running server."""
    for key in (SECRETS['pool key'], SECRETS['unknown key'],
                SECRETS['admin key']):
        reply = server.send(EMAIL, key)
        found[f'send {reply.status}'] = told(reply)
    for number in range(4):
        reply = server.send({**EMAIL, 'recipients': 'not an address'
                             if number else ADDRESSES[0],
                             'pool_api_key': SECRETS['pool key']}, None)
        found[f'send again {number}'] = told(reply)
    message = server.get('/example.com/messages/', SECRETS['pool key'])
    found['list'] = told(message)
    path = ('/example.com/messages/'
            + message.json['messages'][0]['id'])
    found['story'] = told(server.get(path, SECRETS['pool key']))
    for path in ('/', '/example.com/', '/healthz', '/readyz',
                 '/openapi.json', '/example.com/send', '/nothing'):
        found[path] = told(server.get(path, SECRETS['admin key']))
    browser = Browser(server)
    browser.sign_in(SECRETS['admin key'])
    for path in ('/', '/example.com/', '/example.com/send',
                 '/example.com/messages/', '/login'):
        found[f'page {path}'] = told(browser.get(path))


def told(reply):
    return f'{reply.headers}\n{reply.body.decode()}'


def spellings(word):
    return {word, json.dumps(word)[1:-1],
            base64.b64encode(word.encode()).decode(), repr(word)[1:-1]}


@pytest.mark.parametrize('name', SECRETS)
def test_no_secret_is_in_any_output(outputs, name):
    seen = [door for door, text in outputs.items()
            if any(word in text for word in spellings(SECRETS[name]))]
    assert not seen


@pytest.mark.parametrize('word', WORDS)
def test_no_content_is_in_any_output(outputs, word):
    seen = [door for door, text in outputs.items()
            if any(spelt in text for spelt in spellings(word))]
    assert not seen


@pytest.mark.parametrize('address', ADDRESSES)
def test_addresses_are_whole_only_where_the_caller_gave_them(
        outputs, address):
    doors = {'send 422', 'send 202', 'story', 'send again 0'}
    seen = {door for door, text in outputs.items() if address in text}
    assert seen <= doors


def test_the_outputs_are_really_there(outputs):
    assert 'first' in outputs['attempts'] and 'canary' in str(EMAIL)
    assert 'HTTP 400' in outputs['story']
    assert 'needs a look' in outputs['log']
    assert len(outputs) > 20
