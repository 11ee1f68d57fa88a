"""One process of ours: a gateway on the real store, its threads, its end.

All that it asks of the world goes through `point`, `wait` and `Store`: there
it may be killed or frozen, and there the dead are turned away.
"""

import random
from collections.abc import Callable

from stampman.gateway import Gateway, Surroundings
from stampman.helpers.exceptions import CommitUnknown, StoreUnavailable
from stampman.store.sql import SqlStore
from stampman.worker import Worker

from simulation.scheduling import Killed
from simulation.service import SimulatedService

IDLE = 4.0              # seconds between two looks of a worker
LOOKS_ANYWAY = 0.01     # of the looks when nothing can be due
WRITES = frozenset({
    'add', 'add_all', 'claim_due', 'begin', 'end', 'finish', 'change',
    'hasten', 'erase', 'put_health'})


class SimulatedGateway(Gateway):
    """The gateway with services of ours in its pools."""

    def __init__(self, config, surroundings, store, process):
        super().__init__(config, None, surroundings, store)
        self.pools = {
            domain: pool._replace(services=tuple(
                SimulatedService(name, settings, domain, process,
                                 process.world.providers[name])
                for name, settings in pool.config.services.items()))
            for domain, pool in self.pools.items()}


class Store:
    """The real store, as one process has it: it may fail, and die."""

    def __init__(self, process, store):
        self._process = process
        self._store = store

    def __getattr__(self, name):
        operation = getattr(self._store, name)

        def ask(*args, **options):
            return self._process.ask(name, operation, args, options)

        setattr(self, name, ask)
        return ask


class Process:
    """One process; after its death another one takes its place."""

    def __init__(self, world, name: str, generation: int, workers: int):
        self.world = world
        self.name = f'{name}.{generation}'
        self.place, self.generation, self.workers = name, generation, workers
        self.alive = True
        self.stopping = False
        self.frozen_until = 0.0
        self.clock = world.scheduler.clock()
        self._chance = random.Random(f'{world.plan.seed}/{self.name}')
        self.database = world.databases.take(self)
        self.gateway = SimulatedGateway(
            world.config, Surroundings(
                self.clock, self._chance.random, self._pause, world.new_id,
                self.name, world.timing), Store(self, SqlStore(
                    self.database, self.clock)), self)
        self.gateway.deliver_at_most(lambda: 2)
        self.worker = Worker(self.gateway, workers)

    def start(self) -> None:
        """Run its worker's threads; a web process without any has none."""
        if not self.workers:
            return
        timing = self.world.timing
        for number in range(self.workers):
            self.spawn(f'worker-{number}', lambda: self._work(
                self._step, IDLE))
        for name, work in (('rounds', self.worker.make_rounds),
                           ('probes', self.gateway.probe_refused)):
            self.spawn(name, lambda work=work: self._work(
                work, timing.rounds))

    def spawn(self, name: str, run: Callable) -> None:
        """Run something in a thread of this process."""
        self.world.scheduler.spawn(
            f'{self.name}/{name}', self, run,
            self._chance.uniform(0.0, 1.0))

    def die(self) -> None:
        """Be no more; the connections close, as any dead process's do."""
        self.alive = False
        self.world.databases.give_back(self.database)

    # -- what its threads do -------------------------------------------------

    def _step(self):
        if not self.world.may_be_due() \
                and self._chance.random() > LOOKS_ANYWAY:
            return False
        return self.worker.step()

    def _work(self, work, idle):
        """What `Worker` does in a thread, with the waiting simulated."""
        while not self.stopping:
            try:
                busy = work()
            except StoreUnavailable:
                busy = False
            except Exception as error:
                self.world.broke(self, error)
                busy = False
            if not busy:
                self.wait(idle * self._chance.uniform(0.5, 1.5)
                          * (2 if self.world.healed else 1))

    # -- what it asks of the world -------------------------------------------

    def point(self, name: str, about: str = '') -> None:
        """Come to a point where anything may happen to us."""
        self.world.point(self, name, about)

    def wait(self, seconds: float) -> None:
        self._live()
        self.world.scheduler.wait(seconds)

    def in_transaction(self) -> None:
        """Come to a statement of a transaction that is open."""
        self.point(f'in {self.world.scheduler.current.asks}')

    def meets(self, what: str) -> None:
        """Note what befalls a transaction of ours."""
        self.world.history.counts[what] += 1
        self.world.note(self, what.upper())

    def _pause(self, seconds):
        self.point('pause')
        self.wait(seconds)

    def _live(self):
        if not self.alive:
            raise Killed

    def ask(self, name: str, operation: Callable, args: tuple,
            options: dict):
        """Ask the store, which may be out, or lose a commit or its end."""
        self._live()
        world = self.world
        about = _about(name, args)
        self.point(f'before {name}', about)
        lost = world.commit_lost(name)
        if lost == 'lose_before' or world.store_is_out():
            self.world.note(self, f'FAILS {name}', about)
            raise self._failure(lost)('simulated: nothing happened')
        began, world.scheduler.current.asks = world.scheduler.time, name
        try:
            found = operation(*args, **options)
        finally:
            if name in WRITES:
                world.changed()
        world.leases.after(name, args, found, began)
        if name == 'add_all':
            world.submitted.update({
                one.message.id: int(one.email.subject) for one in args[0]})
        if name != 'claim_due' or found:
            self.point(f'after {name}', _about(name, args, found))
        if lost:
            self.world.note(self, f'LOSES THE END OF {name}', about)
            raise self._failure(lost)('simulated: it has happened')
        return found

    def _failure(self, lost):
        """Some databases know that an answer is lost, others just fail."""
        return CommitUnknown if lost and self.world.plan.seed % 2 \
            else StoreUnavailable


def _about(name: str, args: tuple, found=None) -> str:
    """Return what a step in the trace says of a call of the store."""
    if name == 'claim_due':
        return ' '.join(one.message.id for one in found or ())
    if name == 'add_all':
        return ' '.join(one.message.id for one in args[0])
    if name == 'end':
        attempt, message_id = args[:2]
        return f'{message_id} {attempt.id[-4:]} {attempt.outcome.kind}'
    if name == 'begin':
        claim, attempt = args[:2]
        return f'{claim.message_id} {attempt.id[-4:]} by {attempt.service}' \
            + (f', replays {attempt.replays[-4:]}' if attempt.replays else '')
    if name == 'finish':
        return f'{args[0].message_id} {args[1]}: {found}'
    if name == 'change':
        return f'{args[1]} {args[3]}'
    if name == 'put_health':
        return f'{args[0].key} {args[0].state["why"]}: {found}'
    return ' '.join(one for one in args if isinstance(one, str))
