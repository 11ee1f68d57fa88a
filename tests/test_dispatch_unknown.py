"""A commit that is not answered, as an attempt begins: look, and go on."""

import pytest

from stampman.helpers.delivery import Kind, State
from stampman.helpers.exceptions import CommitUnknown, StoreUnavailable

from deliveries import World, send, services
from fakes import NOW, ScriptedService, email, outcome

DONE, UNDONE = True, False


@pytest.fixture
def world(tmp_path):
    there = World(tmp_path)
    there.book = {}
    yield there
    there.store.close()


class Unanswered:
    """A store that does not answer some of its commits of a begin, and may
    be away for a while then.

    `begins` says of each whether it happens. `away` is how often it cannot
    be asked after the first, `late` whether that one happens only then.
    """

    def __init__(self, store, *begins, away=0, late=False):
        self._store = store
        self._begins = list(begins)
        self._away = 0
        self._stays_away = away
        self._late = late
        self.tried = []

    def __getattr__(self, name):
        return getattr(self._store, name)

    def begin(self, *about):
        self._ask()
        self.tried.append(about[1].id)
        if not self._begins:
            return self._store.begin(*about)
        happens = self._begins.pop(0)
        self._away, self._stays_away = self._stays_away, 0
        if self._late:
            self._late = False
            self._comes = lambda: self._store.begin(*about)
        elif happens:
            self._store.begin(*about)
        raise CommitUnknown('a commit is not answered')

    def message(self, *about):
        self._ask()
        return self._store.message(*about)

    _comes = None

    def _ask(self):
        if self._away:
            self._away -= 1
            raise StoreUnavailable('it is away')

    def comes(self):
        self._comes()


def unanswered(world, *begins, **about):
    store = Unanswered(world.store, *begins, **about)
    world.dispatch = world.dispatch._replace(store=store)
    return store


@pytest.mark.parametrize('policy', ['hold', 'failover'])
@pytest.mark.parametrize('begins', [
    [DONE], [UNDONE], [UNDONE, UNDONE], [UNDONE, DONE]])
@pytest.mark.parametrize('away', [0, 3])
def test_it_is_found_out_and_the_attempt_goes_on(
        world, policy, begins, away):
    store = unanswered(world, *begins, away=away)
    [only] = services('accepted')
    done = send(world, only, on_uncertain=policy)
    assert done.state is State.accepted and not done.possible_duplicate
    assert len(only.calls) == len(done.attempts) == 1
    assert set(store.tried) == {done.attempts[0].id}
    assert sum(world.pauses) == 0.5 * (len(begins) + away)


@pytest.mark.parametrize('begins', [DONE, UNDONE])
def test_what_is_known_too_late_for_a_call_is_put_off(world, begins):
    """Nobody was called, and that is known: it is due at once."""
    store = unanswered(world, begins, away=12)
    [only] = services('accepted')
    done = send(world, only, on_uncertain='hold')
    assert not only.calls and len(store.tried) == (1 if begins else 2)
    assert (done.state, done.next_attempt_at) == (
        State.deferred, world.time.at)
    [attempt] = done.attempts
    assert attempt.outcome.kind is Kind.deferred
    assert world.store.health() == {}       # the provider is as well as ever
    assert world.deliver(only)
    assert world.message.state is State.accepted and len(only.calls) == 1


def test_a_commit_that_comes_late_is_the_only_one(world):
    """Between a look that finds nothing and the next try."""
    store = unanswered(world, UNDONE, late=True)

    def look(*about):
        found = Unanswered.message(store, *about)
        if store._comes:
            store.comes()
            store._comes = None
        return found

    store.message = look
    [only] = services('accepted')
    done = send(world, only, on_uncertain='hold')
    assert done.state is State.accepted
    assert len(only.calls) == len(done.attempts) == 1


@pytest.mark.parametrize('begins, policy, state', [
    (DONE, 'hold', State.uncertain), (UNDONE, 'hold', State.accepted),
    (DONE, 'failover', State.accepted)])
def test_what_stays_unknown_is_left_to_the_rescue(
        world, begins, policy, state):
    """Nobody is called before it is known, and nobody can know for long."""
    unanswered(world, begins, away=1000)
    claim, stored = world.submit(on_uncertain=policy)
    first, second = services('accepted', 'accepted')
    left = world.dispatch.deliver(claim, stored, email, [first, second])
    assert left.state is State.sending and not first.calls
    assert 39.0 < world.time.at - NOW < 45.0    # as long as its lease
    world.dispatch = world.dispatch._replace(store=world.store)
    world.time.pass_by(60)
    world.deliver(first, second)
    assert world.message.state is state
    assert len(first.calls) + len(second.calls) == (
        state is State.accepted)


def test_a_request_does_not_wait_for_it_beyond_its_time(world):
    unanswered(world, DONE, away=1000)
    claim, stored = world.submit()
    until = world.time.clock.monotonic() + 4.0
    [only] = services('accepted')
    left = world.dispatch.deliver(claim, stored, email, [only], until)
    assert left.state is State.sending and not only.calls
    assert world.time.at - NOW <= 4.5


def test_a_process_that_is_told_to_stop_does_not_wait_for_it(world):
    unanswered(world, DONE, away=1000)
    world.dispatch = world.dispatch._replace(
        stops_at=lambda: world.time.clock.monotonic() + (
            20.0 if world.time.at == NOW else 0.0))
    claim, stored = world.submit()
    [only] = services('accepted')
    left = world.dispatch.deliver(claim, stored, email, [only])
    assert left.state is State.sending and not only.calls


@pytest.mark.parametrize('begins', [DONE, UNDONE])
def test_whoever_was_rescued_meanwhile_calls_nobody(world, begins):
    """The lease runs out while nobody answers, and another goes on."""
    store = unanswered(world, begins)
    claim, stored = world.submit(on_uncertain='hold')
    [only] = services('accepted')
    other = ScriptedService('s1', outcome('deferred'))

    def rescued(seconds):
        world.time.pass_by(60)
        world.dispatch._replace(
            store=world.store, pause=world.pause).deliver(
            *world.store.claim_due('other', world.time.at,
                                   world.time.at + 30)[0],
            email, [other])

    world.dispatch = world.dispatch._replace(pause=rescued)
    world.dispatch.deliver(claim, stored, email, [only])
    assert not only.calls and len(store.tried) == 1
    assert world.message.state is (
        State.uncertain if begins else State.deferred)
    assert len(world.message.attempts) == 1


def test_what_refuses_it_in_earnest_is_told(world):
    """A bug is not taken for a commit that was faster."""
    class Broken(Unanswered):
        def begin(self, *about):
            if self.tried:
                raise ZeroDivisionError
            return super().begin(*about)

    store = Broken(world.store, UNDONE)
    world.dispatch = world.dispatch._replace(store=store)
    with pytest.raises(ZeroDivisionError):
        send(world, *services('accepted'))
