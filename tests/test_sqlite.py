"""What a store in an SQLite file promises beside the contract."""

import logging
import re
import sqlite3
import stat
import threading

import pytest
from sqlalchemy.exc import OperationalError

from stampman.helpers.exceptions import ConfigError, StoreUnavailable
from stampman.store import migrations, open_store, schema
from stampman.store._sqlite import driver, journal_mode_for

from backends import (
    FILES, NOW, POOL, add, add_claimed, attempt, email, ended, message,
    migrated, on_files, sqlite_store, store)

__all__ = ['migrated', 'store']     # the fixtures


@pytest.fixture
def file(tmp_path):
    return tmp_path / 'messages.db'


@pytest.fixture
def fresh(tmp_path):
    """A store of the default settings, and as many more as one opens."""
    opened = []

    def open_one(**options):
        opened.append(sqlite_store(tmp_path, **options))
        opened[-1].migrate()
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


# -- durability --------------------------------------------------------------

@pytest.mark.parametrize('version, mode', [
    ((3, 40, 1), 'delete'), ((3, 44, 5), 'delete'), ((3, 44, 6), 'wal'),
    ((3, 45, 0), 'delete'), ((3, 50, 6), 'delete'), ((3, 50, 7), 'wal'),
    ((3, 51, 0), 'delete'), ((3, 51, 2), 'delete'), ((3, 51, 3), 'wal'),
    ((3, 52, 0), 'wal'), ((3, 53, 4), 'wal'), ((4, 0, 0), 'wal')])
def test_wal_is_for_versions_that_lose_nothing_in_it(version, mode):
    assert journal_mode_for(version) == mode


# Who writes in WAL tries again by itself, after each millisecond.
@pytest.mark.parametrize('backend, synchronous, writer_waits', [
    ('sqlite-wal', 2, 1), ('sqlite-rollback', 3, 5000)])    # FULL, EXTRA
def test_what_is_committed_is_synced(
        fresh, backend, synchronous, writer_waits):
    database = fresh(**FILES[backend])._database

    def settings(connection):
        return [connection.exec_driver_sql(f'PRAGMA {name}').scalar()
                for name in ('synchronous', 'journal_mode', 'foreign_keys',
                             'secure_delete', 'busy_timeout')]

    expected = [synchronous, FILES[backend]['journal_mode'], 1, 1]
    assert database.write(settings) == [*expected, writer_waits]
    with database.read() as connection:
        assert settings(connection) == [*expected, 5000]


def test_a_file_changes_its_journal_mode_when_it_must(fresh):
    before = fresh(journal_mode='wal')
    one = add(before)
    before.close()
    for mode in ('delete', 'wal'):
        again = fresh(journal_mode=mode)
        assert again.message(POOL, one.id) == one
        again.close()


def test_a_mode_that_is_not_durable_is_refused(fresh):
    with pytest.raises(StoreUnavailable, match='not durable'):
        fresh(journal_mode='memory')


def test_a_new_database_is_told_of_once(tmp_path, caplog):
    """It may be that the old one's disk is just not there."""
    for _ in range(2):
        store = open_store(f'sqlite:///{tmp_path}/new.db')
        store.migrate()
        store.close()
    assert [record.levelname for record in caplog.records
            if 'new, empty database' in record.getMessage()] == ['WARNING']


def test_version_mode_and_path_are_logged_once(fresh, file, caplog):
    caplog.set_level(logging.INFO, 'stampman')
    one = fresh()
    one.check_writable(NOW)
    one.last_beat()
    told = [record.getMessage() for record in caplog.records
            if record.name == 'stampman.store._sqlite']
    assert len(told) == 1
    for fact in (driver.sqlite_version, 'journal_mode', str(file)):
        assert fact in told[0]


# -- the file ----------------------------------------------------------------

def test_the_file_is_its_owner_s_alone(fresh, file):
    add(fresh())
    files = list(file.parent.iterdir())
    assert file in files
    assert {stat.S_IMODE(one.stat().st_mode) for one in files} == {0o600}


