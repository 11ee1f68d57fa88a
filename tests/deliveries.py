"""A message, the store it lies in, and its delivery, without waiting."""

import itertools

import pytest

from stampman.dispatch import Dispatch
from stampman.health import Health
from stampman.helpers.delivery import Claim
from stampman.helpers.exceptions import StoreUnavailable
from stampman.store import open_store
from stampman.store.base import HealthRow

from fakes import NOW, ScriptedService, Time, email, message, outcome
from fresh import put_fresh

ID = message().id


class World:
    """A store, a clock, and a message to deliver."""

    def __init__(self, folder):
        put_fresh(folder / 'messages.db')
        self.store = store = open_store(f'sqlite:///{folder}/messages.db')
        self.time = Time()
        self.pauses = []
        ids = (f'01890000-0000-7000-8000-{n:012}'
               for n in itertools.count(100))
        self.health = Health(store, self.time.clock, lambda: 0.5, HealthRow,
                             lambda key: None)
        self.dispatch = Dispatch(
            store, self.health, self.time.clock, lambda: 0.5, self.pause,
            lambda now: next(ids))

    def pause(self, seconds):
        self.pauses.append(seconds)
        self.time.pass_by(seconds)

    def submit(self, **fields):
        claim = Claim(ID, 'request', 1, NOW + 30)
        stored = message(**fields)
        self.store.add(stored, email(), claim)
        return claim, stored

    def deliver(self, *services, until=float('inf'), wait=0.0):
        """Deliver what is due, as a worker does."""
        due = self.store.claim_due('worker', self.time.at,
                                   self.time.at + 30)
        for claim, claimed in due:
            self.dispatch.deliver(claim, claimed,
                                  lambda: self.store.email(ID), services,
                                  until, wait)
        return len(due)

    @property
    def message(self):
        return self.store.message('example.com', ID)


def send(world, *services, until=float('inf'), wait=0.0, **fields):
    claim, stored = world.submit(**fields)
    returned = world.dispatch.deliver(claim, stored, email, services, until,
                                      wait)
    assert returned == world.message    # memory and store tell one story
    return returned


def crash(world, *pool, **fields):
    """Die in mid-call: the attempt has begun, and nobody ends it."""
    class Killed(BaseException):
        pass

    claim, stored = world.submit(**fields)

    def die():
        raise Killed

    pool[0].during = die
    with pytest.raises(Killed):
        world.dispatch.deliver(claim, stored, email, pool)
    pool[0].during = None
    world.time.pass_by(60)


def services(*kinds):
    return [ScriptedService(f's{n}', *map(outcome, kind.split()))
            for n, kind in enumerate(kinds, 1)]


class FailingEnds:
    """A store whose `end` fails so many times, and then works."""

    def __init__(self, store, failures):
        self._store = store
        self.failures = failures

    def __getattr__(self, name):
        return getattr(self._store, name)

    def end(self, *args):
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable('not now')
        return self._store.end(*args)
