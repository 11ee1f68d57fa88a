"""DATABASE_URL of a PostgreSQL: what it may say, and who gets to see it."""

import pytest

from stampman.helpers import environment
from stampman.helpers.exceptions import ConfigError, StoreUnavailable
from stampman.store import open_store
from stampman.store._postgres_url import parameters

from backends import add
from postgres import PASSWORD

HOST = '//someone:secret-word@127.0.0.1:5433'


@pytest.mark.parametrize('scheme', [
    'postgres', 'postgresql', 'postgresql+psycopg'])
def test_every_spelling_of_the_scheme_is_the_same(scheme):
    assert parameters(f'{scheme}:{HOST}/mail') == {
        'user': 'someone', 'password': 'secret-word', 'host': '127.0.0.1',
        'port': '5433', 'dbname': 'mail'}


@pytest.mark.parametrize('rest, found', [
    (f'{HOST}/mail?sslmode=require', {'sslmode': 'require'}),
    ('//u:a%2Fb%40c%2521@h/mail', {'password': 'a/b@c%21'}),
    ('///mail?host=/run/postgresql', {'host': '/run/postgresql'}),
    ('//u:p@one:1,two:2/mail?target_session_attrs=read-write',
     {'host': 'one,two', 'port': '1,2'})])
def test_what_a_url_says(rest, found):
    assert found.items() <= parameters(f'postgres:{rest}').items()


@pytest.mark.parametrize('rest, told', [
    (f'{HOST}/', 'must name a database'),
    (f'{HOST}', 'must name a database'),
    ('//u:secret-word@h:port/mail?%zz', 'cannot be read'),
    (f'{HOST}/mail?secret-word=1', 'cannot be read'),
    (f'{HOST}/mail?sslmode', 'cannot be read'),
    (f'{HOST}/mail?options=-c%20synchronous_commit%3Doff', 'cannot set op'),
    (f'{HOST}/mail?application_name=x&keepalives=0',
     'cannot set application_name, keepalives')])
def test_a_url_that_cannot_be_used_is_refused_without_showing_it(rest, told):
    with pytest.raises(ConfigError, match='DATABASE_URL') as refused:
        open_store(f'postgres:{rest}')
    assert told in str(refused.value)
    assert 'secret-word' not in str(refused.value)


@pytest.mark.parametrize('option, told', [
    ('sslmode=secret-word', 'correct its sslmode'),
    ('load_balance_hosts=x', 'correct its load_balance_hosts'),
    ('port=99999', 'correct its port'),
    ('service=nowhere', 'correct its service'),
    ('target_session_attrs=standby', 'none of the kind'),
    ('sslmode=verify-full', 'TLS could not be set up')])
def test_what_the_server_is_not_asked_for_is_told(
        postgres_url, option, told):
    store = open_store(f'{postgres_url}?{option}')
    with pytest.raises(StoreUnavailable, match=told) as refused:
        store.waiting()
    assert 'secret-word' not in str(refused.value)
    store.close()


# -- a dyno ------------------------------------------------------------------

@pytest.mark.parametrize('given, used', [
    ('/mail', '/mail?sslmode=require'),
    ('/mail?target_session_attrs=any',
     '/mail?target_session_attrs=any&sslmode=require'),
    ('/mail?sslmode=verify-full', '/mail?sslmode=verify-full'),
    ('/mail?sslmode=disable', '/mail?sslmode=disable')])
@pytest.mark.parametrize('scheme', ['postgres', 'postgresql'])
def test_a_dyno_asks_for_tls(tmp_path, scheme, given, used):
    environ = {'STAMPMAN_CONFIG': str(tmp_path / 'config.json'),
               'DATABASE_URL': f'{scheme}:{HOST}{given}'}
    assert environment.read(
        environ).database_url == environ['DATABASE_URL']
    assert environment.read({
        **environ, 'DYNO': 'web.1'}).database_url == f'{scheme}:{HOST}{used}'


@pytest.mark.parametrize('password', ['who?me', '?', 'a?sslmode=disable&b'])
@pytest.mark.parametrize('given, used', [
    ('', '?sslmode=require'), ('?', '?sslmode=require'),
    ('?host=other', '?host=other&sslmode=require'),
    ('?sslmode=verify-full', '?sslmode=verify-full')])
def test_a_question_mark_of_the_password_begins_no_options(
        tmp_path, password, given, used):
    start = f'postgres://someone:{password}@db:5433/mail'
    found = environment.read({
        'STAMPMAN_CONFIG': str(tmp_path / 'config.json'), 'DYNO': 'web.1',
        'DATABASE_URL': start + given}).database_url
    said = parameters(found)
    assert parameters(start + used) == said
    assert (said['password'], said['host'].split(',')[-1]) == (
        password, 'other' if 'host=' in given else 'db')
    assert said['sslmode'] in ('require', 'verify-full')


def test_a_server_without_tls_is_not_spoken_to_without_it(postgres_url):
    store = open_store(f'{postgres_url}?sslmode=require')
    with pytest.raises(Exception, match='TLS could not be set up'):
        store.waiting()
    store.close()


# -- the password ------------------------------------------------------------

@pytest.mark.parametrize('url, found', [
    ('postgres://u:plain@h/d', {'plain'}),
    ('postgres://u:a%2Fb@h/d', {'a%2Fb', 'a/b'}),
    ('postgres://u:at@sign@h/d', {'at@sign'}),
    ('postgres://u:[half@h/d', {'[half'}),
    ('postgres://u:who?me@h/d?sslmode=require', {'who?me'}),
    ('postgres://u:plain@h/d?user=a@b', {'plain'}),
    ('postgres://u@h/d?password=in%20query&sslpassword=too',
     {'in%20query', 'in query', 'too'}),
    ('http://proxy:3128', set()), ('sqlite:////a/b.db', set()),
    ('http://user:@proxy:3128', {''})])
def test_the_passwords_of_a_url_are_found(url, found):
    assert set(environment.passwords(url)) == found


def test_a_wrong_password_is_told_and_not_shown(
        postgres_server, postgres_migrated, caplog):
    url = postgres_server.url(postgres_migrated, 'wrong-secret')
    store = open_store(url)
    for use in (store.waiting, lambda: add(store), store.migrate):
        with pytest.raises(Exception, match='refuses the user') as refused:
            use()
        told = ' '.join(map(repr, chained(refused.value)))
        assert 'wrong-secret' not in told + caplog.text
    assert PASSWORD not in caplog.text


def chained(error):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