def test_only_migrate_makes_a_file(tmp_path, file):
    store = sqlite_store(tmp_path)
    assert 'stampman migrate' in store.schema_problem()
    for use in (store.waiting, lambda: add(store)):
        with pytest.raises(StoreUnavailable, match='stampman migrate'):
            use()
    assert not file.exists()
    assert store.migrate() is True
    add(store)
    store.close()


def test_a_file_that_vanishes_is_not_made_anew(fresh, file):
    store = fresh()
    store.close()
    file.unlink()
    with pytest.raises(StoreUnavailable):
        add(store)
    assert not file.exists()


def test_the_directory_must_exist(tmp_path):
    store = open_store(f'sqlite:///{tmp_path}/no/such/messages.db')
    with pytest.raises(StoreUnavailable, match='directory'):
        store.migrate()


@pytest.mark.parametrize('url', [
    'sqlite://', 'sqlite:///', 'sqlite:///:memory:', 'sqlite:x.db',
    'sqlite:////a.db?mode=ro', 'mysql://localhost/x', 'postgres'])
def test_a_url_must_name_a_file(url):
    with pytest.raises(ConfigError, match='DATABASE_URL.*sqlite:///'):
        open_store(url)


def test_odd_paths_are_taken_as_they_are(tmp_path):
    directory = tmp_path / 'a b %20 ü#&'
    directory.mkdir()
    store = open_store(f'sqlite:///{directory}/m%.db')
    store.migrate()
    store.close()
    assert (directory / 'm%.db').stat().st_size


# -- damage ------------------------------------------------------------------

def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path, file):
    file.write_bytes(b'this is a text, and a longer one' * 200)
    before = file.read_bytes()
    store = sqlite_store(tmp_path)
    for use in (store.migrate, store.schema_problem, lambda: add(store)):
        with pytest.raises(StoreUnavailable, match='not an SQLite database'
                                                   '.*backup'):
            use()
    assert file.read_bytes() == before


def test_a_damaged_file_is_refused_with_instructions(fresh, file):
    store = fresh()
    for _ in range(50):
        add(store)
    store.close()
    whole = file.read_bytes()
    file.write_bytes(whole[:8192] + b'\xff' * (len(whole) - 8192))
    with pytest.raises(StoreUnavailable, match='damaged.*backup'):
        store.migrate()
    with pytest.raises(StoreUnavailable, match='damaged.*backup'):
        store.page(POOL)
    store.close()
    file.write_bytes(whole)         # the backup
    assert store.migrate() is False
    assert sum(store.waiting().values()) == 50


@pytest.mark.parametrize('left', ['-wal', '-journal'])
def test_what_is_left_of_a_file_that_is_gone_is_kept(tmp_path, file, left):
    beside = file.with_name(file.name + left)
    beside.write_bytes(b'committed messages')
    with pytest.raises(StoreUnavailable, match=f'{left} is there.*backup'):
        sqlite_store(tmp_path).migrate()
    assert not file.exists()
    assert beside.read_bytes() == b'committed messages'


def test_another_program_s_database_is_left_alone(tmp_path, file):
    other = sqlite3.connect(file)
    other.execute('CREATE TABLE theirs (x)')
    other.close()
    store = sqlite_store(tmp_path)
    assert 'another program' in store.schema_problem()
    with pytest.raises(StoreUnavailable, match='another program'):
        store.migrate()
    with store._database.read() as connection:
        tables = connection.exec_driver_sql(
            'SELECT name FROM sqlite_master').scalars().all()
    assert tables == ['theirs']
    store.close()


# -- the schema --------------------------------------------------------------

def version(store, number):
    store._database.write(lambda connection: connection.exec_driver_sql(
        f"UPDATE alembic_version SET version_num = '{number}'"))


def test_an_older_schema_says_what_to_run(fresh):
    store = fresh()
    version(store, '0000')
    assert 'run "stampman migrate"' in store.schema_problem()


