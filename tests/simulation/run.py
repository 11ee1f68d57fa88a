"""One run of a plan, from its first letter to the verdict."""

import hashlib
from typing import NamedTuple

from simulation.clients import Clients
from simulation.databases import Databases, in_silence
from simulation.invariants import check, unsettled
from simulation.ledger import Violation
from simulation.plans import HEAL, Plan
from simulation.world import World

LONGEST = 4 * 3600.0        # virtual seconds until all must be quiet
AT_LEAST = 240.0    # virtual seconds after the faults, for a person's acts
CANARIES_WITHIN = 120.0     # virtual seconds


class Result(NamedTuple):
    """What came of a run; `digest` is of all steps and the whole store,
    which is one of the kind `store`."""

    violations: tuple[Violation, ...]
    counts: dict[str, int]
    lines: list[str]
    digest: str
    store: str


def replay_command(plan: Plan, store: str, parts: str | None = None) -> str:
    """Return what shows a run again, from the first step."""
    only = f" --keep '{parts}'" if parts else ''
    return f'cd tests && python -m simulation --store {store} ' \
        f'--seed {plan.seed} --policy {plan.policy} --trace{only}'


class Simulation:
    """Runs plans, each on a database that is as good as new."""

    def __init__(self, databases: Databases):
        self._databases = databases

    def run(self, plan: Plan, whole: bool = False) -> Result:
        """Run a plan and hold it against every invariant; with the `whole`
        of its trace, or the last steps that matter."""
        with in_silence():
            world = World(plan, self._databases)
            try:
                return _run(world, whole)
            finally:
                world.close()


def _run(world, whole):
    clients = Clients(world)
    world.on_taken = clients.event_of
    clients.begin()
    world.scheduler.run(HEAL, lambda: bool(world.history.violations))
    world.heal()
    if not world.history.violations:
        _until_quiet(world, clients)
    world.history.violations += check(world, clients)
    dump = world.journal.dump()
    steps = '\n'.join(world.history.lines(whole=True))
    return Result(
        tuple(world.history.violations), dict(world.history.counts),
        world.history.lines(whole),
        hashlib.sha256(f'{dump}\n{steps}'.encode()).hexdigest(),
        world.databases.name)


def _until_quiet(world, clients):
    """Wait until all is settled and nobody rests, then send canaries."""
    scheduler = world.scheduler
    scheduler.run(HEAL + AT_LEAST)
    # What was said while the clock was ahead holds until it comes there.
    longest = LONGEST + scheduler.latest_wall() - scheduler.wall()
    while scheduler.time < longest:
        if world.history.violations:
            return
        if not world.journal.is_busy() and not resting(world) \
                and not unsettled(world):
            break
        scheduler.run(scheduler.time + 20.0)
    else:
        for detail in unsettled(world):
            world.history.violated('I1', f'is never settled: {detail}')
        for detail in resting(world):
            world.history.violated('I5', f'rests for ever: {detail}')
        return
    world.is_calm = True
    clients.send_canaries()
    given_up_at = scheduler.time + CANARIES_WITHIN
    while scheduler.time < given_up_at and late_canaries(world):
        scheduler.run(scheduler.time + 10.0)
    for detail in late_canaries(world):
        world.history.violated('I5', f'a canary is late: {detail}')
    first = world.account(0)
    for key, state in world.journal.health():
        if state['why'] and (state['until'] > scheduler.wall() or (
                world.plan.canaries and key.startswith(first))):
            world.history.violated(
                'I5', f'{key} is not well after the canaries: {state}')


def late_canaries(world) -> list[str]:
    """Return the canaries that are not where they belong."""
    states = {world.submitted[one['id']]: one['state']
              for one in world.journal.messages()}
    return [f'{letter.number} is {states.get(letter.number)}'
            for letter in world.plan.canaries
            if states.get(letter.number) != (
                'rejected' if letter.is_bad else 'accepted')]


def resting(world) -> list[str]:
    """Return the accounts that may not be tried, and would not be soon."""
    now = world.scheduler.wall()
    return [f'{key}: {state}' for key, state in world.journal.health()
            if state['why'] and (
                max(state['until'], state['trial_until']) > now
                or state['why'] == 'refused' and not state['probed'])]
