"""An attempt that ends late, while somebody else concludes its message."""

import pytest

from stampman.helpers.delivery import Kind, RecipientOutcome, State
from stampman.helpers.exceptions import LeaseLost

from backends import (
    NOW, POOL, add_claimed, attempt, ended, migrated, store)
from deliveries import ID, World, services
from fakes import NOW as BEGIN, email, outcome
from mixed import ANN, BO, THREE, Mixed, fared, statuses

__all__ = ['migrated', 'store']     # the fixtures


def rescued(store, **fields):
    """Store a message whose attempt hangs, taken over by another holder;
    return the attempt, and that holder's claim."""
    one, claim = add_claimed(store, **fields)
    begun = attempt()
    store.begin(claim, begun, NOW + 60)
    [(claim, _)] = store.claim_due('rescuer', NOW + 61, NOW + 99)
    return begun, claim


# -- the contract ------------------------------------------------------------

@pytest.mark.parametrize('kind', ['deferred', 'rejected', 'unsupported'])
def test_a_conclusion_is_not_written_when_an_end_came_between(store, kind):
    begun, claim = rescued(store)
    store.end(ended(begun, kind), claim.message_id)
    before = store.message(POOL, claim.message_id)
    assert store.finish(claim, State.uncertain, round=1, reason='held',
                        uncertain=1) is False
    assert store.message(POOL, claim.message_id) == before
    assert not store.claim_due('x', NOW + 98, NOW + 200)    # still held
    assert store.finish(claim, State.deferred, round=1, uncertain=0,
                        next_attempt_at=NOW + 70) is True
    told = store.message(POOL, claim.message_id)
    assert (told.state, told.next_attempt_at) == (State.deferred, NOW + 70)


@pytest.mark.parametrize('uncertain', [1, None], ids=['as many', 'unasked'])
def test_a_conclusion_that_rests_on_what_is_so_is_written(store, uncertain):
    _, claim = rescued(store)
    assert store.finish(claim, State.uncertain, round=1,
                        uncertain=uncertain) is True
    assert store.message(POOL, claim.message_id).state is State.uncertain


def test_only_an_accepted_replay_settles_what_it_asked_about(store):
    one, claim = add_claimed(store)
    first = attempt()
    claim = store.begin(claim, first, NOW + 60)
    store.end(ended(first, 'uncertain'), one.id)
    replay = attempt(replays=first.id)
    claim = store.begin(claim, replay, NOW + 60)
    assert not store.finish(claim, State.deferred, round=1, uncertain=0)
    store.end(ended(replay, 'deferred'), one.id)
    assert not store.finish(claim, State.deferred, round=1, uncertain=0)
    store.end(ended(replay, 'accepted'), one.id)
    told = store.message(POOL, one.id)
    assert [each.resolved for each in told.attempts] == ['replayed', None]
    assert not told.possible_duplicate


def test_without_the_claim_it_is_lost_not_to_be_drawn_anew(store):
    begun, claim = rescued(store)
    store.claim_due('third', NOW + 99, NOW + 150)
    store.end(ended(begun, 'deferred'), claim.message_id)
    with pytest.raises(LeaseLost):
        store.finish(claim, State.uncertain, round=1, uncertain=1)


def test_an_acceptance_that_came_between_leaves_nothing_to_finish(store):
    begun, claim = rescued(store)
    store.end(ended(begun, 'accepted'), claim.message_id)
    with pytest.raises(LeaseLost):
        store.finish(claim, State.uncertain, round=1, uncertain=1)
    assert store.message(POOL, claim.message_id).state is State.accepted


def late_for_some(store, message_id, begun, claim=None):
    store.end(begun.model_copy(update={
        'ended_at': NOW + 70,
        'outcome': fared(ann='accepted', bo='deferred')}), message_id, claim)


def test_who_holds_it_is_turned_away_by_an_end_for_some(store):
    begun, claim = rescued(store, recipients=[ANN, BO])
    late_for_some(store, claim.message_id, begun)
    for act in (
            lambda: store.begin(claim, attempt(), NOW + 99),
            lambda: store.finish(claim, State.uncertain, round=1,
                                 uncertain=1)):
        with pytest.raises(LeaseLost):
            act()
    [(_, anew)] = store.claim_due('next', NOW + 99, NOW + 150)
    assert statuses(anew)[0] == 'accepted'