def test_a_newer_schema_is_not_touched(fresh):
    store = fresh()
    version(store, '9999')
    assert 'newer' in store.schema_problem()
    with pytest.raises(StoreUnavailable, match='newer Stampman'):
        store.migrate()


def test_a_table_that_is_missing_names_the_remedy(fresh):
    store = fresh()
    store._database.write(
        lambda connection: connection.exec_driver_sql('DROP TABLE health'))
    with pytest.raises(StoreUnavailable, match='stampman migrate'):
        store.health()


def test_the_program_s_head_is_the_migrations_head():
    from alembic.script import ScriptDirectory
    script = ScriptDirectory.from_config(migrations.config())
    assert script.get_heads() == [schema.HEAD]


def test_the_migrations_make_exactly_the_schema(fresh, tmp_path):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    made = 'SELECT name, sql FROM sqlite_master WHERE tbl_name ' \
        "!= 'alembic_version' AND sql IS NOT NULL ORDER BY name"
    database = fresh()._database
    with database.read() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, schema.metadata) == []
        migrated = connection.exec_driver_sql(made).all()
    (tmp_path / 'declared').mkdir()
    other = sqlite_store(tmp_path / 'declared')._database
    other.create()
    other.write(schema.metadata.create_all)
    with other.read() as connection:
        declared = connection.exec_driver_sql(made).all()
    other.close()
    # A column that was added stands behind the constraints.
    assert [(name, sorted(re.findall(r'\w+', text)))
            for name, text in migrated] == [
        (name, sorted(re.findall(r'\w+', text))) for name, text in declared]


# -- what it costs -----------------------------------------------------------

@on_files
def test_an_accepted_message_costs_three_commits(store):
    statements = []
    store._database.write(lambda connection: (
        connection.connection.driver_connection.set_trace_callback(
            statements.append)))
    statements.clear()
    one, claim = add_claimed(store)
    begun = attempt()
    store.begin(claim, begun, NOW + 60)
    store.end(ended(begun, 'accepted'), one.id)
    assert statements.count('COMMIT') == 3


# -- troubles ----------------------------------------------------------------

def test_a_bug_stays_loud(fresh):
    store = fresh()
    with pytest.raises(OperationalError, match='syntax error'):
        store._database.write(
            lambda connection: connection.exec_driver_sql('SELEKT 1'))
    add(store)


def test_threads_wait_for_the_one_connection_that_writes(fresh):
    store = fresh(busy_timeout=0.05)
    inside, leave = threading.Event(), threading.Event()

    def hold():
        store._database.write(
            lambda connection: (inside.set(), leave.wait(10)))

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait(10)
    with pytest.raises(StoreUnavailable, match='busy') as refused:
        add(store)
    assert refused.value.retry_after == 2
    assert store.waiting() == {}        # reading goes on
    leave.set()
    holder.join()
    add(store)


def test_a_full_disk_takes_nothing_and_loses_nothing(fresh):
    fresh().close()
    store = fresh(pragmas={'max_page_count': 60})
    added = []
    with pytest.raises(StoreUnavailable, match='disk is full') as refused:
        for _ in range(500):
            added.append(add(store).id)
    assert refused.value.retry_after == 2 and len(added) > 5
    page, _ = store.page(POOL, limit=500)       # reading goes on
    assert {one.id for one in page} == set(added)
    store.close()
    store = fresh()
    assert sum(store.waiting().values()) == len(added)
    add(store)


def test_a_file_that_is_replaced_is_seen_before_the_next_write(fresh, file):
    one = fresh()
    one.add(message(), email())
    for part in file.parent.glob('messages.db*'):
        part.rename(file.parent / f'old-{part.name}')
    with pytest.raises(StoreUnavailable):
        one.add(message(), email())
    other = fresh()
    other.migrate()
    one.add(message(), email())
    assert len(other.page(POOL)[0]) == 1
