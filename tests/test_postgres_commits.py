"""A COMMIT whose answer is lost: what is answered to a client is true."""

import json

import pytest

from stampman.api import create_api
from stampman.gateway import Gateway, load_config
from stampman.helpers import environment as environments
from stampman.helpers.delivery import State, Timing
from stampman.helpers.exceptions import (
    CommitUnknown, KeyReused, StoreUnavailable, TooManyRequests)
from stampman.intake import Intake, idempotency_key
from stampman.opening import surroundings
from stampman.store.base import Entry
from stampman.store.sql import SqlStore

from backends import NOW, POOL, add_claimed, attempt, new_id
from clocks import machine
from gateway_server import EMAIL, POOL_KEY, config, sendgrid_at
from postgres_proxy import (
    PATIENCE, Late, Proxy, answer_is_lost, lost_on_the_way, nothing_comes_back)
from postgres_stores import fresh, name, store
from servers import Given, Recorder
from test_intake import mail, pool

__all__ = ['fresh', 'machine', 'name', 'store']     # the fixtures
STRIKES = [lost_on_the_way, answer_is_lost, nothing_comes_back]
KEY = idempotency_key('k', mail())


@pytest.fixture
def proxy(postgres_server, name):
    with Proxy(postgres_server.url(name)) as between:
        yield between


@pytest.fixture
def far(proxy):
    """A store behind the proxy."""
    opened = SqlStore.at(proxy.url, silence=0.3)
    opened.waiting()
    yield opened
    opened.close()


@pytest.fixture
def intake(far, machine):
    return Intake(far, new_id, 'me', Entry, machine.clock, machine.pass_by)


def everything(store):
    page, _ = store.page(POOL)
    return [store.message(POOL, one.id) for one in page]


# -- taking in ---------------------------------------------------------------

@pytest.mark.parametrize('strike', STRIKES)
@pytest.mark.parametrize('key', [None, KEY])
@pytest.mark.parametrize('rate', [None, 1])
def test_it_is_repeated_until_it_is_known_and_stored_once(
        intake, proxy, store, strike, key, rate):
    """Its own first try has emptied the pool's bucket, perhaps."""
    proxy.strike = strike
    taken = intake.submit(pool(rate=rate), mail(), NOW, key)
    assert not taken.replayed and proxy.strikes == 1
    assert everything(store) == [taken.message]
    if key:
        assert store.known(POOL, key, NOW) == {0: taken.message.id}
    if rate:
        with pytest.raises(TooManyRequests):
            intake.submit(pool(rate=rate), mail(), NOW)


@pytest.mark.parametrize('strike', STRIKES)
def test_so_is_a_batch(intake, proxy, store, strike):
    proxy.strike = strike
    taken = intake.submit_all(pool(), {0: mail(), 3: mail()}, NOW)
    assert {one.message.id for one in taken.values()} == {
        one.id for one in everything(store)}
    assert len(everything(store)) == 2


@pytest.mark.parametrize('strike', STRIKES)
def test_so_is_what_begins_with_its_first_attempt(
        intake, proxy, store, strike):
    proxy.strike = strike
    acceptance, first = intake.begin(pool(), mail(), NOW), attempt()
    acceptance.store(first, NOW + 60)
    [stored] = everything(store)
    assert acceptance.is_done and proxy.strikes == 1
    assert (stored.state, stored.attempts) == (State.sending, (first,))


@pytest.mark.parametrize('strike', STRIKES)
def test_a_twin_that_is_faster_than_the_repeat_is_the_message(
        intake, proxy, store, strike):
    """It comes while the first one's fate is not known."""
    twins = []
    twin = intake._replace(store=store)
    first = intake._replace(pause=lambda seconds: twins.append(
        twin.submit(pool(), mail(), NOW, KEY)))
    proxy.strike = strike
    taken = first.submit(pool(), mail(), NOW, KEY)
    assert [one.message for one in twins] == [taken.message]
    assert everything(store) == [taken.message]
    assert taken.replayed is (strike is lost_on_the_way)


