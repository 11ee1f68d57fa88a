"""SQLite is read by connections that are held, not made for each look."""

from contextlib import ExitStack

import pytest
from sqlalchemy import event, text
from sqlalchemy.pool import Pool

from stampman.helpers.exceptions import NotFound, StoreUnavailable
from stampman.store._sqlite import READERS, SqliteDatabase
from stampman.store.sql import SqlStore

from backends import NOW, POOL, email, message

LOOKS = 20


class Watched(SqliteDatabase):
    """Counts how often it is looked into."""

    looks = 0

    def read(self):
        self.looks += 1
        return super().read()


@pytest.fixture
def database(tmp_path):
    return Watched(tmp_path / 'messages.db', busy_timeout=0.05)


@pytest.fixture
def store(database):
    store = SqlStore(database)
    store.migrate()
    yield store
    store.close()


@pytest.fixture
def made(store):
    """How many connections have been made."""
    made = []

    def note(connection, _):
        made.append(connection)

    event.listen(Pool, 'connect', note)
    yield made
    event.remove(Pool, 'connect', note)


def test_one_who_reads_again_and_again_makes_one_connection(store, made):
    one = message()
    store.add(one, email())
    made.clear()
    for _ in range(LOOKS):
        assert store.message(POOL, one.id).id == one.id
        with pytest.raises(NotFound):
            store.message(POOL, 'another')
    assert len(made) == 1


def test_each_block_sees_what_was_written_before_it(store):
    for count in range(1, 4):
        store.add(message(), email())
        assert sum(store.waiting().values()) == count


def test_a_connection_that_failed_is_not_used_again(store, database, made):
    made.clear()
    with pytest.raises(StoreUnavailable), database.read() as connection:
        connection.execute(text('SELECT * FROM nowhere'))
    store.waiting()
    assert len(made) == 2


def test_who_finds_all_of_them_in_use_is_told_so(store, database):
    with ExitStack() as others:
        for _ in range(READERS):
            others.enter_context(database.read())
        with pytest.raises(StoreUnavailable, match='too many wait'):
            store.waiting()
    assert store.waiting() == {}


def test_a_backlog_is_claimed_without_a_look_before_each(store, database):
    """A look takes a transaction; who has found some finds more."""
    for _ in range(3):
        store.add(message(), email())
    database.looks = 0
    claimed = [store.claim_due('worker', NOW, NOW + 60) for _ in range(6)]
    assert [len(found) for found in claimed] == [1, 1, 1, 0, 0, 0]
    assert database.looks == 3      # the first, and those behind the last
