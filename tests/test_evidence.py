"""Evidence: what a provider tells of an attempt that it did not answer."""

import pytest

from stampman.helpers.delivery import Kind, State
from stampman.services.base import Evidence

from deliveries import World, crash, send, services
from fakes import NOW, ScriptedService, email, outcome

WAIT = 30.0
REPLAY = Evidence(replay=3600.0)
LOOK_UP = Evidence(look_up=True)
EVENTS = Evidence(events=True)


@pytest.fixture
def world(tmp_path):
    there = World(tmp_path)
    yield there
    there.store.close()


def silent_then(*kinds, **more):
    """A service that does not answer, and later does like this."""
    return ScriptedService('s1', *map(outcome, ('uncertain', *kinds)), **more)


def backup():
    return ScriptedService('s2', outcome('accepted'))


def due_again(world, *pool):
    """Let the time pass until the message is due; deliver it."""
    world.time.at = world.message.next_attempt_at
    assert world.deliver(*pool, wait=WAIT) == 1
    return world.message


@pytest.mark.parametrize('evidence', [REPLAY, LOOK_UP, EVENTS])
def test_evidence_is_waited_for_before_anybody_else_is_asked(
        world, evidence):
    pool = silent_then(evidence=evidence), backup()
    message = send(world, *pool, wait=WAIT)
    assert message.state is State.uncertain
    assert message.next_attempt_at == NOW + WAIT
    assert message.round == 0
    assert not pool[1].calls


def test_without_evidence_nobody_waits(world):
    pool = silent_then(), backup()
    message = send(world, *pool, wait=WAIT)
    assert message.state is State.accepted
    assert message.possible_duplicate


def test_a_message_that_is_hastened_still_waits_for_evidence(world):
    pool = silent_then(evidence=EVENTS), backup()
    send(world, *pool, wait=WAIT)
    world.time.pass_by(10)
    world.store.hasten(['example.com'], world.time.at)
    world.deliver(*pool, wait=WAIT)
    assert not pool[1].calls
    assert world.message.next_attempt_at == NOW + WAIT


def test_where_no_evidence_came_the_services_behind_are_asked(world):
    pool = silent_then(evidence=EVENTS), backup()
    send(world, *pool, wait=WAIT)
    message = due_again(world, *pool)
    assert message.state is State.accepted
    assert message.possible_duplicate
    assert [len(one.calls) for one in pool] == [1, 1]


# -- a replay -----------------------------------------------------------------

@pytest.mark.parametrize('policy', ['hold', 'failover'])
def test_a_replay_that_is_accepted_settles_the_message(world, policy):
    pool = silent_then('accepted', evidence=REPLAY), backup()
    send(world, *pool, wait=WAIT, on_uncertain=policy)
    message = due_again(world, *pool)
    assert message.state is State.accepted
    assert not message.possible_duplicate
    first, again = message.attempts
    assert first.resolved == 'replayed'
    assert again.replays == first.id
    assert not pool[1].calls


def test_a_replay_goes_under_the_same_key(world):
    pool = silent_then('accepted', evidence=REPLAY),
    send(world, *pool, wait=WAIT)
    due_again(world, *pool)
    first, again = pool[0].calls
    assert first.idempotency_key == again.idempotency_key
    assert first.attempt_id != again.attempt_id


def test_each_set_of_recipients_has_a_key_of_its_own(world):
    pool = silent_then(evidence=REPLAY),
    send(world, *pool, wait=WAIT)
    [context] = pool[0].calls
    some = context._replace(envelope=('a@example.org',))
    others = context._replace(envelope=('b@example.org',))
    assert len({context.idempotency_key, some.idempotency_key,
                others.idempotency_key}) == 3


@pytest.mark.parametrize('kind', [
    'deferred', 'refused', 'rejected', 'unsupported'])
def test_a_replay_that_is_not_accepted_proves_nothing(world, kind):
    """It may not have come so far as to be known again."""
    pool = silent_then(kind, evidence=REPLAY), backup()
    send(world, *pool, wait=WAIT, on_uncertain='hold')
    message = due_again(world, *pool)
    assert message.state is State.uncertain
    assert message.next_attempt_at is not None
    assert not pool[1].calls


def test_after_a_replay_that_proved_nothing_a_second_send_is_marked(world):
    pool = silent_then('deferred', evidence=REPLAY), backup()
    send(world, *pool, wait=WAIT)
    message = due_again(world, *pool)
    assert message.state is State.accepted
    assert message.possible_duplicate
    assert [one.outcome.kind for one in message.attempts] == [
        Kind.uncertain, Kind.deferred, Kind.accepted]


