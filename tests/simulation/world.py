"""The world of one run: machine, store, providers, processes, faults."""

from collections.abc import Callable
from typing import Any

from stampman.helpers.config import Config, ServiceSettings
from stampman.helpers.delivery import Timing

from simulation.databases import Databases
from simulation.journal import Journal
from simulation.leases import Leases
from simulation.ledger import History, Ledger
from simulation.plans import HEAL, SERVICES, Plan
from simulation.process import Process
from simulation.provider import Provider
from simulation.scheduling import Killed, Scheduler

DOMAIN = 'shop.example'
# Name: how many worker threads it has.
PLACES = {'web-1': 1, 'web-2': 0, 'worker-1': 2, 'worker-2': 1}
RECORDED_WITHIN = 60.0      # seconds, by a process that is well
SLOW = 0.03     # of all steps take up to three seconds
# Steps that are not told: they would hide the others.
NOISE = frozenset(
    f'{when} {what}' for when in ('before', 'after') for what in (
        'beat', 'bring_back', 'forget_keys', 'forget_bodies',
        'forget_messages', 'health')) | {'before claim_due'}
RESTARTED_WITHIN = 30.0     # seconds


def config_of(plan: Plan) -> Config:
    """Return the config of a plan, through the real models.

    The services are not enabled: the gateway looks for none of its own, and
    that of the simulation puts its own in their place.
    """
    return Config.model_validate({'pools': [{
        'domain': DOMAIN, 'api_key': 'a-key-that-is-long-enough',
        'on_uncertain': plan.policy, 'uncertain_wait': plan.uncertain_wait,
        'services': {
            name: ServiceSettings(priority=priority, enabled=False)
            for priority, name in enumerate(SERVICES, 1)}}]})


