"""Processes that die, stores that fail, answers that come late."""

import pytest

from stampman.helpers.delivery import Kind, State
from stampman.helpers.exceptions import StoreUnavailable

from deliveries import ID, FailingEnds, World, crash, send, services
from fakes import ScriptedService, email, outcome


@pytest.fixture
def world(tmp_path):
    there = World(tmp_path)
    yield there
    there.store.close()


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


def test_an_answer_is_recorded_though_the_store_fails_for_a_while(world):
    world.dispatch = world.dispatch._replace(
        store=FailingEnds(world.store, 20))
    done = send(world, *services('accepted'))
    assert done.state is State.accepted
    assert sum(world.pauses) == 10


def test_a_store_that_fails_for_longer_leaves_it_to_the_rescue(
        world, caplog):
    world.dispatch = world.dispatch._replace(
        store=FailingEnds(world.store, 1000))
    claim, stored = world.submit(on_uncertain='hold')
    service = ScriptedService('s1', outcome(
        'accepted', provider_message_id='theirs'))
    done = world.dispatch.deliver(claim, stored, email, [service])
    assert done.state is State.sending
    assert sum(world.pauses) == 30
    [told] = [record for record in caplog.records
              if record.levelname == 'ERROR' and 'cannot be stored' in
              record.getMessage()]     # whoever resolves it finds it there
    assert (told.kind, told.provider_message_id, told.attempt_id) == (
        'accepted', 'theirs', done.attempts[0].id)
    world.time.pass_by(60)
    world.deliver(*services('accepted'))
    assert world.message.state is State.uncertain


def test_a_late_rejection_of_a_held_message_is_final(world):
    claim, stored = world.submit(on_uncertain='hold')
    slow = ScriptedService('s1', outcome('rejected'))

    def rescued_meanwhile():
        world.time.pass_by(60)
        world.deliver(slow)

    slow.during = rescued_meanwhile
    world.dispatch.deliver(claim, stored, email, [slow])
    slow.during = None
    world.deliver(slow)
    assert world.message.state is State.rejected
    assert len(slow.calls) == 1


class FailingFinish(FailingEnds):
    """A store whose `finish` fails so many times."""

    end = None

    def __init__(self, store, failures):
        super().__init__(store, failures)
        self.end = store.end

    def finish(self, *args, **changes):
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable('not now')
        self._store.finish(*args, **changes)


def test_a_rejection_whose_end_was_lost_asks_nobody_else(world):
    world.dispatch = world.dispatch._replace(
        store=FailingFinish(world.store, 1))
    pool = services('rejected', 'accepted')
    claim, stored = world.submit()
    world.dispatch.deliver(claim, stored, email, pool)
    world.time.pass_by(60)
    world.deliver(*pool)
    assert world.message.state is State.rejected
    assert not pool[1].calls


def test_nobody_rescues_while_an_answer_is_being_recorded(world):
    """The store is back after 29 s, and a worker looks at once."""
    world.dispatch = world.dispatch._replace(
        store=FailingEnds(world.store, 58))
    first = ScriptedService('s1', outcome('accepted'), timeout=10)
    first.during = lambda: world.time.pass_by(10)
    second = ScriptedService('s2', outcome('accepted'))
    rescued = []

    def pause(seconds):
        world.time.pass_by(seconds)
        rescued.extend(world.store.claim_due(
            'worker', world.time.at, world.time.at + 30))

    world.dispatch = world.dispatch._replace(pause=pause)
    done = send(world, first, second)
    assert done.state is State.accepted
    assert not rescued and not second.calls


def test_a_late_answer_is_seen_by_whoever_concludes(world):
    """It comes while another round is under way, and frees the message."""
    pool = services('deferred', 'uncertain', 'uncertain')
    claim, stored = world.submit()
    late = []

    def rescued_meanwhile():
        pool[0].during = None
        world.time.pass_by(60)
        pool[2].during = lambda: late.append(world.store.end(
            world.message.attempts[0].model_copy(update={
                'ended_at': world.time.at,
                'outcome': outcome('deferred')}), ID))
        world.deliver(*pool)

    pool[0].during = rescued_meanwhile
    world.dispatch.deliver(claim, stored, email, pool)
    assert late
    assert world.message.state is State.uncertain
    assert world.message.next_attempt_at is not None


def test_a_broken_lease_gives_the_trial_back(world):
    pool = services('accepted')
    for _ in range(5):
        world.health.record(world.health.permit(pool[0]),
                            outcome('deferred'))
    claim, stored = world.submit()
    world.time.pass_by(40)
    world.store.claim_due('somebody', world.time.at, world.time.at + 30)
    world.dispatch.deliver(claim, stored, email, pool)
    assert not pool[0].calls
    assert world.health.permit(pool[0])


def test_two_providers_that_took_it_are_a_duplicate(world):
    """A person was wrong: the first one had taken it."""
    claim, stored = world.submit(on_uncertain='hold')
    slow = ScriptedService('s1', outcome('accepted'))

    def sent_again_meanwhile():
        slow.during = None
        world.time.pass_by(60)
        world.deliver(slow)
        world.store.change('example.com', ID, [State.uncertain],
                           State.failed, resolved='not_sent')
        world.store.change('example.com', ID, [State.failed], State.queued,
                           next_attempt_at=world.time.at, restart=True)
        world.deliver(slow)
        assert not world.message.possible_duplicate

    slow.during = sent_again_meanwhile
    world.dispatch.deliver(claim, stored, email, [slow])
    assert world.message.state is State.accepted
    assert world.message.possible_duplicate
