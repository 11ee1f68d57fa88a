"""What is one statement in PostgreSQL does what several do elsewhere."""

import threading

import pytest
from sqlalchemy import text

from stampman.helpers.delivery import Claim, Kind, State
from stampman.helpers.exceptions import LeaseLost, StoreUnavailable
from stampman.store import _following as following
from stampman.store.base import Entry
from stampman.store.sql import SqlStore

from backends import (
    NOW, POOL, add_claimed, attempt, email, ended, held, message)
from clocks import machine
from crashing.running import until
from postgres_proxy import Proxy
from postgres_stores import at_once, fresh, hold, name, store

__all__ = ['fresh', 'machine', 'name', 'store']     # the fixtures
MANY = [f'Ä{number}@example.org' for number in range(30)]
PART = {'filename': 'a.txt', 'content': 'YQ=='}


@pytest.fixture
def counted(postgres_server, name):
    """A store that is connected, and the way to its server."""
    with Proxy(postgres_server.url(name)) as proxy:
        far = SqlStore.at(proxy.url)
        far.waiting()
        yield far, proxy
        far.close()


def of_send(first=None, **fields):
    """Return a message that is sent at once, as it is taken in."""
    first = first or attempt()
    sent = message(state='sending', **fields)
    return Entry(0, sent, email(), Claim(sent.id, 'request', 1, NOW + 30),
                 first)


def test_a_send_is_two_journeys_to_the_server(counted):
    far, proxy = counted
    entry, before = of_send(), proxy.journeys
    far.add_all([entry])
    assert proxy.journeys - before == 1
    assert far.end(ended(entry.attempt, 'accepted'), entry.message.id)
    assert proxy.journeys - before == 2
    assert far.message(POOL, entry.message.id).state is State.accepted


def test_a_further_attempt_begins_in_one_journey(counted):
    far, proxy = counted
    there, claim = add_claimed(far)
    before = proxy.journeys
    far.begin(claim, attempt(), NOW + 60)
    assert proxy.journeys - before == 1


@pytest.mark.parametrize('way', [{}, {'rate': 1000}])
@pytest.mark.parametrize('fields', [
    {}, {'recipients': MANY}, {'reason': 'it has a "reason"', 'round': 3}])
def test_what_is_taken_in_either_way_is_the_same(store, way, fields):
    """A pool with a rate has a transaction of several statements."""
    entry = of_send(**fields)
    store.add_all([entry], **way)
    assert store.message(POOL, entry.message.id) == \
        entry.message.model_copy(update={'attempts': (entry.attempt,)})
    assert store.email(entry.message.id) == entry.email
    [found] = store._database.write(lambda connection: connection.execute(
        text('SELECT leased_by, lease_until, fence FROM messages')).all())
    assert found == ('request', NOW + 30, 1)


def test_what_has_attachments_is_taken_in_whole(store):
    there, parts = message(), email(attachments=[PART])
    store.add(there, parts)
    assert store.email(there.id) == parts


def test_an_id_that_is_taken_adds_nothing(store):
    entry = of_send()
    store.add_all([entry])
    with pytest.raises(Exception, match='duplicate key') as refused:
        store.add_all([entry._replace(attempt=attempt())])
    assert not isinstance(refused.value, StoreUnavailable)
    assert len(store.message(POOL, entry.message.id).attempts) == 1


def test_leases_last_by_the_time_of_the_server(fresh, machine):
    """Not by that of a machine whose clock is wrong."""
    far = fresh(machine.clock)
    entry = of_send()
    far.add_all([entry])
    ends = [lease_left(far)]
    far.begin(entry.claim, attempt(), NOW + 90)
    ends.append(lease_left(far))
    assert ends == [pytest.approx(30, abs=5), pytest.approx(90, abs=5)]


def lease_left(store):
    return store._database.write(lambda connection: connection.execute(text(
        'SELECT lease_until - extract(epoch FROM clock_timestamp()) '
        'FROM messages')).scalar())


def test_who_holds_the_message_no_more_begins_nothing(store):
    there, claim = add_claimed(store)
    with pytest.raises(LeaseLost):
        store.begin(claim._replace(fence=2), attempt(), NOW + 60)
    assert not store.message(POOL, there.id).attempts


def test_attempts_are_numbered_as_they_begin(store):
    there, claim = add_claimed(store)
    begun = [attempt() for _ in range(3)]
    for one in begun:
        claim = store.begin(claim, one, NOW + 60)
        store.end(ended(one, 'deferred'), there.id)
    assert [one.id for one in store.message(POOL, there.id).attempts] == [
        one.id for one in begun]


def test_what_was_taken_twice_is_marked_though_its_first_end_is_late(store):
    """An attempt before it may have been accepted, too."""
    stored = held(store, 'uncertain', state=State.deferred)
    store.change(POOL, stored.id, {State.deferred}, State.queued,
                 next_attempt_at=NOW)
    [(claim, _)] = store.claim_due('other', NOW, NOW + 30)
    second = attempt()
    store.begin(claim, second, NOW + 60)
    store.end(ended(second, 'accepted'), stored.id)
    assert store.message(POOL, stored.id).possible_duplicate


def test_an_end_that_waits_for_a_rescue_knows_what_it_did(fresh):
    """The rescue has called the attempt uncertain: its own end is late."""
    one, two = fresh(), fresh()
    there, claim = add_claimed(one)
    begun = attempt()
    one.begin(claim, begun, NOW + 60)
    rescued = threading.Event()

    def rescue(connection):
        hold(connection, there.id)
        assert following.orphan(connection, there.id, NOW + 61)
        rescued.set()
        until(lambda: connection.execute(text(
            'SELECT count(*) FROM pg_locks WHERE NOT granted')).scalar())

    def end():
        rescued.wait(20)
        return two.end(ended(begun, 'accepted'), there.id)

    assert at_once(lambda: one._database.write(rescue), end)[1] is True
    found = one.message(POOL, there.id)
    assert found.state is State.accepted
    [attempted] = found.attempts
    assert attempted.outcome.kind is Kind.accepted


def test_a_connection_that_the_server_closed_is_not_taken(
        own_postgres, url):
    """Else what nobody has heard of could not be told from what is done."""
    store, entry = SqlStore.at(url), of_send()
    store.waiting()
    own_postgres.restart('fast')
    store.add_all([entry])
    assert store.message(POOL, entry.message.id).state is State.sending
    own_postgres.restart('immediate')
    assert store.end(ended(entry.attempt, 'accepted'), entry.message.id)
    store.close()
