"""Random SIGKILLs and SIGSTOPs of processes that serve clients.

A seed makes the same choices again. When each falls is up to the machine.
"""

import os
import random
import signal
import threading
import time
from contextlib import suppress

from stampman.helpers.delivery import Clock
from stampman.simulator import Simulator

from crashing.program import replace_text, wall_clock
from crashing.running import POOLS, Program, Site, until

HALF_A_MINUTE = 30.0    # seconds
CLIENTS = 8
TRIES = 4               # of one email, under one key
PATIENCE = 90.0         # seconds until all must be quiet again
# The clock runs ahead, so that nobody rests or backs off for real minutes.
AHEAD = 45.0            # seconds a second
FREEZE = 4.0            # seconds, longer than any lease here
TIMING = {'lease': 2.0, 'recording': 1.0, 'grace': 0.5}
FAULTS = (
    '*:reset=before,percent=5', '*:error=UNAVAILABLE,percent=5',
    '*:status=503,percent=3', '*:hang=2,percent=2',
    '*:hang=2,took=true,percent=2', '*:close,percent=3',
    '*:close,took=true,percent=4', '*:slow=0.05,percent=30')
PROGRAMS = {'web-1': 'web', 'web-2': 'web',
            'worker-1': 'worker', 'worker-2': 'worker'}


class Chaos:
    """Clients that send, somebody who kills, and a clock that runs ahead,
    each in threads of their own until `over`."""

    def __init__(self, site, programs, seed, wrong):
        self.site, self.programs = site, programs
        self.seed, self.wrong = seed, wrong
        self.kills = self.freezes = 0
        self.over = threading.Event()
        self.webs = [one for one in programs if one.kind == 'web']
        works = [(self.client, number) for number in range(CLIENTS)]
        works += [(self.killer, -1), (self.turn_on, -2)]
        self.threads = [threading.Thread(target=work, args=[
            random.Random(f'{seed} {number}'), number])
            for work, number in works]

    def run(self, seconds):
        for thread in self.threads:
            thread.start()
        self.over.wait(seconds)
        self.over.set()
        for thread in self.threads:     # the timers too
            thread.join()

    def client(self, chance, number):
        """Send one email after another; ask again where no answer came, if
        there is a key by which it can be told from a new one."""
        count = 0
        while not self.over.wait(chance.uniform(0.0, 0.1)):
            count += 1
            subject = f'Order {number}-{count}'
            pool = chance.choice(list(POOLS.values()))
            key = chance.choice([None, f'key of {subject}'])
            for _ in range(TRIES if key else 1):
                told = chance.choice(self.webs).send(pool, subject, key=key)
                if told.id or self.over.wait(chance.uniform(0.1, 0.5)):
                    break

    def killer(self, chance, _):
        while not self.over.wait(chance.uniform(0.4, 1.6)):
            victim = chance.choice(self.programs)
            act = chance.choice([self.kill_all, self.kill_all,
                                 self.kill_one, self.freeze])
            act(victim)

    def kill_all(self, victim):
        victim.kill()
        victim.start(wait=False)
        self.kills += 1

    def kill_one(self, victim):
        """Leave it to gunicorn's master to start another."""
        if victim.kind == 'worker' or victim.pid_now is None:
            return self.kill_all(victim)
        with suppress(ProcessLookupError):      # it is not there again yet
            os.kill(victim.pid_now, signal.SIGKILL)
            self.kills += 1

    def freeze(self, victim):
        if not victim.signal(signal.SIGSTOP):
            return
        self.freezes += 1
        timer = threading.Timer(FREEZE, victim.signal, [signal.SIGCONT])
        self.threads.append(timer)
        timer.start()

    def turn_on(self, *_):
        while not self.over.wait(1.0):
            turn_on(self.wrong)

    def figures(self) -> dict[str, int]:
        return {'kills': self.kills, 'freezes': self.freezes}


def turn_on(wrong):
    replace_text(wrong, str(float(wrong.read_text()) + AHEAD))


def recover(site, programs, wrong):
    """End the faults, start all anew, and wait until nothing is left."""
    for program in programs:
        program.kill()
    site.simulator.faults.clear()
    for program in programs:
        program.start(wait=False)

    def quiet():
        turn_on(wrong)
        time.sleep(0.5)
        return site.is_quiet()

    until(quiet, lambda: programs[-1].log, patience=PATIENCE)
    for program in programs:
        program.wait_ready()


def run_chaos(folder, capsys, make=Chaos, url=None):
    """Run half a minute of the chaos that `make` makes, in a site with a
    store at `url`; print the figures, have the oracle judge, and return
    them."""
    seed = int(os.environ.get('CRASHING_SEED') or random.randrange(10 ** 6))
    wrong = folder / 'clock'
    replace_text(wrong, '0')
    clock = Clock(lambda: wall_clock(wrong), time.monotonic)
    with Simulator(clock=clock, seed=seed, faults=FAULTS) as simulator, \
            Site(folder, simulator, url=url) as site:
        programs = [
            Program(site, kind, name, timing=TIMING, clock=str(wrong),
                    worker='off')
            for name, kind in PROGRAMS.items()]
        try:
            for program in programs:
                program.start()
            chaos = make(site, programs, seed, wrong)
            chaos.run(HALF_A_MINUTE)
            recover(site, programs, wrong)
            for number, pool in enumerate(POOLS.values()):
                programs[0].send(pool, f'Canary {number}', canary=True)
            recover(site, programs, wrong)
            for program in programs:
                assert program.stop() == 0, program.log[-2000:]
        finally:
            for program in programs:
                program.end()
        figures = {'seed': seed, **chaos.figures(),
                   **site.history().figures()}
        with capsys.disabled():
            print('\n' + ', '.join(
                f'{name} {count}' for name, count in figures.items()))
        site.judge()
    return figures
