"""Several who use one PostgreSQL at once, and their connections."""

import os
import threading

import pytest

from stampman.helpers.delivery import IdempotencyKey, State
from stampman.helpers.exceptions import (
    KeyBusy, KeyTaken, StoreUnavailable, TooManyRequests)
from stampman.store._adding import Prepared
from stampman.store._postgres_pool import Pool
from stampman.store.base import Entry, HealthRow

from backends import (
    NOW, POOL, add, add_claimed, attempt, email, ended, held, ids, message)
from postgres_stores import (
    add_row, at_once, fresh, held_row, hold, name, rates, store)

__all__ = ['fresh', 'name', 'store']    # the fixtures
KEY = IdempotencyKey('a' * 64, 'b' * 64)


# -- at the same time --------------------------------------------------------

def test_a_key_that_is_just_being_stored_is_waited_for(fresh):
    """The first request's transaction stays open: it may yet fail."""
    one, two = fresh(), fresh()
    stored, commit = threading.Event(), threading.Event()

    def slowly(connection):
        one._add.__wrapped__(one, connection, prepared(), None, KEY)
        stored.set()
        commit.wait(20)

    first = threading.Thread(target=one._database.write, args=(slowly,))
    first.start()
    stored.wait(20)
    with pytest.raises(KeyBusy) as busy:
        two.add(message(), email(), key=KEY)
    assert (busy.value.status, busy.value.retry_after) == (409, 1)
    commit.set()
    first.join()
    with pytest.raises(KeyTaken):
        two.add(message(), email(), key=KEY)
    assert sum(two.waiting().values()) == 1


def prepared():
    return Prepared([Entry(0, message(), email())])


def test_first_rows_are_written_by_several_at_once(fresh):
    stores = [fresh() for _ in range(4)]
    for one in stores:
        one.waiting()           # it is connected
    assert set(at_once(*[lambda one=one: one.check_writable(NOW)
                         for one in stores])) == {None}
    assert set(at_once(*[lambda one=one: one.beat('worker', NOW)
                         for one in stores])) == {None}
    row = HealthRow('account', 1, {})
    told = at_once(*[lambda one=one: one.put_health(row, NOW)
                     for one in stores])
    assert sorted(told) == [False, False, False, True]
    told = at_once(*[lambda one=one: one.add(message(), email(), rate=2)
                     for one in stores])
    assert told.count(None) == 2
    assert sum(isinstance(one, TooManyRequests) for one in told) == 2


def test_a_deadlock_is_tried_again(store):
    """Two take two rows in either order."""
    one, two = add(store), add(store)
    gate, tries = threading.Barrier(2), []

    def both(first, second):
        def work(connection):
            tries.append(1)
            hold(connection, first)
            if len(tries) <= 2:
                gate.wait(20)
            hold(connection, second)
            return 'done'
        return lambda: store._database.write(work)

    assert at_once(both(one.id, two.id), both(two.id, one.id)) == [
        'done', 'done']
    assert 3 <= len(tries) <= 5


def test_what_is_locked_for_long_is_told(fresh):
    one, two = fresh(), fresh()
    there, claim = add_claimed(one)
    held_by, leave = held_row(one, there.id)
    with pytest.raises(StoreUnavailable, match='busy') as busy:
        two.begin(claim, attempt(), NOW + 60)
    assert busy.value.retry_after == 2
    assert not two.claim_due('other', NOW + 99, NOW + 200)    # is not waited
    leave.set()
    held_by.join()
    two.begin(claim, attempt(), NOW + 60)


def test_an_end_reads_what_it_waited_for(fresh):
    """Evidence and a rescue come at once: the last knows of the first."""
    for number in range(10):
        one, two = fresh(), fresh()
        there, claim = add_claimed(one)
        begun = attempt()
        one.begin(claim, begun, NOW + 60)
        told = at_once(
            lambda: one.end(ended(begun, 'accepted'), there.id),
            lambda: two.end(ended(begun, 'uncertain'), there.id))
        assert told[0] is True
        found = two.message(POOL, there.id)
        assert found.state is State.accepted
        assert [one.outcome.kind for one in found.attempts] == ['accepted']


