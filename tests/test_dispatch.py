"""What becomes of a message: rounds, states, retries, expiry, crashes.

Everything is real here but the services, which answer as scripted.
"""

import itertools

import pytest

from stampman.dispatch import Dispatch
from stampman.health import Health
from stampman.helpers.delivery import Claim, Kind, State
from stampman.helpers.exceptions import Conflict, StoreUnavailable
from stampman.store import open_store
from stampman.store.base import HealthRow

from fakes import NOW, ScriptedService, Time, email, message, outcome

ID = message().id


class World:
    """A store, a clock, and a message to deliver."""

    def __init__(self, store):
        self.store = store
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

    def deliver(self, *services, until=float('inf')):
        """Deliver what is due, as a worker does."""
        due = self.store.claim_due('worker', self.time.at,
                                   self.time.at + 30)
        for claim, claimed in due:
            self.dispatch.deliver(claim, claimed,
                                  lambda: self.store.email(ID), services,
                                  until)
        return len(due)

    @property
    def message(self):
        return self.store.message('example.com', ID)


@pytest.fixture
def world(tmp_path):
    store = open_store(f'sqlite:///{tmp_path}/messages.db')
    store.migrate()
    yield World(store)
    store.close()


def send(world, *services, until=float('inf'), **fields):
    claim, stored = world.submit(**fields)
    returned = world.dispatch.deliver(claim, stored, email, services, until)
    assert returned == world.message    # memory and store tell one story
    return returned


def services(*kinds):
    return [ScriptedService(f's{n}', *map(outcome, kind.split()))
            for n, kind in enumerate(kinds, 1)]


@pytest.mark.parametrize('kinds, state, waits', [
    (['accepted'], 'accepted', False),
    (['deferred', 'accepted'], 'accepted', False),
    (['uncertain', 'accepted'], 'accepted', False),
    (['rejected', 'accepted'], 'rejected', False),
    (['deferred', 'rejected'], 'rejected', False),
    (['unsupported'], 'failed', False),
    (['unsupported', 'unsupported'], 'failed', False),
    (['unsupported', 'deferred'], 'deferred', True),
    (['deferred', 'unsupported'], 'deferred', True),
    (['refused'], 'deferred', True),
    (['refused', 'deferred'], 'deferred', True),
    (['uncertain'], 'uncertain', True),
    (['uncertain', 'deferred'], 'uncertain', True),
    (['uncertain', 'unsupported'], 'uncertain', True),
    (['uncertain', 'rejected'], 'uncertain', False),
    (['uncertain', 'uncertain', 'uncertain'], 'uncertain', False)])
def test_a_round_ends_in_the_state_that_its_attempts_amount_to(
        world, kinds, state, waits):
    done = send(world, *services(*kinds))
    assert done.state is State(state)
    assert (done.next_attempt_at is not None) == waits
    assert [one.status for one in done.recipients] == [state]


def test_under_hold_an_uncertain_message_waits_for_a_person(world):
    done = send(world, *services('uncertain', 'accepted'),
                on_uncertain='hold')
    assert done.state is State.uncertain
    assert done.next_attempt_at is None
    assert len(done.attempts) == 1
    assert not done.possible_duplicate


def test_an_attempt_after_an_uncertain_one_may_be_a_duplicate(world):
    done = send(world, *services('uncertain', 'accepted'))
    assert done.possible_duplicate


def test_a_deferred_message_is_tried_again_until_it_is_accepted(world):
    pool = services('deferred deferred accepted')
    done = send(world, *pool)
    waits = []
    while done.state is State.deferred:
        waits.append(done.next_attempt_at - world.time.at)
        world.time.pass_by(waits[-1] - 0.01)
        assert not world.deliver(*pool)
        world.time.pass_by(0.02)
        assert world.deliver(*pool)
        done = world.message
    assert done.state is State.accepted
    assert [one.round for one in done.attempts] == [0, 1, 2]
    assert waits == [37.5, 67.5]    # half way from 15 s to 60 s, to 120 s


def test_a_deferred_message_fails_when_its_time_is_over(world):
    pool = services('deferred')
    done = send(world, *pool, expires_at=NOW + 20)
    assert done.next_attempt_at == NOW + 20
    world.time.pass_by(20)
    world.deliver(*pool)
    assert world.message.state is State.failed
    assert world.message.reason.startswith('expired: s1')
    assert len(pool[0].calls) == 1


def test_an_uncertain_message_never_fails_by_time(world):
    pool = services('uncertain deferred')
    send(world, *pool, expires_at=NOW + 20)
    world.time.pass_by(20)
    world.deliver(*pool)
    assert world.message.state is State.uncertain
    assert world.message.next_attempt_at is None