def test_what_takes_the_process_down_is_not_replayed_for_ever(world):
    pool = silent_then('accepted', evidence=REPLAY),
    send(world, *pool, wait=WAIT, on_uncertain='hold')
    poison = world.message.model_copy(update={'crashes': 5})
    attempt, = poison.attempts
    assert not REPLAY.can_replay(attempt, poison, NOW + WAIT)
    assert REPLAY.can_replay(attempt, world.message, NOW + WAIT)


# -- an event that is faster than the answer ----------------------------------

@pytest.mark.parametrize('late', ['uncertain', 'deferred'])
def test_a_proof_is_not_undone_by_the_end_of_the_call_itself(world, late):
    service = ScriptedService('s1', outcome(late))
    pool = service, backup()

    def event_comes_first():
        [running] = world.message.attempts
        assert world.store.end(running.model_copy(update={
            'ended_at': world.time.at, 'outcome': outcome('accepted')}),
            world.message.id)

    service.during = event_comes_first
    claim, stored = world.submit()
    world.dispatch.deliver(claim, stored, email, pool)
    assert world.message.state is State.accepted
    assert world.message.accepted_by.service == 's1'
    assert not world.message.possible_duplicate
    assert not pool[1].calls


def test_a_known_end_is_not_made_uncertain(world):
    service = ScriptedService('s1', outcome('uncertain'))
    pool = service, backup()

    def event_comes_first():
        [running] = world.message.attempts
        world.store.end(running.model_copy(update={
            'ended_at': world.time.at, 'outcome': outcome('deferred')}),
            world.message.id)

    service.during = event_comes_first
    claim, stored = world.submit(on_uncertain='hold')
    world.dispatch.deliver(claim, stored, email, pool)
    assert world.message.state is State.accepted
    assert world.message.accepted_by.service == 's2'
    assert not world.message.possible_duplicate


def test_a_held_message_is_replayed_until_the_window_closes(world):
    pool = ScriptedService('s1', outcome('uncertain'), evidence=REPLAY),
    send(world, *pool, wait=WAIT, on_uncertain='hold')
    times = []
    while (at := world.message.next_attempt_at) is not None:
        times.append(at - NOW)
        due_again(world, *pool)
    assert 3 < len(times) < 20
    assert max(times) < REPLAY.replay
    assert len(pool[0].calls) == len(times) + 1
    assert world.message.state is State.uncertain
    assert sum(one.is_uncertain for one in world.message.attempts
               if not one.replays) == 1


def test_replays_do_not_count_as_further_uncertain_attempts(world):
    pool = silent_then('uncertain', 'uncertain', evidence=REPLAY), backup()
    send(world, *pool, wait=WAIT)
    message = due_again(world, *pool)
    assert message.state is State.accepted
    assert message.attempts[-1].service == 's2'
    assert message.possible_duplicate


def test_nothing_is_replayed_after_the_time_of_the_message(world):
    pool = silent_then('accepted', evidence=REPLAY),
    send(world, *pool, wait=WAIT, on_uncertain='hold', expires_at=NOW + 20)
    while world.message.next_attempt_at is not None:
        due_again(world, *pool)
    assert len(pool[0].calls) == 1
    assert world.message.state is State.uncertain


def test_a_service_that_rests_is_not_replayed(world):
    pool = silent_then('accepted', evidence=REPLAY),
    send(world, *pool, wait=WAIT, on_uncertain='hold')
    world.health.record(world.health.permit(pool[0]), outcome('refused'))
    due_again(world, *pool)
    assert len(pool[0].calls) == 1
    assert world.message.next_attempt_at is not None


# -- a look-up ----------------------------------------------------------------

@pytest.mark.parametrize('policy', ['hold', 'failover'])
def test_what_a_look_up_finds_accepted_is_accepted(world, policy):
    pool = silent_then(evidence=LOOK_UP, known=outcome(
        'accepted', provider_message_id='theirs')), backup()
    send(world, *pool, wait=WAIT, on_uncertain=policy)
    message = due_again(world, *pool)
    assert message.state is State.accepted
    assert not message.possible_duplicate
    [attempt] = message.attempts
    assert attempt.outcome.provider_message_id == 'theirs'
    assert message.recipients[0].provider_message_id == 'theirs'
    assert [one.attempt_id for one in pool[0].looked_up] == [attempt.id]
    assert len(pool[0].calls) == 1 and not pool[1].calls


def test_what_is_surely_not_taken_goes_on_its_way(world):
    pool = silent_then('deferred', evidence=LOOK_UP,
                       known=outcome('deferred')), backup()
    send(world, *pool, wait=WAIT, on_uncertain='hold')
    message = due_again(world, *pool)
    assert message.state is State.accepted
    assert message.attempts[-1].service == 's2'
    assert not message.possible_duplicate


