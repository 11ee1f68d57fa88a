"""A message whose providers were asked again, as an admin reads it."""

import time

import pytest

from stampman.helpers.delivery import Attempt, Kind, Outcome, State
from stampman.opening import new_id
from stampman.store import open_store

from fakes import email, message
from gateway_server import POOL_KEY, GatewayServer, config

NO_ANSWER = Outcome(kind=Kind.uncertain, reason='no answer came')
LATER = Outcome(kind=Kind.deferred, reason='HTTP 503')
TAKEN = Outcome(kind=Kind.accepted, provider_message_id='theirs-1')
# What the provider says when it is asked again, and what the page tells.
ANSWERS = {
    'settling': (LATER, 600.0), 'held': (LATER, None),
    'settled': (TAKEN, None)}


def stored(store, answer, due_in):
    """Store a message with an uncertain attempt and a replay of it."""
    now = time.time()
    one = message(id=new_id(now), created_at=now, expires_at=now + 3600,
                  state=State.queued, next_attempt_at=now)
    store.add(one, email())
    [(claim, _)] = store.claim_due('me', now, now + 60)
    first = None
    for outcome in (NO_ANSWER, answer):
        attempt = Attempt(
            id=new_id(now), service='main', provider='amazon_ses', round=0,
            started_at=now, replays=first)
        claim = store.begin(claim, attempt, now + 60)
        store.end(attempt.model_copy(update={
            'ended_at': now, 'outcome': outcome}), one.id, claim)
        first = first or attempt.id
    if answer is not TAKEN:
        store.finish(claim, State.uncertain, round=1,
                     next_attempt_at=due_in and now + due_in)
    return f'/example.com/messages/{one.id}', first


@pytest.fixture(scope='module')
def told(tmp_path_factory):
    folder = tmp_path_factory.mktemp('evidence')
    running = GatewayServer(folder, config(), STAMPMAN_WORKER='off')
    store = open_store(f'sqlite:///{folder}/stampman.db')
    paths = {name: stored(store, *how) for name, how in ANSWERS.items()}
    store.close()
    with running:
        yield running, paths


@pytest.fixture
def server(told):
    return told[0]


@pytest.mark.parametrize('name', ANSWERS)
def test_an_attempt_names_the_one_that_it_asks_about(told, server, name):
    path, first = told[1][name]
    story = server.get(path, POOL_KEY).json
    asked, again = story['attempts']
    assert (asked['id'], again['replays']) == (first, first)
    assert 'replays' not in asked and 'resolved' not in again
    assert asked.get('resolved') == (
        'replayed' if name == 'settled' else None)
    assert ('next_attempt_at' in story) == (name == 'settling')


@pytest.mark.parametrize('name', ['settling', 'held'])
def test_a_replay_does_not_hide_that_it_may_have_been_taken(
        told, server, name):
    story = server.get(told[1][name][0], POOL_KEY).json
    assert story['services_fail'] == {'main': 'no answer came'}


@pytest.mark.parametrize('name, words, others', [
    ('settling', 'Being settled', 'Held'),
    ('held', 'until somebody settles it', 'Being settled'),
    ('settled', 'the provider was asked again', 'Held')])
def test_the_page_tells_them_apart(told, admin, name, words, others):
    text = admin.page(told[1][name][0]).text
    assert words in text and others not in text
    assert 'asks again about an attempt that got no answer' in text
