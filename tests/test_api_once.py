"""Idempotency-Key: however often it comes, it is one message."""

import threading
from collections import Counter
from urllib.parse import urlencode

import pytest

from gateway_server import (
    ADMIN_KEY, EMAIL, OTHER_KEY, POOL_KEY, GatewayServer, Page,
    config, sendgrid_at)
from servers import Recorder

TAKEN = (202, b'', {'X-Message-Id': 'theirs-1'})
TWINS = 20
KEY = 'Idempotency-Key'
SEND, MESSAGES = '/example.com/send', '/example.com/messages/'


@pytest.fixture(scope='module')
def provider():
    with Recorder() as recorder:
        yield recorder


@pytest.fixture
def calls(provider):
    """How many calls the provider got in this test; it takes them."""
    provider.answer(*TAKEN)
    before = len(provider.requests)
    return lambda: len(provider.requests) - before


@pytest.fixture(scope='module')
def server(tmp_path_factory, provider):
    configured = config({'sendgrid': sendgrid_at(provider.url)})
    configured['pools'][0]['allowed_senders'] = ['*']
    # So many threads that each twin could be the one that delivers.
    with GatewayServer(tmp_path_factory.mktemp('once'), configured,
                       threads=TWINS + 4) as running:
        yield running


def again(reply):
    return reply.headers.get('Idempotent-Replayed')


def test_twins_are_one_message_and_one_call(server, provider, calls):
    provider.hold()
    replies, gate = [], threading.Barrier(TWINS)

    def twin():
        gate.wait()
        replies.append(server.send(**{KEY: 'twins'}))

    threads = [threading.Thread(target=twin) for _ in range(TWINS)]
    for thread in threads:
        thread.start()
    # All but the one that delivers are answered while it still does.
    while sum(thread.is_alive() for thread in threads) > 1:
        next(one for one in threads if one.is_alive()).join(0.05)
    provider.release()
    for thread in threads:
        thread.join()

    assert Counter((one.status, one.json['status'], again(one))
                   for one in replies) == {
        (200, 'accepted', None): 1,
        (202, 'sending', 'true'): TWINS - 1}
    assert len({one.json['id'] for one in replies}) == 1
    assert calls() == 1


def test_a_replay_is_the_message_as_it_is_now(server, provider, calls):
    provider.answer(503)
    first = server.send(**{KEY: 'now'})
    assert (first.status, first.json['status']) == (202, 'deferred')
    assert again(first) is None
    path = f'{MESSAGES}{first.json["id"]}'
    server.request('POST', f'{path}/cancel', key=POOL_KEY)

    second = server.send(**{KEY: 'now'})

    assert (second.status, second.json['code']) == (422, 'cancelled')
    assert second.headers['Content-Type'] == 'application/problem+json'
    assert second.headers['Location'] == first.headers['Location']
    assert second.json['id'] == first.json['id'] and again(second) == 'true'
    assert calls() == 1


@pytest.mark.parametrize('status, code', [(413, 'failed')])
def test_what_failed_is_not_sent_by_its_key(
        server, provider, calls, status, code):
    provider.answer(status)
    first, second = (server.send(**{KEY: code}) for _ in range(2))
    for reply in (first, second):
        assert (reply.status, reply.json['code']) == (422, code)
        assert reply.headers['Location']
    assert first.json['id'] == second.json['id']
    assert (again(first), again(second)) == (None, 'true')
    assert calls() == 1


WAYS = {
    'in the header': (EMAIL, POOL_KEY),
    'in the body': ({**EMAIL, 'pool_api_key': POOL_KEY}, None),
    'in both': ({**EMAIL, 'pool_api_key': POOL_KEY}, POOL_KEY),
    'in other words': ({
        'from': {'email': 'shop@example.com'}, 'subject': 'Your order',
        'to': {'email': 'ada@example.org', 'name': 'Ada'},
        'text': 'On its way.'}, POOL_KEY)}


def test_neither_aliases_nor_the_api_key_make_it_another(server, calls):
    replies = [server.send(email, key, **{KEY: 'ways'})
               for email, key in WAYS.values()]
    assert {reply.status for reply in replies} == {200}
    assert len({reply.json['id'] for reply in replies}) == 1
    assert [again(reply) for reply in replies] == [None, *['true'] * 3]
    assert calls() == 1


