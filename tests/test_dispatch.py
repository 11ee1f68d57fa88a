"""What becomes of a message: rounds, states, retries, expiry.

Everything is real here but the services, which answer as scripted.
"""

import pytest

from stampman.helpers.delivery import State
from stampman.helpers.exceptions import Conflict

from deliveries import ID, World, send, services
from fakes import NOW, ScriptedService, outcome


@pytest.fixture
def world(tmp_path):
    there = World(tmp_path)
    yield there
    there.store.close()


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


def test_a_person_may_say_send_again(world):
    pool = services('uncertain accepted')
    send(world, *pool, on_uncertain='hold')
    world.store.change(
        'example.com', ID, [State.uncertain], State.queued,
        next_attempt_at=world.time.at,
        restart=True)
    world.time.pass_by(1)
    world.deliver(*pool)
    assert world.message.state is State.accepted
    assert world.message.possible_duplicate


def test_after_not_sent_a_retry_is_no_duplicate(world):
    pool = services('uncertain accepted')
    send(world, *pool, on_uncertain='hold')
    world.time.pass_by(1)
    world.store.change('example.com', ID, [State.uncertain], State.failed,
                       resolved='not_sent')
    world.store.change('example.com', ID, [State.failed], State.queued,
                       next_attempt_at=world.time.at,
                       restart=True)
    world.deliver(*pool)
    assert world.message.state is State.accepted
    assert not world.message.possible_duplicate


def test_a_settled_message_cannot_be_cancelled(world):
    send(world, *services('accepted'))
    with pytest.raises(Conflict):
        world.store.change('example.com', ID, [State.queued],
                           State.cancelled)


def test_a_service_that_rests_may_still_carry_what_others_cannot(world):
    pool = services('unsupported', 'accepted')
    for _ in range(5):
        world.health.record(world.health.permit(pool[1]),
                            outcome('deferred'))
    done = send(world, *pool)
    assert done.state is State.deferred


def test_after_send_again_an_uncertain_attempt_still_forbids_failure(world):
    pool = services('uncertain rejected')
    send(world, *pool, on_uncertain='hold')
    world.time.pass_by(1)
    world.store.change(
        'example.com', ID, [State.uncertain], State.queued,
        next_attempt_at=world.time.at,
        restart=True)
    world.deliver(*pool)
    assert world.message.state is State.uncertain
    assert world.message.next_attempt_at is None


def test_a_config_without_services_fails_nothing(world):
    pool = services('unsupported deferred', 'deferred')
    send(world, *pool)
    world.time.pass_by(60)
    world.deliver()
    assert world.message.state is State.deferred


def test_a_clock_set_back_does_not_undo_a_persons_retry(world):
    pool = services('unsupported accepted')
    send(world, *pool)
    world.time.pass_by(-3600)
    world.store.change(
        'example.com', ID, [State.failed], State.queued,
        next_attempt_at=world.time.at, restart=True)
    world.deliver(*pool)
    assert world.message.state is State.accepted