def test_what_is_restarted_meanwhile_keeps_its_content(fresh):
    """Retention has looked, and a person is faster, or the reverse."""
    one, two = fresh(), fresh()
    for number in range(10):
        failed = held(one, state=State.failed)
        told = at_once(
            lambda: one.forget_bodies(NOW + 999, 5),
            lambda: two.change(POOL, failed.id, [State.failed], State.queued,
                               restart=True, next_attempt_at=NOW + 9999))
        if isinstance(told[1], Exception):
            assert 'content is not kept' in str(told[1])
        else:
            assert one.email(failed.id)


def test_no_message_is_claimed_twice(fresh):
    stores = [fresh() for _ in range(3)]
    added = {add(stores[0]).id for _ in range(40)}

    def take(store):
        taken = []
        while due := store.claim_due('worker', NOW, NOW + 60, limit=3):
            taken += ids(due)
        return taken

    taken = [id for found in at_once(
        *[lambda one=one: take(one) for one in stores]) for id in found]
    assert len(taken) == 40 and set(taken) == added


# -- connections -------------------------------------------------------------

def test_a_process_takes_few_connections(fresh, postgres_server, name):
    store = fresh(connections=2)
    told = at_once(*[lambda: add(store)] * 12)
    assert not [one for one in told if isinstance(one, Exception)]
    assert postgres_server.run(
        'SELECT count(*) FROM pg_stat_activity '
        f"WHERE datname = '{name}' AND application_name = 'stampman'"
    ) == [(2,)]


def test_who_finds_none_free_is_told(fresh):
    store = fresh(connections=1, patience=0.05)
    there = add(store)
    thread, leave = held_row(store, there.id)
    with pytest.raises(StoreUnavailable, match='too many wait') as busy:
        store.waiting()
    assert busy.value.retry_after == 2
    leave.set()
    thread.join()
    assert sum(store.waiting().values()) == 1


def test_who_waits_longest_is_next():
    pool, order = Pool(1, 20), []
    pool.take()

    def wait(number):
        pool.take()
        order.append(number)
        pool.give_back(None)

    threads = []
    for number in range(5):
        threads.append(threading.Thread(target=wait, args=(number,)))
        threads[-1].start()
        while len(pool._waiting) <= number:
            pass
    pool.give_back(None)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]


def test_connections_that_were_cut_are_replaced_unseen(
        store, postgres_server, name):
    for _ in range(3):
        add(store)
        postgres_server.disconnect(name)
    assert sum(store.waiting().values()) == 3


def test_one_that_is_cut_in_mid_transaction_is_told(
        store, postgres_server, name):
    def work(connection):
        add_row(connection)
        postgres_server.disconnect(name)
        add_row(connection)

    with pytest.raises(StoreUnavailable, match='stopping|lost'):
        store._database.write(work)
    assert rates(store) == 0


def test_a_server_that_takes_no_more_keeps_those_it_has(
        store, postgres_server, name):
    """Else each refusal would cost a connection that is good."""
    def pids():
        with store._database.read() as one, store._database.read() as other:
            return {one.exec_driver_sql('SELECT pg_backend_pid()').scalar()
                    for one in (one, other)}

    before = pids()
    postgres_server.run(f'ALTER DATABASE {name} CONNECTION LIMIT 2')
    try:
        with store._database.read(), store._database.read():
            with pytest.raises(StoreUnavailable, match='no more conn'):
                store.waiting()
    finally:
        postgres_server.run(f'ALTER DATABASE {name} CONNECTION LIMIT -1')
    assert pids() == before


def test_what_is_just_being_changed_is_not_waited_for(store):
    there = [add(store, state=State.deferred, next_attempt_at=NOW + 9)
             for _ in range(3)]
    thread, leave = held_row(store, there[1].id)
    assert store.hasten([POOL], NOW) == 2
    leave.set()
    thread.join()
    assert store.hasten([POOL], NOW) == 1


def test_a_child_opens_its_own_connections(store):
    first = add(store)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            add(store, created_at=NOW + 1)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    add(store, created_at=NOW + 2)
    page, _ = store.page(POOL)
    assert [one.created_at for one in page] == [NOW + 2, NOW + 1, NOW]
    assert page[-1].id == first.id
