"""The whole of Stampman but its doors, under faults, in virtual time.

`tests/simulation` says how it works. What fails here prints its trace and the
command that shows it again; `make simulate SEEDS=20000` runs more.
"""

from collections import Counter

import pytest

from simulation.databases import databases_of
from simulation.plans import POLICIES, make
from simulation.run import Simulation
from simulation.shrinking import keep, shrink

from seeds import FAULTS, run_all

SEEDS = range(100)      # under each policy


@pytest.fixture(scope='module')
def simulation():
    with databases_of('sqlite') as databases:
        yield Simulation(databases)


@pytest.fixture(scope='module')
def counts():
    """What happened in all runs of this module, and how often."""
    return Counter()


@pytest.mark.parametrize('policy', POLICIES)
def test_nothing_is_lost_and_nothing_silently_doubled(
        simulation, counts, policy):
    counts.update(run_all(simulation, SEEDS, policy))


def test_the_faults_really_happen(simulation, counts):
    if not counts:      # this test is run alone
        for seed in SEEDS[:20]:
            counts.update(simulation.run(make(seed, 'failover')).counts)
    assert FAULTS <= set(counts)


@pytest.mark.parametrize('policy', POLICIES)
def test_a_seed_gives_the_same_run_each_time(simulation, policy):
    first, again, other = (
        simulation.run(make(seed, policy), whole=True)
        for seed in (3, 3, 4))
    assert first.lines == again.lines
    assert first.digest == again.digest != other.digest


class Pretended:
    """Runs no plan, and finds it broken where two parts come together."""

    def run(self, plan):
        broken = {fault.number for fault in plan.faults} >= {2, 5} \
            and any(call.number == 1 for call in plan.calls)
        return type('Result', (), {'violations': [
            type('Violation', (), {'invariant': 'I1'})] if broken else []})


def test_the_smallest_plan_that_fails_is_found():
    plan = next(plan for plan in (make(n, 'hold') for n in range(50))
                if len(plan.faults) > 8 and len(plan.calls) > 4)
    least, parts, _ = shrink(Pretended(), plan)
    assert {fault.number for fault in least.faults} == {2, 5}
    assert [call.number for call in least.calls] == [1]
    assert not least.troubles and not least.acts
    assert keep(plan, parts) == least
