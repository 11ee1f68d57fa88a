"""An attempt that tells recipients apart, and ends behind its rescue."""

import pytest

from stampman.helpers.delivery import State

from deliveries import ID, World, send
from fakes import ScriptedService, email, outcome
from mixed import BO, THREE, Mixed, fared, statuses


@pytest.fixture
def world(tmp_path):
    there = World(tmp_path)
    yield there
    there.store.close()


def late(world, **kinds):
    """Let the first attempt end after all, as if its process had hung."""
    world.store.end(world.message.attempts[0].model_copy(update={
        'outcome': fared(**kinds)}), ID)


@pytest.fixture
def retried(world):
    """A message that a person said was not sent, and set going again."""
    send(world, Mixed('s1', outcome('uncertain')), recipients=THREE[:2],
         on_uncertain='hold')
    world.store.change('example.com', ID, [State.uncertain], State.failed,
                       resolved='not_sent')
    world.store.change('example.com', ID, [State.failed], State.queued,
                       restart=True, next_attempt_at=world.time.at)
    return world


@pytest.mark.parametrize('kind', ['deferred', 'unsupported', 'rejected'])
def test_a_late_proof_in_the_middle_of_another_round_is_not_undone(
        retried, kind):
    world = retried
    second = Mixed('s2', outcome(kind), outcome('accepted'))
    second.during = lambda: late(world, ann='accepted', bo='deferred')
    whole = ScriptedService('s3', outcome('accepted'))
    world.deliver(second, whole)
    assert world.message.recipients[0].status == 'accepted'
    assert not whole.calls      # who went on knew too little
    second.during = None
    for _ in range(2):      # the round that was lost, and the next
        world.time.pass_by(900)
        world.deliver(second)
    assert world.message.state is State.accepted
    assert world.message.recipients[0].status == 'accepted'
    assert [call.envelope for call in second.calls][1:] in ([], [(BO,)])


def test_a_late_proof_before_the_round_has_begun_is_not_overlooked(retried):
    world = retried
    [(claim, claimed)] = world.store.claim_due(
        'slow', world.time.at, world.time.at + 30)
    late(world, ann='accepted', bo='deferred')
    second = Mixed('s2', outcome('accepted'))
    world.dispatch.deliver(claim, claimed, email, [second])
    assert not second.calls
    world.time.pass_by(31)
    world.deliver(second)
    assert [call.envelope for call in second.calls] == [(BO,)]
    assert statuses(world.message) == ['accepted', 'accepted']


def test_taken_once_and_perhaps_once_more_is_a_possible_duplicate(retried):
    world = retried
    second = Mixed('s2', outcome('uncertain'))
    world.deliver(second)
    assert not world.message.possible_duplicate
    world.store.end(world.message.attempts[0].model_copy(update={
        'outcome': outcome('accepted')}), ID)
    assert world.message.state is State.accepted
    assert world.message.possible_duplicate
