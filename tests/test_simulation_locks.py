"""Transactions of the simulation that are in one another's way: who waits
for a lock waits in virtual time, and nobody waits for the dead."""

from collections import Counter
from contextlib import closing

import pytest

from stampman.helpers.exceptions import StoreUnavailable
from stampman.store._lease_clock import SERVER_TIME

from simulation.databases import PostgresServerDatabase
from simulation.scheduling import Killed, Scheduler

TAKE = "INSERT INTO rates VALUES ('x', 1, 0) " \
    'ON CONFLICT (pool) DO UPDATE SET free = rates.free + 1'


class Pretended:
    """A process that only has a database; `stays` in each transaction."""

    def __init__(self, databases, scheduler, stays=0.1):
        self.alive, self.frozen_until = True, 0.0
        self.met = Counter()
        self.scheduler, self.stays = scheduler, stays
        self.database = databases.take(self)

    def wait(self, seconds):
        self.scheduler.wait(seconds)

    def in_transaction(self):
        if not self.alive:
            raise Killed
        self.wait(self.stays)

    def meets(self, what):
        self.met[what] += 1

    def begins(self, after, told):
        """Take the row at a time; tell when that was done, or not."""
        def take():
            try:
                self.database.write(
                    lambda connection: connection.exec_driver_sql(TAKE))
            except StoreUnavailable as error:
                told.append(str(error))
            else:
                told.append(self.scheduler.time)

        self.scheduler.spawn('takes', self, take, after)


@pytest.fixture(scope='module')
def databases(postgres_server):
    with closing(PostgresServerDatabase(postgres_server)) as opened:
        yield opened


@pytest.fixture
def scheduler(databases):
    made = Scheduler('locks')
    databases.begin(made, 0)
    yield made
    databases.end()


@pytest.fixture
def start(databases, scheduler):
    """Start a process; all are dead at the end."""
    started = []

    def one(stays=0.1):
        started.append(Pretended(databases, scheduler, stays))
        return started[-1]

    yield one
    for process in started:
        if process.alive:
            process.alive = False
            databases.give_back(process.database)
    scheduler.end()


def taken(databases):
    return databases.rows('SELECT free FROM rates')[0][0]


def test_who_comes_second_waits_in_virtual_time(databases, scheduler, start):
    told = []
    first, second = start(stays=1.0), start(stays=0.1)
    first.begins(0.0, told)
    second.begins(1.5, told)
    scheduler.run(60.0)
    assert told[0] == 2.0 < told[1] < 2.3
    assert (taken(databases), second.met) == (2, {'waits for a lock': 1})


def test_who_waits_for_too_long_gives_up(databases, scheduler, start):
    told = []
    first, second = start(stays=5.0), start()
    first.begins(0.0, told)
    second.begins(6.0, told)
    scheduler.run(60.0)
    assert told == [
        'the database is busy: something is locked for too long', 10.0]
    assert taken(databases) == 1


def test_nobody_waits_for_the_dead(databases, scheduler, start):
    told = []
    first, second = start(stays=3.0), start()
    first.begins(0.0, told)
    second.begins(3.5, told)
    scheduler.run(4.0)
    first.alive = False
    databases.give_back(first.database)
    scheduler.run(4.5)
    assert len(told) == 1 and taken(databases) == 1
    assert first.met == {'end in a transaction': 1}


def test_a_frozen_process_loses_its_transaction(databases, scheduler, start):
    told = []
    first, second = start(stays=1.0), start()
    first.begins(0.0, told)
    scheduler.run(1.5)
    first.frozen_until = 100.0
    second.begins(12.0, told)
    scheduler.run(200.0)
    assert told[0] < 14.0 and \
        'a transaction waited too long' in told[1]
    assert taken(databases) == 1
    assert first.met == {'transaction idles for too long': 1}


def test_the_server_shows_virtual_time(databases, scheduler, start):
    process = start()
    seen = []

    def look():
        with process.database.read() as connection:
            seen.append(connection.info[SERVER_TIME])

    for at in (10.0, 25.0):
        scheduler.spawn('looks', process, look, at)
    scheduler.run(60.0)
    assert seen[1] - seen[0] == pytest.approx(15.0, abs=1e-5)
