"""The simulation on PostgreSQL, whose transactions are open side by side.

`make simulate STORE=postgres SEEDS=20000` runs more.
"""

from contextlib import closing

import pytest

from simulation.databases import PostgresServerDatabase
from simulation.plans import POLICIES, make
from simulation.run import Simulation

from seeds import FAULTS, run_all

FEW = range(2)          # seeds, under each policy
MANY = range(40)


@pytest.fixture(scope='module')
def simulation(postgres_server):
    with closing(PostgresServerDatabase(postgres_server)) as databases:
        yield Simulation(databases)


@pytest.mark.parametrize('policy', POLICIES)
def test_nothing_is_lost_and_nothing_silently_doubled(simulation, policy):
    assert run_all(simulation, FEW, policy)['provider calls']


@pytest.mark.long
@pytest.mark.parametrize('policy', POLICIES)
def test_nor_is_it_in_many_runs(simulation, policy):
    counts = run_all(simulation, MANY, policy)
    assert FAULTS | {
        'reboots', 'waits for a lock', 'wait for a lock is too long',
        'transaction idles for too long', 'end in a transaction'
    } <= set(counts)


def test_a_seed_gives_the_same_run_each_time(simulation):
    first, again = (simulation.run(make(22, 'hold'), whole=True)
                    for _ in range(2))
    assert first.counts['waits for a lock']
    assert first.lines == again.lines
    assert first.digest == again.digest