def test_who_tells_it_itself_is_not_turned_away(store):
    begun, claim = rescued(store, recipients=[ANN, BO])
    late_for_some(store, claim.message_id, begun, claim)
    second = attempt(envelope=(BO,))
    claim = store.begin(claim, second, NOW + 99)
    store.end(ended(second, 'deferred'), claim.message_id, claim)
    assert store.finish(claim, State.deferred, round=1, uncertain=0,
                        next_attempt_at=NOW + 99)


def test_an_older_claim_turns_the_holder_away(store):
    begun, old = rescued(store, recipients=[ANN, BO])
    [(claim, _)] = store.claim_due('third', NOW + 99, NOW + 150)
    late_for_some(store, old.message_id, begun, old)
    for held in (old, claim):
        with pytest.raises(LeaseLost):
            store.begin(held, attempt(), NOW + 150)


# -- in a delivery -----------------------------------------------------------

class Meanwhile:
    """A store to which something happens just before the next `finish`."""

    def __init__(self, store, happens):
        self._store = store
        self._happens = [happens]
        self.finished = []

    def __getattr__(self, name):
        return getattr(self._store, name)

    def finish(self, claim, state, **more):
        if self._happens:
            self._happens.pop()()
        written = self._store.finish(claim, state, **more)
        self.finished.append((str(state), written))
        return written


@pytest.fixture
def world(tmp_path):
    there = World(tmp_path)
    yield there
    there.store.close()


def conclude_meanwhile(world, kinds, *pool, **fields):
    """Rescue a message whose attempt hangs, and let that end just before
    the rescuer gives it back; return what that wrote."""
    claim, _ = world.submit(**fields)
    begun = attempt(BEGIN, service='s1', provider='scripted')
    world.store.begin(claim, begun, BEGIN + 60)
    world.time.pass_by(61)
    ended_late = begun.model_copy(update={
        'ended_at': world.time.at, 'outcome': kinds})
    between = Meanwhile(world.store,
                        lambda: world.store.end(ended_late, ID))
    [(claim, claimed)] = world.store.claim_due(
        'rescuer', world.time.at, world.time.at + 30)
    world.dispatch._replace(store=between).deliver(
        claim, claimed, email, pool)
    return between.finished


@pytest.mark.parametrize('kind, state', [
    ('deferred', 'deferred'), ('refused', 'deferred'),
    ('unsupported', 'failed')])
def test_a_message_is_not_left_held_when_nothing_is_uncertain(
        world, kind, state):
    [one] = services('accepted')
    finished = conclude_meanwhile(
        world, outcome(kind), one, on_uncertain='hold')
    assert finished == [('uncertain', False), (state, True)]
    assert not one.calls
    told = world.message
    assert told.state == state
    if state == 'deferred':
        world.time.at = told.next_attempt_at
        assert world.deliver(one) == 1
        assert world.message.state is State.accepted
        assert not world.message.possible_duplicate


def test_one_that_is_uncertain_by_its_own_word_stays_held(world):
    [one] = services('accepted')
    finished = conclude_meanwhile(
        world, outcome('uncertain'), one, on_uncertain='hold')
    assert finished == [('uncertain', True)]
    assert world.message.next_attempt_at is None and not one.calls


def test_an_acceptance_ends_it_whoever_concludes(world):
    finished = conclude_meanwhile(
        world, outcome('accepted'), *services('accepted'),
        on_uncertain='hold')
    assert finished == []
    assert world.message.state is State.accepted


def test_one_that_expired_fails_only_when_nothing_is_uncertain(world):
    finished = conclude_meanwhile(
        world, outcome('deferred', reason='busy'), *services('accepted'),
        expires_at=BEGIN + 30)
    assert finished == [('uncertain', False), ('failed', True)]


