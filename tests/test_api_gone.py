"""A pool that is gone from the config: its messages stay, for admins."""

import time

import pytest

from stampman.helpers.delivery import State
from stampman.opening import new_id
from stampman.store import open_store

from fakes import email, message
from gateway_server import (
    ADMIN_KEY, POOL_KEY, WRONG_KEY, Browser, GatewayServer, config)

GONE = '/gone.example/messages/'


@pytest.fixture(scope='module')
def kept():
    now = time.time()
    return message(id=new_id(now), pool='gone.example', created_at=now,
                   expires_at=now + 3600, state=State.deferred,
                   next_attempt_at=now + 3000)


@pytest.fixture(scope='module')
def server(tmp_path_factory, kept):
    folder = tmp_path_factory.mktemp('gone')
    running = GatewayServer(folder, config())
    store = open_store(f'sqlite:///{folder}/stampman.db')
    store.add(kept, email())
    store.close()
    with running:
        yield running


def test_an_admin_sees_the_messages_of_a_gone_pool(server, kept):
    listed = server.get(GONE, ADMIN_KEY)
    assert [one['id'] for one in listed.json['messages']] == [kept.id]
    story = server.get(f'{GONE}{kept.id}', ADMIN_KEY)
    assert story.json['status'] == 'deferred'


@pytest.mark.parametrize('key', [None, WRONG_KEY, POOL_KEY])
def test_to_everybody_else_it_is_unknown(server, kept, key):
    assert server.get(GONE, key).status == 404
    assert server.get(f'{GONE}{kept.id}', key).status == 404


def test_an_admin_may_erase_there_what_is_settled(server, kept):
    path = f'{GONE}{kept.id}'
    assert server.request('DELETE', path, key=POOL_KEY).status == 404
    reply = server.request('DELETE', path, key=ADMIN_KEY)
    assert (reply.status, reply.json['code']) == (409, 'conflict')


def test_a_message_there_has_no_buttons(server, kept):
    browser = Browser(server)
    browser.sign_in()
    page = browser.page(f'{GONE}{kept.id}')
    assert [form[1] for form in page.forms] == ['/logout']


def test_nothing_can_be_sent_through_it(server):
    for path in ('/gone.example/', '/gone.example/send'):
        assert server.get(path, ADMIN_KEY).status == 404


def test_a_pool_that_never_was_is_unknown_to_admins_too(server):
    assert server.get('/never.example/messages/', ADMIN_KEY).status == 404


def test_the_first_page_tells_admins_of_it(server):
    assert server.get('/', ADMIN_KEY).json['unserved'] == {
        'gone.example': {'deferred': 1}}
    assert 'unserved' not in server.get('/').json
    browser = Browser(server)
    browser.sign_in()
    assert GONE in browser.page('/').links