def test_a_key_that_another_body_took_meanwhile_is_told(
        intake, proxy, store):
    other = idempotency_key('k', mail(subject='Other'))
    twin = intake._replace(store=store)
    first = intake._replace(pause=lambda seconds: twin.submit(
        pool(), mail(subject='Other'), NOW, other))
    proxy.strike = lost_on_the_way
    with pytest.raises(KeyReused):
        first.submit(pool(), mail(), NOW, KEY)
    assert len(everything(store)) == 1


@pytest.mark.parametrize('strike', STRIKES)
@pytest.mark.parametrize('key, advice', [
    (None, '/example.com/messages/0'), (KEY, 'same Idempotency-Key')])
def test_what_stays_unknown_is_told_and_no_503(
        intake, proxy, store, machine, strike, key, advice):
    """The server stays away for as long as the request has time."""
    def and_away(*about):
        proxy.shut()
        strike(*about)

    proxy.strike, began = and_away, machine.steady
    with pytest.raises(CommitUnknown, match=advice) as unknown:
        intake.submit(pool(), mail(), NOW, key, began + 10.0)
    assert unknown.value.status == 504
    assert bool(unknown.value.retry_after) is bool(key)
    assert 3.5 < machine.steady - began < 10.0
    assert len(everything(store)) == (strike is not lost_on_the_way)


@pytest.mark.long
@pytest.mark.parametrize('key, rate', [(KEY, None), (None, 1), (KEY, 1)])
def test_a_commit_that_comes_late_is_waited_for(
        intake, proxy, store, key, rate):
    """Until then its rows are locked, and nobody can know."""
    proxy.strike = late = Late()
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 2:
            late.released.set()

    taken = intake._replace(pause=pause).submit(
        pool(rate=rate), mail(), NOW, key)
    assert len(pauses) >= 2 and everything(store) == [taken.message]


def test_what_comes_late_and_alone_finds_the_repeat(intake, proxy, store):
    proxy.strike = late = Late()
    taken = intake.submit(pool(), mail(), NOW)
    late.released.set()
    assert late.passed.wait(PATIENCE)
    assert everything(store) == [taken.message]


# -- what a commit's answer says ---------------------------------------------

def test_a_commit_that_is_refused_is_undone_and_no_riddle(store):
    """As by a constraint that is looked at in the end."""
    def work(connection):
        connection.exec_driver_sql(
            'CREATE TABLE later (one int UNIQUE DEFERRABLE '
            'INITIALLY DEFERRED)')
        connection.exec_driver_sql('INSERT INTO later VALUES (1), (1)')

    with pytest.raises(Exception, match='later_one_key') as refused:
        store._database.write(work)
    assert not isinstance(refused.value, StoreUnavailable)
    assert store.waiting() == {}


def end_session(connection, fresh):
    """Have the server end it, and wait until it has."""
    pid = connection.exec_driver_sql('SELECT pg_backend_pid()').scalar()
    fresh()._database.write(lambda other: other.exec_driver_sql(
        f'SELECT pg_terminate_backend({pid}, 5000)'))


def test_a_server_that_ends_the_session_leaves_it_unknown(store, fresh):
    """The client cannot know how far that came."""
    with pytest.raises(CommitUnknown, match='not answered.*stopping'):
        store._database.write(
            lambda connection: end_session(connection, fresh))
    assert store.waiting() == {}


def test_what_breaks_before_the_commit_is_surely_undone(store, fresh):
    def work(connection):
        end_session(connection, fresh)
        connection.exec_driver_sql('SELECT 1')

    with pytest.raises(StoreUnavailable, match='stopping') as undone:
        store._database.write(work)
    assert not isinstance(undone.value, CommitUnknown)


def test_a_read_that_breaks_at_its_end_leaves_nothing_unknown(store, fresh):
    with pytest.raises(StoreUnavailable) as broken:
        with store._database.read() as connection:
            end_session(connection, fresh)
    assert not isinstance(broken.value, CommitUnknown)


