"""The contract of a store: what comes twice under a key is stored once."""

import threading

import pytest

from stampman.helpers.delivery import Claim, IdempotencyKey, State
from stampman.helpers.exceptions import (
    KeyReused, KeyTaken, StoreUnavailable, TooManyRequests)
from stampman.store.base import Entry

from backends import (
    NOW, POOL, add, add_claimed, email, ids, message, migrated, on_files,
    store)
from clocks import DAY, HOUR, YEAR, machine, process

__all__ = ['machine', 'migrated', 'process', 'store']   # the fixtures

KEY = IdempotencyKey('a' * 64, 'b' * 64)
REUSED = KEY._replace(fingerprint='c' * 64)
OTHER = IdempotencyKey('d' * 64, 'b' * 64)


def entries(*positions, **fields):
    return [Entry(position, message(**fields), email())
            for position in positions]


def stored(store):
    """Return the ids of all messages that are stored."""
    return {one.id for pool in (POOL, 'example.net')
            for one in store.page(pool, limit=999)[0]}


# -- one message under a key -------------------------------------------------

def test_what_is_stored_under_a_key_is_known_by_it(store):
    assert store.known(POOL, KEY, NOW) == {}
    one = message()
    store.add(one, email(), key=KEY)
    assert store.known(POOL, KEY, NOW) == {0: one.id}
    assert store.known(POOL, OTHER, NOW) == {}
    assert store.known('example.net', KEY, NOW) == {}


def test_the_same_again_is_not_stored_again(store):
    one = message()
    store.add(one, email(), key=KEY)
    with pytest.raises(KeyTaken):
        store.add(message(NOW + 1), email(), key=KEY)
    assert stored(store) == {one.id}
    assert store.known(POOL, KEY, NOW) == {0: one.id}


def test_something_else_under_the_key_is_told_so(store):
    one = message()
    store.add(one, email(), key=KEY)
    with pytest.raises(KeyReused):
        store.add(message(), email(), key=REUSED)
    with pytest.raises(KeyReused):
        store.known(POOL, REUSED, NOW)
    assert stored(store) == {one.id}
    assert store.known(POOL, KEY, NOW) == {0: one.id}


def test_each_pool_has_keys_of_its_own(store):
    mine, theirs = message(), message(pool='example.net')
    store.add(mine, email(), key=KEY)
    store.add(theirs, email(), key=REUSED)
    assert store.known(POOL, KEY, NOW) == {0: mine.id}
    assert store.known('example.net', REUSED, NOW) == {0: theirs.id}


def test_a_claimed_message_has_a_key_too(store):
    one = message(state='sending')
    store.add(one, email(), Claim(one.id, 'request', 1, NOW + 30), key=KEY)
    twin = message(state='sending')
    with pytest.raises(KeyTaken):
        store.add(twin, email(), Claim(twin.id, 'request', 1, NOW + 30),
                  key=KEY)
    assert ids(store.claim_due('worker', NOW + 30, NOW + 60, limit=9)) == [
        one.id]


# -- for 24 hours ------------------------------------------------------------

def test_a_key_is_known_for_24_hours(store):
    one = message()
    store.add(one, email(), key=KEY)
    for now in (NOW + DAY - 0.01, NOW - YEAR):
        assert store.known(POOL, KEY, now) == {0: one.id}
        with pytest.raises(KeyReused):
            store.known(POOL, REUSED, now)
    with pytest.raises(KeyTaken):
        store.add(message(NOW + DAY - 0.01), email(), key=KEY)
    assert store.known(POOL, KEY, NOW + DAY) == {}
    assert store.known(POOL, REUSED, NOW + DAY) == {}


@pytest.mark.parametrize('key', [KEY, REUSED], ids=['same', 'another body'])
def test_a_key_that_has_run_out_names_something_new(store, key):
    """Nobody need have tidied it away."""
    store.add(message(), email(), key=KEY)
    two = message(NOW + DAY)
    store.add(two, email(), key=key)
    assert store.known(POOL, key, NOW + DAY) == {0: two.id}
    assert store.known(POOL, key, NOW + 2 * DAY - 1) == {0: two.id}


@on_files
@pytest.mark.parametrize('jump', [DAY, YEAR, 10 * YEAR, -HOUR, -YEAR])
def test_no_jump_of_the_wall_clock_ends_a_key(process, machine, jump):
    store = process(machine.clock)
    one, _ = add_claimed(store)         # the steady clock is set
    store.add(first := message(machine.now), email(), key=KEY)
    machine.jump(jump)
    machine.pass_by(DAY - 1)
    assert store.known(POOL, KEY, machine.now) == {0: first.id}
    with pytest.raises(KeyTaken):
        store.add(message(machine.now), email(), key=KEY)
    store.forget_keys(machine.now)
    assert store.known(POOL, KEY, machine.now) == {0: first.id}
    machine.pass_by(max(0, -jump) + 1)
    assert store.known(POOL, KEY, machine.now) == {}


# -- one transaction ---------------------------------------------------------

def too_fast(store, one):
    store.add(message(), email(), rate=0.01)
    store.add(one, email(), rate=0.01, key=KEY)


def known_already(store, one):
    store.add(one.model_copy(update={'pool': 'example.net'}), email())
    store.add(one, email(), key=KEY)


