"""What a store in PostgreSQL promises beside the contract."""

import os
import subprocess
import sys
import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.exc import DBAPIError

from stampman.helpers.delivery import IdempotencyKey, State
from stampman.helpers.exceptions import (
    KeyBusy, KeyTaken, NotFound, StoreUnavailable, TooManyRequests)
from stampman.store import open_store, schema
from stampman.store._adding import Prepared
from stampman.store._postgres_pool import Pool
from stampman.store.base import Entry, Filter, HealthRow
from stampman.store.sql import SqlStore

from backends import (
    NOW, POOL, add, add_claimed, attempt, email, ended, held, ids, message)
from clocks import YEAR, Machine

KEY = IdempotencyKey('a' * 64, 'b' * 64)


@pytest.fixture
def name(postgres_server, postgres_contract):
    """A database with the schema, and empty."""
    postgres_server.empty(postgres_contract)
    return postgres_contract


@pytest.fixture
def fresh(postgres_server, name):
    """Return a function that opens stores of one database."""
    opened = []

    def open_one(clock=None, **options):
        opened.append(SqlStore.at(
            postgres_server.url(name), clock, **options))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture
def store(fresh):
    return fresh()


def setting(store, name):
    return store._database.write(
        lambda connection: connection.exec_driver_sql(
            f'SHOW {name}').scalar())