def test_another_body_under_the_key_is_told_nothing(server, calls):
    first = server.send({**EMAIL, 'subject': 'canary'}, **{KEY: 'other'})
    reply = server.send(**{KEY: 'other'})
    assert (reply.status, reply.json['code']) == (
        422, 'idempotency_key_reused')
    assert again(reply) is None and 'Location' not in reply.headers
    for secret in ('canary', first.json['id'], 'id"'):
        assert secret not in reply.text.replace('request_id"', '')
    assert calls() == 1


def test_a_key_belongs_to_its_pool(server, calls):
    path = '/bücher.example/send'.replace('ü', '%C3%BC')
    email = {**EMAIL, 'from_email': 'shop@bücher.example'}
    first = server.send(email, **{KEY: 'pool'})
    second = server.request('POST', path, email, {KEY: 'pool'}, OTHER_KEY)
    assert (first.status, second.status) == (200, 200)
    assert first.json['id'] != second.json['id'] and again(second) is None


def test_what_was_refused_is_not_remembered(server, calls):
    wrong = server.send({**EMAIL, 'subject': 7}, **{KEY: 'mended'})
    assert (wrong.status, wrong.fields) == (422, ['subject'])
    right = server.send(**{KEY: 'mended'})
    assert right.status == 200 and again(right) is None and calls() == 1


@pytest.mark.parametrize('key', ['x', ' ~', '"quoted", a=b', 'x' * 255])
def test_any_printable_ascii_is_a_key(server, calls, key):
    replies = [server.send(**{KEY: key}) for _ in range(2)]
    assert [again(reply) for reply in replies] == [None, 'true']


def test_without_a_key_the_same_twice_is_two(server, calls):
    assert server.send().json['id'] != server.send().json['id']
    assert calls() == 2


# -- the form, which cannot send headers --------------------------------------

FILLED = {'from_email': 'shop@example.com', 'recipients': 'a@example.org',
          'subject': 'Hello', 'content': 'hi'}


def test_a_form_that_is_sent_twice_sends_once(admin, calls):
    form = admin.page(SEND).form(SEND)
    replies = [admin.submit(form, **FILLED) for _ in range(3)]
    assert [reply.status for reply in replies] == [200] * 3
    assert len({reply.headers['Location'] for reply in replies}) == 1
    assert [again(reply) for reply in replies] == [None, 'true', 'true']
    assert calls() == 1


def test_every_page_of_the_form_has_a_key_of_its_own(browser, admin):
    keys = {who.page(SEND).form(SEND)[2]['idempotency_key']
            for who in (browser, admin) for _ in range(3)}
    assert len(keys) == 6 and min(map(len, keys)) >= 20


def form_in(reply):
    return Page(reply.text).form(SEND)


def test_a_form_that_was_wrong_keeps_its_key_for_the_next_try(admin, calls):
    form = admin.page(SEND).form(SEND)
    wrong = admin.submit(form, **{**FILLED, 'recipients': 'nobody'})
    mended = form_in(wrong)
    assert wrong.status == 422
    assert mended[2]['idempotency_key'] == form[2]['idempotency_key']
    assert admin.submit(mended, **FILLED).status == 200 and calls() == 1


def test_a_form_that_comes_back_changed_asks_once_more(admin, calls):
    """Somebody went back in the browser and wrote another email."""
    form = admin.page(SEND).form(SEND)
    admin.submit(form, **FILLED)
    changed = admin.submit(form, **{**FILLED, 'content': 'more'})
    asked = form_in(changed)
    assert changed.status == 422 and calls() == 1
    assert 'sent before, with other content' in changed.text
    assert asked[2]['content'] == 'more'
    assert asked[2]['idempotency_key'] not in (
        '', form[2]['idempotency_key'])
    assert admin.submit(asked).status == 200 and calls() == 2


@pytest.mark.parametrize('header', [{}, {KEY: 'of-the-header'}])
@pytest.mark.parametrize('field', ['', 'of-the-field', 'x' * 256, 'é'])
def test_a_form_is_held_to_the_same_rules(server, calls, header, field):
    body = urlencode({**FILLED, 'pool_api_key': POOL_KEY,
                      'idempotency_key': field}).encode()
    reply = server.request('POST', SEND, body, {
        'Content-Type': 'application/x-www-form-urlencoded', **header})
    good = not field or field == 'of-the-field' and not header
    assert reply.status == (200 if good else 422)
    assert good or reply.fields == ['idempotency_key']


def test_a_key_is_not_shown_with_the_message(server, calls):
    sent = server.send(**{KEY: 'canary-of-a-key'}).json
    shown = server.get(f'{MESSAGES}{sent["id"]}', ADMIN_KEY).text
    assert 'canary-of-a-key' not in shown
    assert 'canary-of-a-key' not in server.log