def disk_full(store, one):
    with store._database.read() as connection:
        pages = connection.exec_driver_sql('PRAGMA page_count').scalar()
    store.close()
    store._database._pragmas['max_page_count'] = pages
    try:
        store.add(one, email(content='x' * 100_000), key=KEY)
    finally:
        store.close()
        del store._database._pragmas['max_page_count']


@pytest.mark.parametrize('fail, error', [
    (too_fast, TooManyRequests), (known_already, Exception)])
def test_what_was_not_accepted_is_not_remembered(store, fail, error):
    was_not_accepted(store, fail, error)


@on_files
def test_nor_is_what_the_disk_had_no_room_for(store):
    was_not_accepted(store, disk_full, StoreUnavailable)


def was_not_accepted(store, fail, error):
    one = message()
    with pytest.raises(error) as raised:
        fail(store, one)
    assert not isinstance(raised.value, KeyTaken)
    assert store.known(POOL, KEY, NOW) == {}
    before = stored(store)
    again = message()
    store.add(again, email(), key=REUSED)
    assert stored(store) == before | {again.id}


def test_a_replay_takes_nothing_from_the_rate(store):
    store.add(message(), email(), rate=1, key=KEY)
    for _ in range(3):
        with pytest.raises(KeyTaken):
            store.add(message(), email(), rate=1, key=KEY)
    with pytest.raises(TooManyRequests) as refused:
        add_at(store, NOW)
    assert refused.value.retry_after == 1
    add_at(store, NOW + 1)


def add_at(store, now, rate=1):
    store.add(message(now), email(), rate=rate)


# -- batches -----------------------------------------------------------------

def test_a_batch_is_stored_with_its_positions(store):
    batch = entries(0, 3, 7)
    store.add_all(batch, key=KEY)
    assert store.known(POOL, KEY, NOW) == {
        one.position: one.message.id for one in batch}
    for one in batch:
        assert store.message(POOL, one.message.id) == one.message
        assert store.email(one.message.id) == one.email
    with pytest.raises(KeyTaken):
        store.add_all(entries(0, 3, 7), key=KEY)
    with pytest.raises(KeyReused):
        store.add_all(entries(0), key=REUSED)
    assert len(stored(store)) == 3


@pytest.mark.parametrize('key', [None, KEY], ids=['no key', 'a key'])
def test_a_batch_is_stored_whole_or_not_at_all(store, key):
    there = add(store, pool='example.net')
    batch = entries(0, 1, 2)
    batch[2] = batch[2]._replace(
        message=there.model_copy(update={'pool': POOL}))
    with pytest.raises(Exception, match='(?i)unique'):
        store.add_all(batch, key=key)
    assert stored(store) == {there.id}
    assert store.known(POOL, KEY, NOW) == {}
    store.add_all(entries(0, 1, 2), key=KEY)
    assert len(stored(store)) == 4


def test_a_batch_may_hold_claimed_messages(store):
    one = message(state='sending')
    store.add_all([
        *entries(0),
        Entry(1, one, email(), Claim(one.id, 'request', 1, NOW + 30))])
    assert dict(store.waiting()) == {
        (POOL, State.queued): 1, (POOL, State.sending): 1}
    assert len(store.claim_due('worker', NOW + 29, NOW + 60, limit=9)) == 1


def test_a_batch_may_be_more_than_the_rate_and_others_wait(store):
    store.add_all(entries(*range(5)), rate=1)
    for wait, now in ((5, NOW), (2, NOW + 3)):
        with pytest.raises(TooManyRequests) as refused:
            add_at(store, now)
        assert refused.value.retry_after == pytest.approx(wait)
    add_at(store, NOW + 5)
    with pytest.raises(TooManyRequests):
        store.add_all(entries(0, 1, created_at=NOW + 5), rate=1)
    assert len(stored(store)) == 6


def test_who_waited_for_the_lock_does_not_fill_the_bucket(store):
    """The time it brings is older than the one that was counted last."""
    for now in (NOW, NOW + 5):
        add_at(store, now)
    for late in (NOW, NOW + 2, NOW + 4.9):
        with pytest.raises(TooManyRequests):
            add_at(store, late)
    add_at(store, NOW + 6)


def test_a_debt_of_a_batch_ends_with_a_clock_that_is_set_back(store):
    store.add_all(entries(*range(50), created_at=NOW + YEAR), rate=1)
    add_at(store, NOW)


# -- twins -------------------------------------------------------------------

def all_at_once(*acts):
    """Do all `acts` in threads; return what each raised, or None."""
    gate, raised = threading.Barrier(len(acts)), []

    def run(act):
        gate.wait()
        try:
            act()
            raised.append(None)
        except Exception as error:
            raised.append(type(error))

    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_of_twenty_twins_one_is_stored(store):
    raised = all_at_once(*[
        lambda: store.add(message(), email(), key=KEY)] * 20)
    assert raised.count(None) == 1 and raised.count(KeyTaken) == 19
    [id] = stored(store)
    assert store.known(POOL, KEY, NOW) == {0: id}


def test_of_twin_batches_one_is_stored(process):
    store, other = process(), process()
    for number in range(5):
        key = KEY._replace(digest=f'{number:064}')
        raised = all_at_once(*[
            lambda one=one: one.add_all(entries(0, 1), key=key)
            for one in (store, other)])
        assert set(raised) == {None, KeyTaken}
    assert len(stored(store)) == 10
