"""The simulation is tested too: it must find the program broken, in each of
many ways. `python -m simulation --mutants` in tests/ prints the table."""

import subprocess
import sys
from pathlib import Path

import pytest

from simulation.mutants import MUTANTS
from simulation.mutating import changed

TESTS = Path(__file__).parent


def test_each_mutant_still_changes_the_program():
    assert len({one.name for one in MUTANTS}) == len(MUTANTS) >= 20
    for mutant in MUTANTS:
        for path, text in changed(mutant).items():
            compile(text, path, 'exec')


@pytest.mark.long
@pytest.mark.parametrize(
    'mutant', MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_a_mutant_is_found(hunts, mutant):
    assert hunts[mutant.name].result().seed is not None


@pytest.mark.long
def test_a_seed_gives_the_same_run_in_any_process():
    printed = {subprocess.run(
        [sys.executable, '-m', 'simulation', '--seed', '5', '--trace'],
        cwd=TESTS, capture_output=True, text=True, check=True,
        env={'PYTHONPATH': str(TESTS.parent), 'PYTHONHASHSEED': seed},
        timeout=120).stdout for seed in ('1', '2', '3')}
    assert len(printed) == 1