def test_an_end_for_some_leaves_the_conclusion_to_the_next(world):
    second = Mixed('s2', outcome('accepted'))
    finished = conclude_meanwhile(
        world, fared(ann='accepted', bo='deferred'), second,
        recipients=THREE[:2], on_uncertain='hold')
    assert finished == [] and not second.calls
    world.time.pass_by(31)
    assert world.deliver(second) == 1
    assert [call.envelope for call in second.calls] == [(BO,)]
    assert statuses(world.message) == ['accepted', 'accepted']


def test_a_proof_leaves_no_later_attempt_open(store):
    first, claim = rescued(store)
    later = attempt(NOW + 41)
    store.begin(claim, later, NOW + 90)
    store.end(ended(first, 'accepted'), claim.message_id)
    told = store.message(POOL, claim.message_id)
    assert told.state is State.accepted
    assert told.attempts[-1].is_uncertain
    assert told.possible_duplicate
    store.end(ended(later, 'deferred', NOW + 50), claim.message_id)
    assert not store.message(POOL, claim.message_id).is_uncertain


def test_an_uncertain_end_takes_back_that_somebody_is_surely_rejected(store):
    both = 'good@example.org', 'bad@example.org'
    one, claim = add_claimed(store, recipients=both)
    first = attempt()
    claim = store.begin(claim, first, NOW + 60)
    store.end(ended(first, 'uncertain'), one.id)
    second = attempt(NOW + 2)
    store.begin(claim, second, NOW + 60)
    store.end(ended(first, 'accepted', recipients=(
        RecipientOutcome(email=both[0], kind=Kind.accepted),
        RecipientOutcome(email=both[1], kind=Kind.rejected, reason='no'))),
        one.id)
    store.end(ended(second, 'uncertain', NOW + 9), one.id)
    told = store.message(POOL, one.id)
    assert [each.status for each in told.recipients] == [
        State.accepted, State.uncertain]


def test_a_proof_between_an_end_and_the_conclusion_stands(store):
    """Who concludes knows less of the recipients: the fence says so."""
    both = 'one@example.org', 'two@example.org'
    message, claim = add_claimed(store, recipients=both)
    begun = attempt()
    claim = store.begin(claim, begun, NOW + 60)

    def told(kind):
        return ended(begun, 'accepted', recipients=(
            RecipientOutcome(email=both[0], kind=Kind.accepted),
            RecipientOutcome(email=both[1], kind=Kind(kind))))

    store.end(told('deferred'), message.id)
    store.end(told('deferred'), message.id)     # the same again is no news
    assert store.begin(claim, attempt(NOW + 2), NOW + 70)
    store.end(told('accepted'), message.id)
    with pytest.raises(LeaseLost):
        store.finish(claim, State.deferred, round=1)
    assert store.message(POOL, message.id).state is State.accepted


@pytest.mark.parametrize('told', [(), (
    RecipientOutcome(email='to@example.org', kind=Kind.accepted),
    RecipientOutcome(email='bad@example.org', kind=Kind.rejected))],
    ids=['alike', 'told apart'])
def test_a_proof_settles_the_replay_that_is_still_open(store, told):
    both = 'to@example.org', 'bad@example.org'
    first, claim = rescued(store, recipients=both)
    claim = store.begin(claim, attempt(NOW + 62, replays=first.id), NOW + 90)
    store.end(ended(first, 'accepted', recipients=told), claim.message_id)
    after = store.message(POOL, claim.message_id)
    assert [one.resolved for one in after.attempts] == [None, 'replayed']
    assert not after.is_uncertain and not after.possible_duplicate
    assert [one.status for one in after.recipients] == [
        State.accepted, State.rejected if told else State.accepted]


def test_a_proof_against_a_known_end_leaves_no_later_attempt_open(store):
    one, claim = add_claimed(store)
    first = attempt()
    claim = store.begin(claim, first, NOW + 60)
    store.end(ended(first, 'deferred'), one.id)
    store.begin(claim, attempt(NOW + 2), NOW + 60)
    store.end(ended(first, 'accepted'), one.id)
    told = store.message(POOL, one.id)
    assert told.attempts[-1].is_uncertain
    assert told.state is State.accepted and told.possible_duplicate