@pytest.mark.parametrize('known', [None, RuntimeError('a bug')])
def test_a_look_up_that_proves_nothing_is_repeated_ever_more_seldom(
        world, known):
    pool = ScriptedService('s1', outcome('uncertain'), evidence=LOOK_UP,
                           known=known),
    send(world, *pool, wait=WAIT, on_uncertain='hold')
    times = []
    while (at := world.message.next_attempt_at) is not None:
        times.append(at)
        due_again(world, *pool)
    pauses = [later - sooner for sooner, later in zip(times, times[1:])]
    assert pauses[:3] == [WAIT, 2 * WAIT, 4 * WAIT]
    assert max(pauses) <= 900
    assert times[-1] == world.message.expires_at
    assert len(pool[0].calls) == 1
    assert world.message.state is State.uncertain


def test_a_look_up_after_a_crash_settles_the_orphan(world):
    pool = silent_then(evidence=LOOK_UP, known=outcome('accepted')),
    crash(world, *pool, on_uncertain='hold')
    world.deliver(*pool, wait=WAIT)
    assert not pool[0].looked_up        # it may still be on its way
    assert due_again(world, *pool).state is State.accepted


def test_a_clock_that_is_set_back_makes_nobody_wait_for_hours(world):
    pool = silent_then(evidence=EVENTS), backup()
    send(world, *pool, wait=WAIT)
    world.time.pass_by(-7200)
    world.store.hasten(['example.com'], world.time.at)
    world.deliver(*pool, wait=WAIT)
    assert world.message.state is State.accepted


def test_a_service_that_is_gone_gives_no_evidence(world):
    first, *others = silent_then(evidence=LOOK_UP), backup()
    send(world, first, *others, wait=WAIT, on_uncertain='hold')
    due_again(world, *others)
    assert world.message.state is State.uncertain
    assert world.message.next_attempt_at is None
    assert services('accepted')[0].evidence == Evidence()


def test_an_uncertain_replay_holds_the_message_by_itself(world):
    """Also where what it replays has turned out not to be taken."""
    pool = silent_then('uncertain', evidence=REPLAY), backup()
    send(world, *pool, wait=WAIT, on_uncertain='hold')
    first = due_again(world, *pool).attempts[0]
    world.store.end(first.model_copy(update={
        'outcome': outcome('deferred')}), world.message.id)
    message = due_again(world, *pool)
    assert not pool[1].calls
    assert message.state is State.uncertain
    assert {one.replays for one in message.attempts[1:]} == {first.id}


def test_a_clock_that_is_set_back_makes_nobody_replay(world):
    pool = silent_then('accepted'), backup()
    send(world, *pool, on_uncertain='hold')
    attempt, = world.message.attempts
    for evidence in Evidence(), REPLAY:
        assert not evidence.can_replay(attempt, world.message, NOW - 900)


def test_nothing_begins_after_the_time_of_the_message(world):
    slow = ScriptedService('s1', outcome('deferred'),
                           during=lambda: world.time.pass_by(30))
    pool = slow, backup()
    message = send(world, *pool, expires_at=NOW + 20)
    assert message.state is State.failed
    assert message.reason.startswith('expired')
    assert not pool[1].calls


def test_a_person_who_says_send_again_waits_for_no_evidence(world):
    pool = silent_then(evidence=EVENTS), backup()
    send(world, *pool, wait=WAIT)
    world.time.pass_by(1)
    world.store.change(
        'example.com', world.message.id, {State.uncertain}, State.queued,
        next_attempt_at=world.time.at, restart=True)
    world.deliver(*pool, wait=WAIT)
    assert len(pool[0].calls) == 2


def test_another_provider_under_the_same_name_is_not_asked(world):
    first = silent_then(evidence=REPLAY)
    send(world, first, wait=WAIT, on_uncertain='hold')
    other = silent_then(evidence=REPLAY)
    other.provider = 'another'
    due_again(world, other)
    assert not other.calls
    assert world.message.next_attempt_at is None


def test_look_ups_that_hang_do_not_outlast_the_lease(world):
    class Hangs(ScriptedService):
        def look_up(self, context):
            self.looked_up.append(context)
            left = context.deadline - world.time.clock.monotonic()
            world.time.pass_by(max(0.0, left))

    pool = *(Hangs(name, outcome('uncertain'), evidence=LOOK_UP, timeout=20)
             for name in ('s1', 's2')), ScriptedService(
                 's3', outcome('deferred'))
    send(world, *pool)
    world.time.at = began = world.message.next_attempt_at
    world.deliver(*pool)
    assert world.time.at - began == 15      # half a lease
    assert len(pool[0].looked_up) + len(pool[1].looked_up) == 1
    assert world.message.state is State.uncertain


def test_a_pause_between_two_looks_is_never_nothing(world):
    pool = ScriptedService('s1', outcome('uncertain'), evidence=LOOK_UP),
    send(world, *pool, wait=0.0, on_uncertain='hold')
    assert world.message.next_attempt_at == NOW + 1
