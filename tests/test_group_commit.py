"""Group commit: who writes at a time shares a transaction, and no trouble."""

import threading
from contextlib import contextmanager

import pytest

from stampman.helpers.exceptions import StoreUnavailable
from stampman.store._group_commit import MOST, GroupCommit, Undone

LONG = 10.0     # seconds after which a test that waits in vain fails


class Trouble(Exception):
    """What the database may raise."""


class Database:
    """A database that keeps lists of what each transaction wrote."""

    def __init__(self):
        self.committed = []
        self.open = None
        self.fails = {}         # moment: the error to raise there, once
        self.fails_next = {}    # what fails after the next commit

    def _fail(self, moment):
        if error := self.fails.pop(moment, None):
            raise error

    @contextmanager
    def transaction(self):
        self._fail('begin')
        self.open = []
        yield self
        self._fail('commit')
        self.committed.append(self.open)
        self.fails, self.fails_next = self.fails_next, {}

    @contextmanager
    def part(self, connection):
        before = [*self.open]
        try:
            yield
        except BaseException as error:
            if 'undo' in self.fails:
                raise Undone from error
            self.open = before
            raise

    def writes(self, what):
        return lambda connection: connection.open.append(what) or what


class Threads:
    """Calls that wait behind one which holds the transaction open."""

    def __init__(self, group):
        self.group = group
        self.results = {}
        self._inside, self._leave = threading.Event(), threading.Event()
        self._threads = []
        self._start('holds', self._hold)
        assert self._inside.wait(LONG)

    def _hold(self, connection):
        self._inside.set()
        assert self._leave.wait(LONG)

    def _start(self, name, work):
        def run():
            try:
                self.results[name] = self.group.run(work)
            except BaseException as error:
                self.results[name] = error

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self._threads.append(thread)

    def wait(self, name, work):
        """Start one, and see that it waits in its turn."""
        before = len(self.group._waiting)
        self._start(name, work)
        while len(self.group._waiting) == before:
            assert self._threads[-1].is_alive()

    def go(self):
        self._leave.set()
        for thread in self._threads:
            thread.join(LONG)
            assert not thread.is_alive()
        return self.results


@pytest.fixture
def database():
    return Database()


@pytest.fixture
def threads(database):
    return Threads(GroupCommit(database.transaction, database.part, LONG))


def boom(connection):
    connection.open.append('spoilt')
    raise Trouble('its own')


def test_those_who_wait_share_the_next_transaction(database, threads):
    for number in range(5):
        threads.wait(number, database.writes(number))
    results = threads.go()
    assert [results[number] for number in range(5)] == [*range(5)]
    assert database.committed == [[], [*range(5)]]


def test_one_that_fails_is_undone_alone(database, threads):
    threads.wait('before', database.writes('before'))
    threads.wait('fails', boom)
    threads.wait('after', database.writes('after'))
    results = threads.go()
    assert database.committed == [[], ['before', 'after']]
    assert (results['before'], results['after']) == ('before', 'after')
    assert isinstance(results['fails'], Trouble)


@pytest.mark.parametrize('moment', ['begin', 'commit'])
def test_a_trouble_of_the_transaction_is_everybody_s(
        database, threads, moment):
    for number in range(3):
        threads.wait(number, database.writes(number))
    database.fails_next = {moment: Trouble('of all')}
    results = threads.go()
    assert {str(results[number]) for number in range(3)} == {'of all'}
    assert database.committed == [[]]
    assert threads.group.run(database.writes('later')) == 'later'


def test_after_a_part_that_cannot_be_undone_nothing_is_committed(
        database, threads):
    """As where SQLite has undone the whole transaction by itself."""
    threads.wait('before', database.writes('before'))
    threads.wait('fails', boom)
    threads.wait('after', database.writes('after'))
    database.fails_next = {'undo': True}
    results = threads.go()
    assert database.committed == [[]]
    assert all(isinstance(results[name], Trouble)
               for name in ('before', 'fails', 'after'))


def test_what_one_failed_by_may_be_undone_with_the_group(database, threads):
    """A twin's key, say, which is not taken after all."""
    threads.wait('first', database.writes('key'))
    threads.wait('fails', boom)
    database.fails_next = {'commit': Trouble('of all')}
    results = threads.go()
    assert str(results['fails']) == 'of all'


def test_a_transaction_does_not_grow_for_ever(database, threads):
    for number in range(MOST + 2):
        threads.wait(number, database.writes(number))
    threads.go()
    assert [len(one) for one in database.committed] == [0, MOST, 2]


def test_whose_turn_does_not_come_is_told(database):
    threads = Threads(GroupCommit(database.transaction, database.part, 0.05))
    with pytest.raises(StoreUnavailable, match='busy') as refused:
        threads.group.run(database.writes('late'))
    assert refused.value.retry_after
    threads.go()
    assert database.committed == [[]]
    assert threads.group.run(database.writes('later')) == 'later'


class Ended(BaseException):
    """What ends a thread, as SystemExit does."""


def test_what_ends_the_one_who_leads_ends_nobody_else(database, threads):
    def ends(connection):
        raise Ended

    threads.wait('leads', ends)
    threads.wait('follows', database.writes('follows'))
    results = threads.go()
    assert isinstance(results['leads'], Ended)
    assert isinstance(results['follows'], StoreUnavailable)
    assert database.committed == [[]]
    assert threads.group.run(database.writes('later')) == 'later'
