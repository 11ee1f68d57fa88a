"""Half a minute of random SIGKILLs and SIGSTOPs under load, then the oracle.

The run prints its seed; CRASHING_SEED makes the same choices again. When
each falls is up to the machine.
"""

import os
import random
import time

import pytest

from stampman.helpers.delivery import Clock
from stampman.simulator import Simulator

from crashing.chaos import FAULTS, PROGRAMS, TIMING, Chaos, recover
from crashing.program import replace_text, wall_clock
from crashing.running import POOLS, Program, Site

CHAOS = 30.0            # seconds


@pytest.mark.long
def test_half_a_minute_of_kills_loses_nothing(tmp_path, capsys):
    seed = int(os.environ.get('CRASHING_SEED') or random.randrange(10 ** 6))
    wrong = tmp_path / 'clock'
    replace_text(wrong, '0')
    clock = Clock(lambda: wall_clock(wrong), time.monotonic)
    with Simulator(clock=clock, seed=seed, faults=FAULTS) as simulator, \
            Site(tmp_path, simulator) as site:
        programs = [
            Program(site, kind, name, timing=TIMING, clock=str(wrong),
                    worker='off')
            for name, kind in PROGRAMS.items()]
        try:
            for program in programs:
                program.start()
            chaos = Chaos(site, programs, seed, wrong)
            chaos.run(CHAOS)
            recover(site, programs, wrong)
            for number, pool in enumerate(POOLS.values()):
                programs[0].send(pool, f'Canary {number}', canary=True)
            recover(site, programs, wrong)
            for program in programs:
                assert program.stop() == 0, program.log[-2000:]
        finally:
            for program in programs:
                program.end()
        figures = {'seed': seed, 'kills': chaos.kills,
                   'freezes': chaos.freezes,
                   **site.history().figures()}
        with capsys.disabled():
            print('\n' + ', '.join(
                f'{name} {count}' for name, count in figures.items()))
        site.judge()
    assert figures['kills'] > 15 and figures['acknowledged'] > 50
