"""Admins in the browser: signing in, forged forms, signing out."""

import pytest

from fakes import Time
from gateway_server import (
    ADMIN_KEY, EMAIL, POOL_KEY, Browser, GatewayServer, Page,
    api_in_process, config, sendgrid_at)

SEND = '/example.com/send'


@pytest.fixture(scope='module')
def server(tmp_path_factory, silent):
    configured = config({'capture': {}})
    configured['pools'].append({
        'domain': 'held.example', 'api_key': 'pool-key-of-held',
        'on_uncertain': 'hold',
        'services': {'sendgrid': sendgrid_at(silent.url)}})
    with GatewayServer(
            tmp_path_factory.mktemp('sessions'), configured) as running:
        yield running


def test_an_admin_signs_in_and_sees_what_admins_see(browser):
    assert 'available' not in browser.page('/example.com/').text

    reply = browser.sign_in()

    assert (reply.status, reply.headers['Location']) == (303, '/')
    assert 'HttpOnly' in browser.set_cookie
    assert 'SameSite=Strict' in browser.set_cookie
    assert 'Secure' not in browser.set_cookie   # plain http on loopback
    assert ADMIN_KEY not in browser.set_cookie
    assert 'available' in browser.page('/example.com/').text


def test_a_session_is_new_when_somebody_signs_in(browser):
    token = browser.page('/login').form('/login')[2]['csrf_token']
    browser.sign_in()

    assert browser.page('/').form('/logout')[2]['csrf_token'] != token


@pytest.mark.parametrize('public_url, forwarded', [
    ('https://mail.example.com', {}),
    ('http://127.0.0.1', {'X-Forwarded-Proto': 'https'})])
def test_behind_tls_the_cookie_is_secure(tmp_path, public_url, forwarded):
    with GatewayServer(tmp_path, config(),
                       STAMPMAN_PUBLIC_URL=public_url) as server:
        reply = server.get('/login', Accept='text/html', **forwarded)

    assert 'Secure' in reply.headers['Set-Cookie']


@pytest.mark.parametrize('key', ['', 'wrong', POOL_KEY, 'schlüssel'])
def test_only_an_admins_key_signs_in(browser, key):
    reply = browser.sign_in(key)

    assert reply.status == 401
    assert '/login' in [form[1] for form in Page(reply.text).forms]
    assert 'available' not in browser.page('/example.com/').text


@pytest.mark.parametrize('path, lands_at', [
    ('/example.com/', '/example.com/'), ('//evil.example', '/'),
    ('/\\evil.example', '/'), ('https://evil.example', '/'),
    ('https:evil.example', '/'), ('', '/'), ('/a\r\nSet-Cookie: x=1', '/'),
    ('javascript:alert(1)', '/'), ('/a\tb', '/')])
def test_signing_in_leads_nowhere_else(browser, path, lands_at):
    form = browser.page('/login').form('/login')

    reply = browser.submit(form, admin_api_key=ADMIN_KEY, next=path)

    assert (reply.status, reply.headers['Location']) == (303, lands_at)


def test_signing_out_ends_the_session(admin):
    reply = admin.submit(admin.page('/').form('/logout'))

    assert reply.status == 303
    assert 'available' not in admin.page('/example.com/').text


@pytest.mark.parametrize('path, fields', [
    (SEND, {'from_email': 'shop@example.com', 'recipients': 'a@example.org',
            'content': 'x'}),
    ('/example.com/messages/{id}/retry', {}),
    ('/example.com/messages/{id}/cancel', {}),
    ('/example.com/messages/{id}/resolve', {'verdict': 'accepted'}),
    ('/example.com/messages/{id}/erase', {}),
    ('/login', {'admin_api_key': ADMIN_KEY}), ('/logout', {})])
@pytest.mark.parametrize('token', [None, '', 'guessed', 'tökén'])
def test_a_forged_form_does_nothing(server, admin, path, fields, token):
    made = server.send().json['id']
    if token is not None:
        fields = {**fields, 'csrf_token': token}

    reply = admin.submit(('POST', path.format(id=made), fields))

    assert reply.status == 403
    listed = server.get('/example.com/messages/?limit=1', POOL_KEY).json
    assert listed['messages'][0]['id'] == made
    assert 'available' in admin.page('/example.com/').text


