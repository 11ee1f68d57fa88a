"""What a seed comes to: letters, clients, faults. Nothing is left to chance
later but how long things take.

A plan is a value: the shrinker leaves parts of it out, and the rest stays as
it was.
"""

import random
from typing import NamedTuple

POLICIES = ('hold', 'failover')
SERVICES = ('first', 'second', 'third')
HEAL = 600.0            # virtual seconds; then all faults are over
LAST_LETTER = 480.0

# Where a kill or a freeze is aimed at: it strikes whoever comes there first.
POINTS = (
    'before add_all', 'after add_all', 'after claim_due', 'before begin',
    'after begin', 'connect', 'written', 'taken', 'answered', 'before end',
    'after end', 'before message', 'after message', 'before finish',
    'after finish', 'after email', 'after put_health', 'after known',
    'before change', 'after change', 'pause', 'answer', 'any', 'any', 'any')
# Whose commit may be lost, or its end.
COMMITS = ('add_all', 'add_all', 'claim_due', 'begin', 'begin', 'end', 'end',
           'end', 'finish', 'finish', 'put_health', 'change', 'message',
           'known', 'email')
FAULTS = (('kill', 24), ('freeze', 30), ('lose_before', 18),
          ('lose_after', 18), ('outage', 4), ('jump', 3), ('stop', 4),
          ('reboot', 2))
TROUBLES = ('refuses', 'hangs', 'unavailable', 'unauthorized', 'loses')
ACTS = ('cancel', 'cancel', 'retry', 'accepted', 'not_sent', 'send_again',
        'erase')


class Letter(NamedTuple):
    """One email that a client wants to be sent.

    Each recipient's name says how it fares: `good`, `bad` (everywhere
    rejected) or `busy` (deferred for a while). `is_bad`: it is rejected as
    a whole, everywhere. `poison`: who sends it dies of it. `trust` is how
    likely each call for it goes well while there are faults.
    """

    number: int
    names: tuple[str, ...]
    policy: str | None = None
    expires_in: float | None = None
    send_in: float | None = None
    is_bad: bool = False
    poison: bool = False
    trust: float = 0.5

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(f'{name}-{self.number}-{n}@example.org'
                     for n, name in enumerate(self.names))


class Call(NamedTuple):
    """One client's request, repeated up to `tries` times where its end is
    not known; more letters than one are a batch."""

    number: int
    at: float
    letters: tuple[Letter, ...]
    key: str | None = None
    at_once: bool = True
    tries: int = 4


class Fault(NamedTuple):
    """What strikes, from `at` on, who comes to `point` first."""

    number: int
    at: float
    kind: str
    point: str = 'any'
    seconds: float = 0.0


class Trouble(NamedTuple):
    """A provider that serves nobody for a while."""

    service: str
    at: float
    until: float
    mode: str


class Act(NamedTuple):
    """What a person does to a letter's message, once its state allows it."""

    at: float
    letter: int
    what: str


class Plan(NamedTuple):
    """All that a run is made of."""

    seed: int
    policy: str
    calls: tuple[Call, ...]
    faults: tuple[Fault, ...]
    troubles: tuple[Trouble, ...]
    acts: tuple[Act, ...]
    envelopes: tuple[str, ...]              # the services that can do that
    evidence: tuple[tuple[str, str], ...]   # service: what it can tell
    uncertain_wait: float
    rounds: float                           # seconds between a worker's
    proofs: float                           # how likely each event comes
    canaries: tuple[Letter, ...]

    @property
    def letters(self) -> dict[int, Letter]:
        found = (*(one for call in self.calls for one in call.letters),
                 *self.canaries)
        return {one.number: one for one in found}


def make(seed: int, policy: str) -> Plan:
    """Return the plan of a seed under a policy."""
    chance = random.Random(f'plan/{seed}/{policy}')
    calls = _calls(chance, policy)
    return Plan(
        seed, policy, calls, _faults(chance), _troubles(chance),
        _acts(chance, calls),
        tuple(name for name in SERVICES if chance.random() < 0.5),
        tuple((name, kind) for name in SERVICES
              if (kind := chance.choice(
                  (None, None, 'replay', 'look_up', 'events')))),
        chance.choice((0.0, 30.0, 30.0, 120.0)),
        chance.choice((90.0, 300.0, 300.0)),
        chance.choice((0.0, 0.3, 0.8)),
        tuple(Letter(900 + n, ('good',), is_bad=n < 6)
              for n in range(11 if chance.random() < 0.35 else 0)))


