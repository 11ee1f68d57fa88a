"""What a store in PostgreSQL promises beside the contract."""

import os
import subprocess
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.exc import DBAPIError

from stampman.helpers.exceptions import NotFound, StoreUnavailable
from stampman.store import open_store, schema
from stampman.store.base import Filter

from backends import NOW, POOL, add, add_claimed
from clocks import YEAR, Machine
from postgres_stores import add_row, at_once, fresh, name, rates, store

__all__ = ['fresh', 'name', 'store']    # the fixtures


def setting(store, name):
    return store._database.write(
        lambda connection: connection.exec_driver_sql(
            f'SHOW {name}').scalar())


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
    for what in ('fsync', 'full_page_writes'):
        assert f'{what}=off' in caplog.text


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


def test_all_text_is_compared_by_its_bytes(postgres_server, name):
    """An index keeps its order, whatever the system's collations become."""
    assert postgres_server.run(
        'SELECT DISTINCT collation_name FROM information_schema.columns '
        "WHERE table_schema = 'public' AND data_type = 'text'",
        name) == [('C',)]


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


def test_a_bug_stays_loud(store):
    with pytest.raises(DBAPIError, match='syntax error'):
        store._database.write(
            lambda connection: connection.exec_driver_sql('SELEKT 1'))
    add(store)


@pytest.mark.parametrize('state, told', [
    ('53100', 'disk is full'), ('53200', 'no memory'), ('53400', 'resources'),
    ('58030', 'disk has failed'), ('25006', 'read-only'),
    ('57014', 'took too long'), ('25P04', 'took too long'),
    ('55P03', 'locked'), ('57P01', 'stopping'), ('XX001', 'damaged'),
    ('XX000', 'its log'), ('42P01', 'migrate'), ('40001', 'busy')])
def test_what_befalls_the_server_is_told(store, state, told):
    with pytest.raises(StoreUnavailable, match=told) as refused:
        store._database.write(raising(state))
    assert refused.value.retry_after == 2
    add(store)


@pytest.mark.parametrize('state', ['22012', '23505', 'P0001', '42601'])
def test_what_is_no_trouble_of_the_server_is_a_bug(store, state):
    with pytest.raises(DBAPIError):
        store._database.write(raising(state))
    add(store)


def raising(state):
    return lambda connection: connection.exec_driver_sql(
        f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; "
        'END $$')


def test_the_time_is_the_server_s(fresh, postgres_server):
    store = fresh(Machine().clock)          # which is far ahead
    there, claim = add_claimed(store, lease_until=NOW + 30)
    [(until, server)] = postgres_server.run(
        'SELECT lease_until, extract(epoch FROM clock_timestamp())::float8 '
        'FROM messages', store._database._parameters['dbname'])
    assert 25 < until - server <= 30
    assert not store.claim_due('other', NOW + YEAR, NOW + YEAR + 30)


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
