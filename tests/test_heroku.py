"""Heroku: the Procfile's commands against a PostgreSQL as it is there."""

import json
import socket
import threading

import pytest
import postgres
from dynos import ROUTER, Dyno
from gateway_server import (
    ADMIN_KEY, EMAIL, POOL_KEY, SECRET_KEY, Browser, config, sendgrid_at)
from postgres_tls import TlsFront
from servers import Recorder

PLAN = 20       # connections that the smallest plan allows


@pytest.fixture(scope='module')
def heroku_postgres(postgres_server):
    """A server that wants TLS, and allows so few connections."""
    limit = f'ALTER ROLE {postgres.ROLE} CONNECTION LIMIT'
    with TlsFront(postgres_server.port) as front:
        postgres_server.run(f'{limit} {PLAN}')
        yield postgres_server, front
        postgres_server.run(f'{limit} -1')
        assert front.encrypted and not front.refused


@pytest.fixture
def app(tmp_path, heroku_postgres):
    """Make the dynos of one app: its provider, its database, its config."""
    with Recorder() as provider:
        provider.answer(202, b'', {'X-Message-Id': 'theirs'})
        yield App(tmp_path, *heroku_postgres, provider)


class App:
    """A config that was pushed, and config vars."""

    def __init__(self, folder, server, front, provider):
        self.folder, self.provider = folder, provider
        url = server.url(server.new_database())
        self.vars = {'DATABASE_URL': url.replace(
                         f':{server.port}/', f':{front.port}/'),
                     'SENDGRID_API_KEY': 'SG.key-of-the-provider'}
        pushed = config({'sendgrid': {
            **sendgrid_at(provider.url), 'timeout': 10,
            'api_key': '${SENDGRID_API_KEY}'}})
        pushed['pools'] = pushed['pools'][:1]
        (folder / 'config.json').write_text(json.dumps(pushed))

    def dyno(self, name, **more):
        return Dyno(self.folder, name, **{**self.vars, **more})

    def release(self):
        with self.dyno('release.1234') as release:
            assert release.ends() == 0, release.log
            return release.log


class Routed:
    """A dyno as a browser reaches it."""

    def __init__(self, dyno):
        self.request = dyno.ask


pytestmark = pytest.mark.long


def test_sqlite_is_refused_where_the_disk_is_thrown_away(app):
    del app.vars['DATABASE_URL']
    for name in ('release.1', 'web.1', 'worker.1'):
        with app.dyno(name) as dyno:
            assert dyno.ends() == 1
        assert 'addons:create heroku-postgresql' in dyno.log
        assert 'Traceback' not in dyno.log


def test_a_config_that_cannot_send_ends_the_release(app):
    (app.folder / 'config.json').write_text(json.dumps(config()))
    with app.dyno('release.1') as release:
        assert release.ends() == 1
    assert 'capture' in release.log


def test_a_release_migrates_and_a_web_dyno_does_all(app):
    assert 'is migrated' in app.release()
    assert 'is up to date' in app.release()
    with app.dyno('web.1') as web:
        web.until_it_serves()
        assert web.ask('GET', '/readyz').json['checks']['worker'] == 'ok'
        sent = web.ask('POST', '/example.com/send', EMAIL, key=POOL_KEY)
        assert sent.json['status'] == 'accepted'
        assert sent.headers['X-Request-Id'] == ROUTER['X-Request-Id']
        later = web.ask('POST', '/example.com/send', EMAIL,
                        {'Prefer': 'respond-async'}, POOL_KEY)
        assert later.status == 202
        app.provider.wait_for(2)
        assert web.ask('GET', '/', headers={
            'SCRIPT_NAME': '/a', 'PATH_INFO': '/healthz'}).json['pools']
        # The router comes from outside: not from this machine.
        socket.create_connection(('127.0.0.2', web.port)).close()
        assert web.shut_down() == 0
    assert 'exited with code' not in web.log
    for secret in (SECRET_KEY, POOL_KEY, ADMIN_KEY, *app.vars.values(),
                   postgres.PASSWORD):
        assert secret not in web.log
    assert all(json.loads(line) for line in web.log.splitlines())


def test_the_cookie_of_an_admin_is_secure_behind_the_router(app):
    app.release()
    with app.dyno('web.1') as web:
        web.until_it_serves()
        browser = Browser(Routed(web))
        assert browser.sign_in().status == 303
        assert '; Secure' in browser.set_cookie


def test_a_deploy_hands_over_within_the_connections_of_a_small_plan(app):
    """Heroku starts the new dynos as it tells the old ones to stop."""
    app.release()
    app.provider.hold()
    replies = []

    def send_to(dyno):
        replies.append(dyno.ask(
            'POST', '/example.com/send', EMAIL, key=POOL_KEY))

    with app.dyno('web.1') as old, app.dyno('worker.1') as worker:
        old.until_it_serves()
        worker.until_it_says('has started')
        sending = [threading.Thread(target=send_to, args=(old,))
                   for _ in range(16)]
        for thread in sending:
            thread.start()
        app.provider.wait_for(16)
        app.release()
        with app.dyno('web.2') as new:
            codes = []
            ending = [threading.Thread(
                target=lambda dyno=dyno: codes.append(dyno.shut_down()))
                for dyno in (old, worker)]
            for thread in ending:
                thread.start()
            new.until_it_serves()
            app.provider.release()
            for thread in sending + ending:
                thread.join()
            assert [reply.json['status'] for reply in replies] \
                == 16 * ['accepted']
            assert codes == [0, 0]
            send_to(new)
            assert replies[-1].json['status'] == 'accepted'
            assert new.shut_down() == 0
    assert len(app.provider.requests) == 17
    for dyno in (old, new, worker):
        assert 'too many' not in dyno.log
        assert 'exited with code' not in dyno.log


def test_a_worker_dyno_delivers_where_the_web_dyno_does_not(app):
    app.release()
    app.vars['STAMPMAN_WORKER'] = 'off'
    with app.dyno('web.1') as web:
        web.until_it_serves()
        assert 'no worker' in web.ask(
            'GET', '/readyz').json['checks']['worker']
        stored = web.ask('POST', '/example.com/send', EMAIL,
                         {'Prefer': 'respond-async'}, POOL_KEY)
        assert stored.status == 202
        with app.dyno('worker.1') as worker:
            app.provider.wait_for(1)
            web.until(lambda: web.ask(
                'GET', f'/example.com/messages/{stored.json["id"]}',
                key=POOL_KEY).json['status'] == 'accepted')
            assert worker.shut_down() == 0
        assert web.ask('GET', '/readyz').json['checks']['worker'] == 'ok'
        assert web.shut_down() == 0
