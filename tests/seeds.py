"""Running seeds of the simulation in a test."""

from collections import Counter
from collections.abc import Iterable

import pytest

from simulation.__main__ import report
from simulation.plans import make
from simulation.run import Simulation

FAULTS = {'kills', 'freezes', 'commits lost', 'store outages', 'stops',
          'clock jumps', 'poison', 'proofs', 'replayed answers', 'rescues',
          'key with another body', 'answered 503'}


def run_all(simulation: Simulation, seeds: Iterable[int],
            policy: str) -> Counter:
    """Return what happened, and how often; the test fails at the first seed
    that breaks an invariant."""
    counts = Counter()
    for seed in seeds:
        plan = make(seed, policy)
        result = simulation.run(plan)
        counts.update(result.counts)
        if result.violations:
            pytest.fail(report(plan, result), pytrace=False)
    return counts