@pytest.mark.parametrize('strike', STRIKES)
def test_an_attempt_has_begun_only_if_that_is_known(far, proxy, strike):
    """Else nobody is called: the message is left to a rescue."""
    there, claim = add_claimed(far)
    proxy.strike, begun = strike, attempt()
    with pytest.raises(CommitUnknown):
        far.begin(claim, begun, NOW + 60)
    [(_, found)] = far.claim_due('other', NOW + 99, NOW + 130)
    assert [one.is_uncertain for one in found.attempts] == [True] * (
        strike is not lost_on_the_way)


# -- the whole way -----------------------------------------------------------

@pytest.fixture
def provider():
    with Recorder() as recorder:
        recorder.answer(202, headers={'X-Message-Id': 'theirs'})
        yield recorder


@pytest.fixture
def client(serve):
    return serve()


@pytest.fixture
def serve(proxy, tmp_path, provider):
    """A function that makes a client of the API, whose requests may take so
    many seconds."""
    path = tmp_path / 'config.json'
    path.write_text(json.dumps(config({
        'sendgrid': sendgrid_at(provider.url)})))
    environment = environments.read({
        'STAMPMAN_CONFIG': str(path), 'DATABASE_URL': proxy.url})
    store = SqlStore.at(proxy.url, silence=0.3)
    store.waiting()

    def served(seconds=25.0):
        world = surroundings()._replace(timing=Timing(request=seconds))
        return create_api(Gateway(
            load_config(environment), environment, world, store)
        ).test_client()

    yield served
    store.close()


def post(client, path='send', body=EMAIL, **headers):
    return client.post(f'/example.com/{path}', json=body, headers={
        'Authorization': f'Bearer {POOL_KEY}', **headers})


@pytest.mark.parametrize('strike', STRIKES)
def test_a_client_is_answered_and_it_is_sent_once(
        client, proxy, store, provider, strike):
    proxy.strike = strike
    answer = post(client)
    assert (answer.status_code, answer.json['status']) == (200, 'accepted')
    [stored] = everything(store)
    assert (stored.id, stored.state) == (answer.json['id'], State.accepted)
    assert len(stored.attempts) == 1 and not stored.possible_duplicate
    assert len(provider.requests) == 1


@pytest.mark.parametrize('strike', STRIKES)
@pytest.mark.parametrize('path, body, status', [
    ('send', EMAIL, 202), ('send/batch', {'emails': [EMAIL]}, 200)])
def test_so_is_who_does_not_wait(
        client, proxy, store, strike, path, body, status):
    proxy.strike = strike
    answer = post(client, path, body, Prefer='respond-async')
    assert answer.status_code == status and proxy.strikes == 1
    assert [one.state for one in everything(store)] == [State.queued]


@pytest.mark.parametrize('strike', STRIKES)
def test_the_end_of_an_attempt_is_repeated_until_it_is_known(
        client, proxy, store, provider, strike):
    def answer(request):
        proxy.strike = strike
        return Given(202, headers={'X-Message-Id': 'theirs'})

    provider.answer_by(answer)
    answered = post(client)
    assert (answered.status_code, answered.json['status']) == (
        200, 'accepted')
    [stored] = everything(store)
    assert stored.state is State.accepted and proxy.strikes == 1
    [ended] = stored.attempts
    assert ended.outcome.provider_message_id == 'theirs'


@pytest.mark.parametrize('headers', [{}, {'Idempotency-Key': 'k'}])
@pytest.mark.parametrize('prefer', [{}, {'Prefer': 'respond-async'}])
def test_a_client_is_told_what_nobody_knows(
        serve, proxy, store, provider, headers, prefer):
    def and_away(*about):
        proxy.shut()
        answer_is_lost(*about)

    client, proxy.strike = serve(0.3), and_away
    answer = post(client, **headers, **prefer)
    assert (answer.status_code, answer.json['code']) == (
        504, 'outcome_unknown')
    assert answer.mimetype == 'application/problem+json'
    assert ('Retry-After' in answer.headers) is bool(headers)
    [stored] = everything(store)
    assert headers or f'/messages/{stored.id},' in answer.json['detail']
    assert not provider.requests
    described = client.get('/openapi.json').json['paths']
    assert '504' in described['/{domain}/send']['post']['responses']
