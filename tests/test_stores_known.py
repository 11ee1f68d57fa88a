"""The contract of a store, over every backend: persons, lists, sharing."""

import threading

import pytest

from stampman.helpers.delivery import State
from stampman.helpers.exceptions import Conflict, NotFound
from stampman.store.base import Filter, HealthRow

from backends import (
    NOW, POOL, add, add_claimed, attempt, held, ids, migrated, new_id,
    store)

__all__ = ['migrated', 'store']     # the fixtures


# -- its own state -----------------------------------------------------------

def test_a_migrated_store_has_no_schema_problem(store):
    assert store.migrate() is False
    assert store.schema_problem() == ''


def test_that_it_can_be_written_is_seen_by_writing(store):
    store.check_writable(NOW)
    store.check_writable(NOW + 1)
    assert store.last_beat() is None


# -- change ------------------------------------------------------------------

def test_a_person_moves_a_message(store):
    one = held(store, 'uncertain', 'deferred', 'uncertain')
    told = store.change(
        POOL, one.id, [State.failed, State.uncertain], State.queued,
        reason='again', resolved='not_sent',
        next_attempt_at=NOW + 5, restart=True, expires_at=NOW + 99)
    assert told == store.message(POOL, one.id)
    assert (told.state, told.reason, told.next_attempt_at, told.expires_at,
            told.restarted_after) == (
        State.queued, 'again', NOW + 5, NOW + 99, 3)
    assert [one.resolved for one in told.attempts] == [
        'not_sent', None, 'not_sent']
    assert [(to.status, to.reason) for to in told.recipients] == [
        ('queued', 'again')]


def test_what_a_person_does_not_say_stays(store):
    one, claim = add_claimed(store)
    store.begin(claim, attempt(), NOW + 60)
    [(claim, crashed)] = store.claim_due('rescuer', NOW + 61, NOW + 90)
    store.finish(claim, State.uncertain, round=1, next_attempt_at=NOW + 70)
    assert crashed.crashes == 1
    told = store.change(POOL, one.id, [State.uncertain], State.uncertain)
    assert (told.crashes, told.restarted_after, told.expires_at) == (
        1, one.restarted_after, one.expires_at)
    assert told.next_attempt_at is None and told.attempts[0].resolved is None
    told = store.change(POOL, one.id, [State.uncertain], State.queued,
                        restart=True, next_attempt_at=NOW)
    assert told.crashes == 0


def test_a_word_once_said_on_an_attempt_stays(store):
    one = held(store, 'uncertain')
    for word in ('not_sent', 'accepted'):
        told = store.change(POOL, one.id, [State.uncertain], State.uncertain,
                            resolved=word)
    assert told.attempts[0].resolved == 'not_sent'


def test_recipients_that_were_rejected_start_anew_with_the_message(store):
    one = held(store, 'rejected', state=State.rejected)
    assert one.recipients[0].status == 'rejected'
    told = store.change(
        POOL, one.id, [State.rejected], State.queued,
        next_attempt_at=NOW, restart=True)
    assert told.recipients[0].status == 'queued'


def test_a_message_in_another_state_conflicts_and_stays(store):
    one = add(store)
    with pytest.raises(Conflict, match='queued'):
        store.change(POOL, one.id, [State.failed, State.rejected],
                     State.queued, resolved='accepted')
    assert store.message(POOL, one.id) == one


@pytest.mark.parametrize('pool, known', [
    ('example.net', True), (POOL, False)])
def test_a_pool_changes_its_own_messages_alone(store, pool, known):
    one = add(store)
    with pytest.raises(NotFound):
        store.change(pool, one.id if known else new_id(NOW),
                     [State.queued], State.cancelled)
    assert store.message(POOL, one.id) == one


# -- hasten ------------------------------------------------------------------

def test_what_waits_for_another_try_is_hastened_in_its_pools(store):
    there = {}
    _, held = add_claimed(store)
    store.finish(held, State.uncertain, round=1)
    for pool in (POOL, 'example.net', 'example.edu'):
        for state in (State.deferred, State.uncertain):
            one, claim = add_claimed(store, pool=pool)
            store.finish(claim, state, round=1, next_attempt_at=NOW + 900)
            there[pool, state] = one.id
    assert store.hasten([POOL, 'example.net'], NOW + 5) == 4
    assert store.hasten([POOL, 'example.net'], NOW + 6) == 0
    assert store.hasten([], NOW) == 0
    due = store.claim_due('worker', NOW + 5, NOW + 60, limit=9)
    assert set(ids(due)) == {
        there[pool, state] for pool in (POOL, 'example.net')
        for state in (State.deferred, State.uncertain)}


# -- message, email ----------------------------------------------------------

def test_a_message_is_known_to_its_own_pool_alone(store):
    one = add(store)
    for pool, known in (('example.net', one.id), (POOL, new_id(NOW)),
                        (POOL, 'no id at all')):
        with pytest.raises(NotFound):
            store.message(pool, known)
    with pytest.raises(NotFound):
        store.email(new_id(NOW))


# -- page --------------------------------------------------------------------

def listed(store, *args, pool=POOL, limit=50, **filter):
    page, more = store.page(pool, Filter(*args, **filter), limit)
    return [one.id for one in page], more


@pytest.fixture
def five(store):
    """Five messages, a second apart, among those of another pool."""
    made = []
    for second in range(5):
        add(store, created_at=NOW + second, pool='example.net')
        made.append(add(
            store, created_at=NOW + second,
            recipients=['all@x.org', f'Only-{second}@X.org']).id)
    return made