def test_a_session_alone_posts_no_json(server, admin):
    for path in (SEND, '/'):
        reply = server.request('POST', path, EMAIL, {'Cookie': admin.cookie})
        assert reply.status == 401


def test_an_admin_sends_by_the_form_without_a_key(admin):
    form = admin.page(SEND).form(SEND)
    assert 'pool_api_key' not in form[2]

    reply = admin.submit(form, from_email='shop@example.com',
                         recipients='a@example.org', content='hi')

    assert reply.status == 200
    assert 'accepted' in Page(reply.text).text


def test_an_admin_settles_a_held_message_by_its_buttons(server, admin):
    held = server.request('POST', '/held.example/send', {
        **EMAIL, 'from_email': 'shop@held.example'},
        key='pool-key-of-held').json
    path = f'/held.example/messages/{held["id"]}'
    page = admin.page(path)
    buttons = {form[2].get('verdict'): form for form in page.forms
               if form[1] == f'{path}/resolve'}
    assert set(buttons) == {'accepted', 'not_sent', 'send_again'}

    reply = admin.submit(buttons['not_sent'])

    assert reply.status == 200
    page = Page(reply.text)
    assert 'failed' in page.text
    again = page.form(f'{path}/retry')
    assert admin.submit(again).status == 200
    assert admin.submit(again).status == 409


@pytest.mark.parametrize('cookie', [
    'stampman=', 'stampman=x', 'stampman=a.b.c', 'stampman=' + 'x' * 4000,
    'stampman=eyJhZG1pbiI6Im9wcyJ9.aaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaa'])
def test_a_made_up_session_is_none(server, cookie):
    assert server.get('/example.com/messages/', Cookie=cookie).status == 401


def test_a_session_ends_with_the_key_it_was_made_with(tmp_path):
    with GatewayServer(tmp_path, config()) as server:
        before = Browser(server)
        before.sign_in()
        assert before.get('/example.com/messages/').status == 200
    changed = config()
    changed['admins'][0]['api_key'] = 'another-key-of-the-operator'
    with GatewayServer(tmp_path, changed) as server:
        after = Browser(server)
        after.cookie = before.cookie
        assert after.get('/example.com/messages/').status == 401


def test_guessing_keys_is_throttled(tmp_path):
    with GatewayServer(tmp_path, config()) as server:
        guesser = Browser(server)
        statuses = [guesser.sign_in(f'guess {number}').status
                    for number in range(10)]
        assert statuses == [401] * 10

        reply = guesser.sign_in('guess 11')

        assert reply.status == 429
        assert 0 < int(reply.headers['Retry-After']) <= 300
        # Behind a proxy everybody has one address: who holds the key enters.
        assert guesser.sign_in(ADMIN_KEY).status == 303


def test_without_a_secret_nobody_signs_in_and_the_page_says_why(tmp_path):
    with GatewayServer(tmp_path, config(), STAMPMAN_SECRET_KEY='') as server:
        browser = Browser(server)
        for reply in (browser.get('/login'), browser.submit(
                ('POST', '/login', {'admin_api_key': ADMIN_KEY}))):
            assert reply.status == 404
            assert 'STAMPMAN_SECRET_KEY' in reply.text
        for path in ('/', SEND, '/nowhere'):
            assert '/login' not in browser.page(path).links


@pytest.mark.parametrize('pauses, status', [
    ([1700] * 5, 200), ([1801], 401), ([1700, 1801], 401),
    ([1700] * 25, 200), ([1700] * 26, 401)])
def test_a_session_ends_when_it_is_idle_or_old(tmp_path, pauses, status):
    time = Time()
    api = api_in_process(tmp_path, time.clock)
    client = api.test_client()
    page = Page(client.get('/login', headers={'Accept': 'text/html'}).text)
    client.post('/login', data={**page.form('/login')[2],
                                'admin_api_key': ADMIN_KEY})
    for seconds in pauses:
        time.pass_by(seconds)
        last = client.get('/example.com/messages/').status_code

    assert last == status
    api.gateway.store.close()