def _calls(chance, policy):
    calls, number = [], 0
    for _ in range(chance.randint(4, 8)):
        at = chance.uniform(0.0, LAST_LETTER)
        size = chance.randint(2, 4) if chance.random() < 0.12 else 1
        letters = tuple(_letter(chance, number + n, policy)
                        for n in range(size))
        number += size
        key = f'key-{number}' if chance.random() < 0.5 else None
        call = Call(len(calls), at, letters, key, chance.random() < 0.8)
        calls.append(call)
        if key and chance.random() < 0.4:       # twins, at the same time
            calls.append(call._replace(
                number=len(calls), at=at + chance.choice((0.0, 0.0, 20.0)),
                at_once=chance.random() < 0.7))
        if key and chance.random() < 0.2:       # the key with another body
            calls.append(call._replace(
                number=len(calls), at=at + chance.choice((0.0, 5.0)),
                letters=(_letter(chance, number, policy),)))
            number += 1
    return tuple(calls)


def _letter(chance, number, policy):
    names = ('good',) if chance.random() < 0.6 else tuple(
        chance.choices(('good', 'bad', 'busy'), (6, 2, 3),
                       k=chance.randint(2, 4)))
    return Letter(
        number, names,
        policy='hold' if policy == 'failover' and chance.random() < 0.15
        else None,
        expires_in=chance.choice((8.0, 12.0, 20.0, 60.0, 150.0, 400.0))
        if chance.random() < 0.25 else None,
        send_in=chance.choice((10.0, 60.0, 200.0))
        if chance.random() < 0.15 else None,
        is_bad=chance.random() < 0.08, poison=chance.random() < 0.04,
        trust=chance.choice((0.3, 0.6, 0.9)))


def _faults(chance):
    kinds, weights = zip(*FAULTS)
    faults = []
    for number in range(chance.randint(6, 18)):
        kind = chance.choices(kinds, weights)[0]
        faults.append(Fault(
            number, chance.uniform(0.0, HEAL - 60.0), kind,
            chance.choice(COMMITS) if kind.startswith('lose')
            else chance.choice(POINTS), _seconds(chance, kind)))
    if chance.random() < 0.3:
        # A late end that comes just before who has rescued concludes.
        at = chance.uniform(0.0, HEAL - 200.0)
        faults += [Fault(len(faults), at, 'freeze', 'before end', 90.0),
                   Fault(len(faults) + 1, at + 40.0, 'freeze',
                         'before finish', 80.0)]
    return tuple(sorted(faults, key=lambda fault: fault.at))


def _seconds(chance, kind):
    if kind == 'freeze':
        return chance.choice((2.0, 12.0, 31.0, 60.0, 90.0, 200.0, 300.0))
    if kind == 'jump':
        return chance.choice((-7200.0, -900.0, -60.0, 60.0, 900.0, 7200.0))
    return chance.choice((2.0, 10.0, 20.0)) if kind == 'outage' else 0.0


def _troubles(chance):
    troubles = []
    for service in SERVICES:
        for _ in range(chance.choice((0, 0, 1, 2))):
            at = chance.uniform(0.0, HEAL - 100.0)
            troubles.append(Trouble(
                service, at, min(at + chance.uniform(20.0, 200.0), HEAL),
                chance.choice(TROUBLES)))
    return tuple(troubles)


def _acts(chance, calls):
    """A person may withdraw what was sent just now; all else comes later."""
    acts = []
    for call in calls:
        for letter in call.letters:
            if chance.random() < 0.25:
                what = chance.choice(ACTS)
                acts.append(Act(
                    call.at + chance.uniform(0.0, 40.0) if what == 'cancel'
                    else chance.uniform(call.at, HEAL + 200.0),
                    letter.number, what))
    return tuple(acts)