def at_once(*calls):
    """Do all at once; return what each returned or raised."""
    gate, told = threading.Barrier(len(calls)), [None] * len(calls)

    def do(number, call):
        gate.wait()
        try:
            told[number] = call()
        except Exception as error:
            told[number] = error

    threads = [threading.Thread(target=do, args=one)
               for one in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told


# -- durable -----------------------------------------------------------------

@pytest.mark.parametrize('theirs, ours', [
    ('off', 'on'), ('local', 'on'), ('remote_write', 'on'), ('on', 'on'),
    ('remote_apply', 'remote_apply')])
def test_what_is_committed_is_synced_whatever_the_default(
        postgres_server, fresh, name, theirs, ours):
    postgres_server.run(
        f'ALTER DATABASE {name} SET synchronous_commit = {theirs}')
    try:
        assert setting(fresh(), 'synchronous_commit') == ours
    finally:
        postgres_server.run(
            f'ALTER DATABASE {name} RESET synchronous_commit')


def test_a_server_that_syncs_nothing_is_complained_of(store, caplog):
    store.waiting()
    for name in ('fsync', 'full_page_writes'):
        assert f'{name}=off' in caplog.text


@pytest.mark.parametrize('what, value', [
    ('application_name', 'stampman'), ('statement_timeout', '5s'),
    ('lock_timeout', '2s'), ('idle_in_transaction_session_timeout', '10s'),
    ('transaction_isolation', 'read committed')])
def test_nothing_lasts_for_ever(store, what, value):
    assert setting(store, what) == value


# -- the schema --------------------------------------------------------------

def test_the_migrations_make_the_tables_that_are_declared(store):
    def differences(connection):
        return compare_metadata(MigrationContext.configure(
            connection, opts={'compare_type': True}), schema.metadata)

    assert store._database.write(differences) == []


def test_of_all_who_migrate_at_once_all_succeed_and_one_does_it(
        postgres_server):
    url = postgres_server.url(postgres_server.new_database())
    stores = [open_store(url) for _ in range(3)]
    assert 'stampman migrate' in stores[0].schema_problem()
    told = at_once(*[one.migrate for one in stores])
    assert sorted(told, key=str) == [False, False, True]
    for one in stores:
        assert one.schema_problem() == ''
        one.close()


def test_a_migration_that_fails_leaves_nothing(postgres_server):
    name = postgres_server.new_database()
    store = open_store(postgres_server.url(name))
    with pytest.raises(ZeroDivisionError):
        store._database.migrate(lambda connection: (
            connection.exec_driver_sql('CREATE TABLE half (one int)'), 1 / 0))
    assert postgres_server.run(
        "SELECT count(*) FROM pg_tables WHERE tablename = 'half'",
        name) == [(0,)]
    store.close()


def test_a_migration_may_last(store):
    def slow(connection):
        return [connection.exec_driver_sql(f'SHOW {name}').scalar()
                for name in ('statement_timeout', 'lock_timeout')]

    assert store._database.migrate(slow) == ['0', '10s']
    assert setting(store, 'statement_timeout') == '5s'


def test_another_program_s_database_is_left_alone(postgres_server):
    name = postgres_server.new_database()
    postgres_server.run('CREATE TABLE public.theirs (one int)', name)
    store = open_store(postgres_server.url(name))
    with pytest.raises(StoreUnavailable, match='another program'):
        store.migrate()
    store.close()


def test_a_database_that_is_not_there_is_told(postgres_server):
    store = open_store(postgres_server.url('nowhere'))
    for use in (store.waiting, store.migrate, store.schema_problem):
        with pytest.raises(StoreUnavailable, match='no such database'):
            use()
    store.close()


def test_one_without_the_schema_is_told(postgres_server):
    store = open_store(postgres_server.url(postgres_server.new_database()))
    for use in (store.waiting, lambda: add(store)):
        with pytest.raises(StoreUnavailable, match='stampman migrate'):
            use()
    store.close()


# -- what no text of a database may hold -------------------------------------

@pytest.mark.parametrize('odd', ['\0', 'a\0b', '\ud800'])
def test_what_cannot_be_stored_is_not_there(store, odd):
    for find in (lambda: store.message(POOL, odd),
                 lambda: store.message(odd, 'x')):
        with pytest.raises(NotFound):
            find()
    assert store.page(POOL, Filter(recipient=odd)) == ((), False)
    assert store.page(POOL, Filter(after=odd)) == ((), False)


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


def hold(connection, id):
    connection.exec_driver_sql(
        'SELECT 1 FROM messages WHERE id = %s FOR UPDATE', (id,))


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


def held_row(store, id):
    inside, leave = threading.Event(), threading.Event()

    def work(connection):
        hold(connection, id)
        inside.set()
        leave.wait(20)

    thread = threading.Thread(target=store._database.write, args=(work,))
    thread.start()
    inside.wait(20)
    return thread, leave


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


# -- a transaction -----------------------------------------------------------

def test_a_read_sees_one_moment(fresh):
    one, two = fresh(), fresh()
    with one._database.read() as connection:
        def count():
            return connection.exec_driver_sql(
                'SELECT count(*) FROM messages').scalar()
        assert count() == 0
        add(two)
        assert count() == 0


def test_an_error_that_is_passed_over_is_not_committed(store):
    def work(connection):
        add_row(connection)
        with pytest.raises(DBAPIError):
            connection.exec_driver_sql('SELEKT 1')

    with pytest.raises(AssertionError, match='passed over'):
        store._database.write(work)
    assert rates(store) == 0
    store._database.write(add_row)
    assert rates(store) == 1


def add_row(connection):
    connection.exec_driver_sql("INSERT INTO rates VALUES ('x', 1, 1)")


def rates(store):
    return store._database.write(lambda connection: connection.exec_driver_sql(
        'SELECT count(*) FROM rates').scalar())


def test_a_bug_stays_loud(store):
    with pytest.raises(DBAPIError, match='syntax error'):
        store._database.write(
            lambda connection: connection.exec_driver_sql('SELEKT 1'))
    add(store)


def test_the_time_is_the_server_s(fresh, postgres_server):
    store = fresh(Machine().clock)          # which is far ahead
    there, claim = add_claimed(store, lease_until=NOW + 30)
    [(until, server)] = postgres_server.run(
        'SELECT lease_until, extract(epoch FROM clock_timestamp())::float8 '
        'FROM messages', store._database._parameters['dbname'])
    assert 25 < until - server <= 30
    assert not store.claim_due('other', NOW + YEAR, NOW + YEAR + 30)


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
    _, age = pool.take()

    def wait(number):
        _, age = pool.take()
        order.append(number)
        pool.give_back(None, age)

    threads = []
    for number in range(5):
        threads.append(threading.Thread(target=wait, args=(number,)))
        threads[-1].start()
        while len(pool._waiting) <= number:
            pass
    pool.give_back(None, age)
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


def test_a_standby_is_read_and_not_written(postgres_server, fresh, name):
    """As far as a server that is set so can stand for one."""
    role = f'ALTER ROLE stampman IN DATABASE {name}'
    postgres_server.run(f'{role} SET default_transaction_read_only = on')
    try:
        store = fresh()
        assert store.waiting() == {}
        with pytest.raises(StoreUnavailable, match='read-only'):
            add(store)
    finally:
        postgres_server.run(f'{role} RESET default_transaction_read_only')
    add(store)


def test_a_user_that_may_not_is_told(postgres_server, name):
    postgres_server.run("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    store = open_store(f'postgres://guest:guest@127.0.0.1:'
                       f'{postgres_server.port}/{name}')
    with pytest.raises(StoreUnavailable, match='must own'):
        store.waiting()
    store.close()


def test_psycopg_is_loaded_only_for_postgres():
    done = subprocess.run(
        [sys.executable, '-c', 'import sys; from stampman.store import *; '
         'open_store("sqlite:////nowhere/x.db"); '
         'print("psycopg" in sys.modules)'],
        text=True, capture_output=True,
        env={'PYTHONPATH': os.pathsep.join(sys.path)})
    assert (done.stdout, done.stderr) == ('False\n', '')