def test_the_newest_comes_first_without_attempts_and_recipients(store, five):
    assert listed(store) == (five[::-1], False)
    assert listed(store, pool='example.edu') == ([], False)
    page, _ = store.page(POOL)
    assert page[0] == store.message(POOL, five[-1]).model_copy(
        update={'attempts': (), 'recipients': ()})


def test_pages_follow_one_another(store, five):
    assert listed(store, limit=2) == ([five[4], five[3]], True)
    add(store, created_at=NOW + 60)         # moves no later page
    assert listed(store, after=five[3], limit=2) == (
        [five[2], five[1]], True)
    assert listed(store, after=five[1], limit=2) == ([five[0]], False)
    assert listed(store, after=five[0], limit=2) == ([], False)
    assert listed(store, after=five[2], limit=2) == (
        [five[1], five[0]], False)


@pytest.mark.parametrize('filter, found', [
    ({'since': NOW + 1}, [4, 3, 2, 1]),
    ({'since': NOW + 1.0001}, [4, 3, 2]),
    ({'until': NOW + 2}, [1, 0]),
    ({'until': NOW + 2.0001}, [2, 1, 0]),
    ({'since': NOW + 1, 'until': NOW + 3}, [2, 1]),
    ({'since': NOW + 9}, []),
    ({'until': 0}, []),
    ({'since': -1e12, 'until': 1e12}, [4, 3, 2, 1, 0]),
    ({'recipient': 'all@x.org', 'since': NOW + 3}, [4, 3]),
    ({'recipient': 'ALL@x.org', 'until': NOW + 1}, [0]),
    ({'recipient': 'only-2@x.org'}, [2]),
    ({'recipient': 'x.org'}, []),
    ({'recipient': 'only-_@x.org'}, []),
    ({'state': State.queued, 'until': NOW + 1}, [0]),
    ({'state': State.failed}, [])])
def test_filters_are_exact(store, five, filter, found):
    assert listed(store, **filter) == ([five[n] for n in found], False)


def test_filters_and_pages_go_together(store, five):
    store.claim_due('worker', NOW + 1, NOW + 60, limit=4)   # 0 and 1
    waiting = {'state': State.queued, 'recipient': 'all@x.org'}
    assert listed(store, limit=2, **waiting) == ([five[4], five[3]], True)
    assert listed(store, after=five[3], limit=2, **waiting) == (
        [five[2]], False)
    assert listed(store, state=State.sending, since=NOW + 1) == (
        [five[1]], False)


def test_times_between_milliseconds_are_told_apart(store):
    times = [NOW + 0.0004, NOW + 0.0006, NOW + 0.00149, NOW + 0.0021]
    made = [add(store, created_at=at).id for at in times]
    for n, at in enumerate(times):
        assert set(listed(store, since=at)[0]) == set(made[n:])
        assert set(listed(store, until=at)[0]) == set(made[:n])


# -- waiting -----------------------------------------------------------------

def test_what_is_not_settled_is_counted(store):
    for state in (State.deferred, State.uncertain, State.accepted,
                  State.failed, State.uncertain):
        held(store, state=state)
    add(store)
    add(store, pool='example.net')
    add_claimed(store)
    assert dict(store.waiting()) == {
        (POOL, State.queued): 1, ('example.net', State.queued): 1,
        (POOL, State.sending): 1, (POOL, State.deferred): 1,
        (POOL, State.uncertain): 2}


# -- what processes share ----------------------------------------------------

def test_health_is_written_by_one_version_after_another(store):
    first = HealthRow('a:1', 1, {'until': NOW, 'why': None, 'log': [1.5]})
    assert store.health() == {}
    assert store.put_health(first, NOW)
    assert not store.put_health(first, NOW)
    assert not store.put_health(HealthRow('a:1', 3, {}), NOW)
    assert not store.put_health(HealthRow('b:2', 2, {}), NOW)
    assert store.health() == {'a:1': first}
    second = HealthRow('a:1', 2, {'why': 'refused'})
    assert store.put_health(second, NOW)
    assert not store.put_health(second, NOW)
    assert store.put_health(HealthRow('b:2', 1, {}), NOW)
    assert store.health() == {
        'a:1': second, 'b:2': HealthRow('b:2', 1, {})}


def test_of_all_who_write_one_version_one_succeeds(store):
    written, ready = [], threading.Barrier(4)

    def put(who):
        ready.wait()
        for version in range(1, 11):
            row = HealthRow('a:1', version, {'by': who})
            written.append((version, store.put_health(row, NOW)))

    threads = [threading.Thread(target=put, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(version for version, done in written if done) == list(
        range(1, 11))


def test_the_last_beat_of_any_worker_is_known(store):
    assert store.last_beat() is None
    store.beat('one', NOW)
    store.beat('two', NOW - 5)
    assert store.last_beat() == NOW
    store.beat('two', NOW + 5)
    store.beat('one', NOW + 2)
    assert store.last_beat() == NOW + 5
    store.beat('three', NOW + 10 * 86400)   # the others are forgotten
    store.beat('three', NOW)
    assert store.last_beat() == NOW


def test_a_beat_of_before_the_clock_was_set_back_says_nothing(store):
    for who in ('dead', 'alive'):
        store.beat(who, NOW)
    for now in (NOW - 86400, NOW - 86400 + 10):
        store.beat('alive', now)
        assert store.last_beat() == now