def test_a_walk_that_runs_out_of_time_is_due_at_once(world):
    first = ScriptedService('s1', outcome('deferred'), timeout=10)
    first.during = lambda: world.time.pass_by(10)
    second = ScriptedService('s2', outcome('accepted'), timeout=10)
    done = send(world, first, second,
                until=world.time.clock.monotonic() + 15)
    assert done.state is State.deferred
    assert done.next_attempt_at == world.time.at
    world.deliver(first, second)
    assert world.message.state is State.accepted
    assert [one.service for one in world.message.attempts] == ['s1', 's2']


def test_where_all_rest_the_message_waits_and_costs_no_round(world):
    pool = services('deferred')
    for _ in range(5):
        world.health.record(world.health.permit(pool[0]),
                            outcome('deferred'))
    done = send(world, *pool)
    assert done.state is State.deferred and not done.attempts
    assert done.round == 0 and done.reason == 'resting: s1'
    assert done.next_attempt_at >= NOW + 30


def test_a_pool_without_services_keeps_its_messages(world):
    done = send(world)
    assert done.state is State.deferred


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


def test_a_crash_in_mid_call_is_uncertain_and_fails_over(world):
    pool = services('accepted', 'accepted')
    crash(world, *pool)
    world.deliver(*pool)
    done = world.message
    assert [(one.service, one.outcome.kind) for one in done.attempts] == [
        ('s1', Kind.uncertain), ('s2', Kind.accepted)]
    assert done.possible_duplicate


def test_a_crash_in_mid_call_is_held_where_the_pool_holds(world):
    pool = services('accepted', 'accepted')
    crash(world, *pool, on_uncertain='hold')
    world.deliver(*pool)
    assert world.message.state is State.uncertain
    assert world.message.next_attempt_at is None
    assert len(world.message.attempts) == 1


def test_a_crash_before_any_call_costs_nothing(world):
    world.submit(on_uncertain='hold')
    world.time.pass_by(31)
    world.deliver(*services('accepted'))
    assert world.message.state is State.accepted
    assert world.message.crashes == 0


def test_an_answer_after_the_rescue_still_counts(world):
    claim, stored = world.submit(on_uncertain='hold')
    slow = ScriptedService('s1', outcome('accepted'))

    def rescued_meanwhile():
        world.time.pass_by(60)
        world.deliver(slow)
        assert world.message.state is State.uncertain

    slow.during = rescued_meanwhile
    world.dispatch.deliver(claim, stored, email, [slow])
    assert world.message.state is State.accepted


def test_a_lost_lease_calls_nobody(world):
    claim, stored = world.submit()
    world.time.pass_by(31)
    assert world.deliver(*services('deferred'))
    late = ScriptedService('late', outcome('accepted'))
    world.dispatch.deliver(claim, stored, email, [late])
    assert not late.calls


class FailingEnds:
    """A store whose `end` fails so many times, and then works."""

    def __init__(self, store, failures):
        self._store = store
        self.failures = failures

    def __getattr__(self, name):
        return getattr(self._store, name)

    def end(self, attempt, message_id):
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable('not now')
        self._store.end(attempt, message_id)


def test_an_answer_is_recorded_though_the_store_fails_for_a_while(world):
    world.dispatch = world.dispatch._replace(
        store=FailingEnds(world.store, 20))
    done = send(world, *services('accepted'))
    assert done.state is State.accepted
    assert sum(world.pauses) == 10


def test_a_store_that_fails_for_longer_leaves_it_to_the_rescue(world):
    world.dispatch = world.dispatch._replace(
        store=FailingEnds(world.store, 1000))
    claim, stored = world.submit(on_uncertain='hold')
    done = world.dispatch.deliver(claim, stored, email, services('accepted'))
    assert done.state is State.sending
    assert sum(world.pauses) == 30
    world.time.pass_by(60)
    world.deliver(*services('accepted'))
    assert world.message.state is State.uncertain


def test_a_person_may_say_send_again(world):
    pool = services('uncertain accepted')
    send(world, *pool, on_uncertain='hold')
    world.store.change(
        'example.com', ID, [State.uncertain], State.queued,
        now=world.time.at, next_attempt_at=world.time.at,
        restarted_at=world.time.at + 0.001)
    world.time.pass_by(1)
    world.deliver(*pool)
    assert world.message.state is State.accepted
    assert world.message.possible_duplicate


def test_after_not_sent_a_retry_is_no_duplicate(world):
    pool = services('uncertain accepted')
    send(world, *pool, on_uncertain='hold')
    world.time.pass_by(1)
    world.store.change('example.com', ID, [State.uncertain], State.failed,
                       now=world.time.at, resolved='not_sent')
    world.store.change('example.com', ID, [State.failed], State.queued,
                       now=world.time.at, next_attempt_at=world.time.at,
                       restarted_at=world.time.at)
    world.deliver(*pool)
    assert world.message.state is State.accepted
    assert not world.message.possible_duplicate


def test_a_settled_message_cannot_be_cancelled(world):
    send(world, *services('accepted'))
    with pytest.raises(Conflict):
        world.store.change('example.com', ID, [State.queued],
                           State.cancelled, now=world.time.at)