class World:
    """What there is, and what is done to it."""

    def __init__(self, plan: Plan, databases: Databases):
        self.plan = plan
        self.scheduler = Scheduler(f'{plan.seed}/{plan.policy}')
        self.history = History()
        self.ledger = Ledger()
        self.databases = databases
        databases.begin(self.scheduler, plan.seed)
        self.journal = Journal(databases)
        self.leases = Leases(self.scheduler, self.journal, self.history)
        self.config = config_of(plan)
        self.timing = Timing(rounds=plan.rounds)
        self.providers = {name: Provider(self, name) for name in SERVICES}
        self.healed = False
        self.is_calm = False        # also what is poison has lost its force
        self.poison_kills = {}
        self.fields = {}            # what clients send, again each time
        self.on_taken = lambda entry: None
        self.heard = {}         # attempt: by whom and when its answer was
        self.submitted = {}         # message: the number of its letter
        self._ids = 0
        self._pending = list(plan.faults)
        self._out_until = 0.0
        self._due_at = 0.0
        self.processes = {}
        for place in PLACES:
            self.start(place, 1)

    # -- processes -----------------------------------------------------------

    def start(self, place: str, generation: int) -> None:
        process = self.processes[place] = Process(
            self, place, generation, PLACES[place])
        process.start()

    def kill(self, process: Process, why: str) -> None:
        """End a process, from inside or outside; another one will start."""
        if not process.alive:
            return
        self.note(process, 'KILLED', why)
        self.history.counts['kills'] += 1
        self.forget(process)
        process.die()
        self.scheduler.call(
            self.scheduler.random.uniform(0.5, RESTARTED_WITHIN),
            lambda: self.start(process.place, process.generation + 1))

    def close(self) -> None:
        for process in self.processes.values():
            if process.alive:
                process.die()
        self.scheduler.end()
        self.databases.end()

    def some_process(self) -> Process | None:
        """Return a process that serves requests, if one is alive."""
        alive = [one for one in self.processes.values()
                 if one.alive and not one.stopping
                 and one.place.startswith('web')]
        return self.scheduler.random.choice(alive) if alive else None

    def account(self, number: int) -> str:
        """Return the health's key of a service, by its priority."""
        process = next(iter(self.processes.values()))
        return process.gateway.pools[DOMAIN].services[number].account

    # -- what comes to a step ------------------------------------------------

    def point(self, process: Process, name: str, about: str) -> None:
        """Let `process` come to a point: faults strike, time passes."""
        if not process.alive:
            raise Killed
        if name not in NOISE:
            self.note(process, name, about)
        self.history.counts['steps'] += 1
        if self._pending and self._pending[0].at <= self.scheduler.time:
            self._strike(process, name)
        chance = self.scheduler.random.random()
        process.wait(chance * 0.01 if chance > SLOW else chance * 100)

    def _strike(self, process, name):
        for fault in self._pending:
            if fault.at > self.scheduler.time:
                return
            if fault.kind in _STRIKES and fault.point in ('any', name):
                self._pending.remove(fault)
                _STRIKES[fault.kind](self, process, fault)
                return

    def _kill(self, process, fault):
        self.kill(process, f'fault {fault.number}')

    def _freeze(self, process, fault):
        self.history.counts['freezes'] += 1
        self.forget(process)
        process.frozen_until = min(
            self.scheduler.time + fault.seconds, HEAL)
        self.note(process, 'FROZEN', f'for {fault.seconds:g} s')

    def _outage(self, process, fault):
        self.history.counts['store outages'] += 1
        self._out_until = self.scheduler.time + fault.seconds
        self.note(process, 'STORE OUT', f'for {fault.seconds:g} s')

    def _jump(self, process, fault):
        self.history.counts['clock jumps'] += 1
        self.scheduler.jump(fault.seconds)
        self.changed()
        self.note(process, 'CLOCK JUMPS', f'by {fault.seconds:g} s')

    def _stop(self, process, fault):
        """SIGTERM, and SIGKILL when the time for draining is over."""
        self.history.counts['stops'] += 1
        self.note(process, 'SIGTERM')
        process.stopping = True
        process.gateway.stop()
        self.scheduler.call(
            self.timing.drain, lambda: self.kill(process, 'drained'))

    def _reboot(self, process, fault):
        self.history.counts['reboots'] += 1
        self.note(process, 'THE MACHINE REBOOTS')
        for one in list(self.processes.values()):
            self.kill(one, 'reboot')
        self.scheduler.reboot()
        if self.databases.on_machine:
            self.leases.end_all()

    def commit_lost(self, name: str) -> str:
        """Return which end of this commit is lost, if any."""
        for fault in self._pending:
            if fault.at > self.scheduler.time:
                break
            if fault.kind.startswith('lose') and fault.point == name:
                self._pending.remove(fault)
                self.history.counts['commits lost'] += 1
                return fault.kind
        return ''

    def store_is_out(self) -> bool:
        return self.scheduler.time < self._out_until

    def heal(self) -> None:
        """End all faults; who is dead comes back by itself."""
        self.healed = True
        self._pending.clear()
        self._out_until = 0.0
        if self.scheduler.jumped:
            self.scheduler.jump(-self.scheduler.jumped)
        self.changed()

    # -- what is due ---------------------------------------------------------

    def changed(self) -> None:
        """Something was written: what is due may be another."""
        self._due_at = None

    def may_be_due(self) -> bool:
        """Whether a worker that looks may find something: looking for
        nothing would take most of a run."""
        if self._due_at is None:
            self._due_at = self.journal.next_due(self.scheduler)
        return self._due_at <= self.scheduler.time

    # -- what is seen --------------------------------------------------------

    def note(self, process: Process, what: str, about: str = '') -> None:
        self.history.note(self.scheduler.time, process.name, what, about)

    def broke(self, process: Process, error: Exception) -> None:
        self.history.violated(
            'no bug is met', f'{process.name}: {error!r}')

    def took(self, entry) -> None:
        self.history.note(entry.time, entry.service, 'takes',
                          f'{entry.message_id} for {entry.address}')
        self.ledger.take(entry)
        if len(self.ledger.of(entry.message_id, entry.address)) == 1:
            self.on_taken(entry)

    def poisoned(self, process: Process, letter, message_id: str) -> None:
        """The message ends the process that sends it."""
        self.poison_kills[message_id] = self.poison_kills.get(
            message_id, 0) + 1
        self.history.counts['poison'] += 1
        self.kill(process, f'by letter {letter.number}')
        raise Killed

    def first_byte(self, process: Process, service: str, asked: dict) -> None:
        """A provider call begins: what was committed before it counts."""
        self.history.counts['provider calls'] += 1
        self.note(process, 'first byte', f'{service} {asked["message"]}')
        wrong = self.journal.objections(
            asked['message'], asked['attempt'], process.name,
            self.scheduler.latest_wall())
        for invariant, detail in wrong:
            self.history.violated(invariant, detail)

    def hear(self, process: Process, asked: dict) -> None:
        """A process has an acceptance in its hands."""
        self.heard[asked['attempt']] = process, self.scheduler.time

    def forget(self, process: Process) -> None:
        """It may not come to record what it heard last."""
        since = self.scheduler.time - RECORDED_WITHIN
        for attempt, (hearer, at) in list(self.heard.items()):
            if hearer is process and at > since:
                del self.heard[attempt]

    def new_id(self, now: float) -> str:
        """Return a UUID v7 of that time; the rest counts."""
        self._ids += 1
        digits = f'{int(now * 1000):012x}7000{0x8000 << 48 | self._ids:016x}'
        return (f'{digits[:8]}-{digits[8:12]}-{digits[12:16]}-'
                f'{digits[16:20]}-{digits[20:]}')


_STRIKES: dict[str, Callable[..., Any]] = {
    'kill': World._kill, 'freeze': World._freeze, 'outage': World._outage,
    'jump': World._jump, 'stop': World._stop, 'reboot': World._reboot}
