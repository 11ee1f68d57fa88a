"""Recipients that fare differently in one attempt.

Everything is real here but the services, which answer as scripted.
"""

import pytest

from stampman.helpers.delivery import (
    Kind, Recipient, RecipientOutcome, State, together)

from deliveries import ID, World, send
from fakes import NOW, ScriptedService, outcome
from mixed import ANN, BO, CY, THREE, Mixed, fared, statuses


@pytest.fixture
def world(tmp_path):
    there = World(tmp_path)
    yield there
    there.store.close()


def test_each_recipient_keeps_its_own_status_reason_and_id(world):
    first = ScriptedService('s1', fared(
        ann='accepted', bo='rejected', cy='accepted'))
    done = send(world, first, recipients=THREE)
    assert done.state is State.accepted
    assert statuses(done) == ['accepted', 'rejected', 'accepted']
    assert [one.provider_message_id for one in done.recipients] == [
        'id-of-ann', None, 'id-of-cy']
    assert done.recipients[1].reason == 'bo is rejected'
    assert done.next_attempt_at is None and not done.possible_duplicate


def test_who_is_deferred_is_tried_again_alone_by_the_next_service(world):
    first = ScriptedService('s1', fared(
        ann='accepted', bo='deferred', cy='rejected'))
    second = Mixed('s2', outcome('accepted', provider_message_id='id-2'))
    done = send(world, first, second, recipients=THREE)
    assert done.state is State.accepted
    assert statuses(done) == ['accepted', 'accepted', 'rejected']
    assert [one.provider_message_id for one in done.recipients] == [
        'id-of-ann', 'id-2', None]
    assert [call.envelope for call in second.calls] == [(BO,)]
    assert [one.envelope for one in done.attempts] == [None, (BO,)]
    assert not done.possible_duplicate


def test_after_one_is_accepted_the_email_never_fails_over_as_a_whole(world):
    first = ScriptedService('s1', fared(ann='accepted', bo='deferred'))
    whole = ScriptedService('s2', outcome('accepted'))
    done = send(world, first, whole, recipients=THREE[:2])
    assert not whole.calls
    assert done.state is State.accepted
    assert statuses(done) == ['accepted', 'rejected']
    assert done.recipients[1].reason == (
        'no service can send to them alone: s1: 1 of 2 recipients deferred: '
        'bo is deferred')


@pytest.mark.parametrize('kind', ['deferred', 'refused', 'unsupported'])
def test_who_is_left_waits_while_a_service_can_send_to_it_alone(world, kind):
    service = Mixed('s1', fared(ann='accepted', bo=kind),
                    outcome('deferred'), outcome('accepted'))
    done = send(world, service, recipients=THREE[:2])
    assert done.state is State.deferred
    assert statuses(done) == ['accepted', 'deferred']
    assert done.next_attempt_at > NOW
    for _ in range(2):
        world.time.pass_by(900)
        world.deliver(service)
    assert world.message.state is State.accepted
    assert statuses(world.message) == ['accepted', 'accepted']
    assert [call.envelope for call in service.calls] == [
        None, (BO,), (BO,)]


def test_who_is_left_fails_by_time_and_the_message_stays_accepted(world):
    service = Mixed('s1', fared(ann='accepted', bo='deferred'))
    send(world, service, recipients=THREE[:2], expires_at=NOW + 20)
    world.time.pass_by(20)
    world.deliver(service)
    assert world.message.state is State.accepted
    assert statuses(world.message) == ['accepted', 'failed']
    assert world.message.recipients[1].reason.startswith('expired: s1')


@pytest.mark.parametrize('rest, state, status', [
    ('accepted', 'accepted', 'accepted'), ('rejected', 'rejected', 'rejected'),
    ('uncertain', 'uncertain', 'uncertain'),
    ('unsupported', 'rejected', 'rejected')])
def test_where_nobody_was_accepted_the_rest_decides(
        world, rest, state, status):
    service = Mixed('s1', fared(ann='rejected', bo='deferred'))
    second = Mixed('s2', outcome(rest))
    done = send(world, service, second, recipients=THREE[:2],
                on_uncertain='hold')
    world.time.pass_by(900)
    if done.state is State.deferred:        # s1 is asked again, alone
        service.outcomes = [outcome('unsupported')]
        world.deliver(service, second)
    assert world.message.state is State(state)
    assert statuses(world.message) == ['rejected', status]


def test_who_is_not_named_where_others_are_taken_is_not_sent_to_again(world):
    first = ScriptedService('s1', fared(ann='accepted', bo='uncertain'))
    second = Mixed('s2', outcome('accepted'))
    done = send(world, first, second, recipients=THREE[:2])
    assert done.state is State.accepted
    assert statuses(done) == ['accepted', 'uncertain']
    assert not second.calls


def test_time_after_the_dot_is_uncertain_for_those_it_was_for(world):
    """SMTP: one is refused, one put off, and no reply to the rest."""
    first = Mixed('s1', fared(ann='uncertain', bo='rejected', cy='deferred'))
    second = Mixed('s2', outcome('accepted'))
    done = send(world, first, second, recipients=THREE)
    assert done.state is State.accepted and done.possible_duplicate
    assert statuses(done) == ['accepted', 'rejected', 'accepted']
    assert second.calls[0].envelope == (ANN, CY)


def test_under_hold_the_uncertain_wait_for_a_person_and_then_the_rest_goes(
        world):
    service = Mixed('s1', fared(ann='uncertain', bo='rejected',
                                cy='deferred'), outcome('accepted'))
    done = send(world, service, recipients=THREE, on_uncertain='hold')
    assert done.state is State.uncertain and done.next_attempt_at is None
    assert statuses(done) == ['uncertain', 'rejected', 'deferred']
    told = world.store.change(
        'example.com', ID, [State.uncertain], State.accepted,
        resolved='accepted', others_at=world.time.at)
    assert told.state is State.deferred
    assert statuses(told) == ['accepted', 'rejected', 'deferred']
    world.deliver(service)
    assert world.message.state is State.accepted
    assert statuses(world.message) == ['accepted', 'rejected', 'accepted']
    assert service.calls[-1].envelope == (CY,)


def test_not_sent_fails_the_uncertain_and_keeps_the_accepted(world):
    service = Mixed('s1', fared(ann='accepted', bo='deferred'),
                    outcome('uncertain'))
    send(world, service, recipients=THREE[:2], on_uncertain='hold')
    world.time.pass_by(900)
    world.deliver(service)
    assert world.message.state is State.uncertain
    assert statuses(world.message) == ['accepted', 'uncertain']
    told = world.store.change(
        'example.com', ID, [State.uncertain], State.failed,
        resolved='not_sent')
    assert told.state is State.accepted
    assert statuses(told) == ['accepted', 'failed']


def test_send_again_goes_to_the_uncertain_alone(world):
    service = Mixed('s1', fared(ann='accepted', bo='deferred'),
                    outcome('uncertain'), outcome('accepted'))
    send(world, service, recipients=THREE[:2], on_uncertain='hold')
    world.time.pass_by(900)
    world.deliver(service)
    world.store.change(
        'example.com', ID, [State.uncertain], State.queued, restart=True,
        next_attempt_at=world.time.at)
    world.deliver(service)
    assert service.calls[-1].envelope == (BO,)
    assert world.message.state is State.accepted
    assert world.message.possible_duplicate


def test_a_cancelled_rest_leaves_what_was_accepted(world):
    service = Mixed('s1', fared(ann='accepted', bo='deferred'))
    send(world, service, recipients=THREE[:2])
    told = world.store.change(
        'example.com', ID, [State.deferred], State.cancelled,
        reason='cancelled by a person')
    assert told.state is State.accepted and told.next_attempt_at is None
    assert statuses(told) == ['accepted', 'cancelled']
    assert told.recipients[1].reason == 'cancelled by a person'


def test_a_crash_in_an_attempt_for_some_is_uncertain_for_those_alone(world):
    service = Mixed('s1', fared(ann='accepted', bo='deferred',
                                cy='rejected'))
    send(world, service, recipients=THREE, on_uncertain='hold')
    world.time.pass_by(900)
    [(claim, claimed)] = world.store.claim_due(
        'gone', world.time.at, world.time.at + 30)
    attempt = claimed.attempts[0].model_copy(update={
        'id': '01890000-0000-7000-8000-000000000999', 'outcome': None,
        'ended_at': None, 'round': 1, 'envelope': (BO,)})
    world.store.begin(claim, attempt, world.time.at + 30)
    world.time.pass_by(31)
    world.deliver(service)
    assert world.message.state is State.uncertain
    assert statuses(world.message) == ['accepted', 'uncertain', 'rejected']
    assert world.message.attempts[1].envelope == (BO,)
    world.store.end(attempt.model_copy(update={     # it had got through
        'ended_at': world.time.at, 'outcome': outcome('accepted')}), ID)
    assert world.message.state is State.accepted
    assert statuses(world.message) == ['accepted', 'accepted', 'rejected']


def test_a_late_proof_for_some_ends_a_message_that_had_failed(world):
    late = Mixed('s1', outcome('uncertain'))
    send(world, late, recipients=THREE[:2], on_uncertain='hold')
    world.store.change('example.com', ID, [State.uncertain], State.failed,
                       resolved='not_sent')
    attempt = world.message.attempts[0].model_copy(update={
        'outcome': fared(ann='accepted', bo='deferred')})
    world.store.end(attempt, ID)
    assert world.message.state is State.accepted
    assert statuses(world.message) == ['accepted', 'failed']


def test_two_acceptances_of_one_recipient_are_a_possible_duplicate(world):
    service = Mixed('s1', outcome('uncertain'), fared(
        ann='accepted', bo='accepted'))
    send(world, service, recipients=THREE[:2])
    world.time.pass_by(900)
    world.deliver(service)
    first = world.message.attempts[0].model_copy(update={
        'outcome': outcome('accepted')})
    world.store.end(first, ID)
    assert world.message.possible_duplicate


@pytest.mark.parametrize('kinds, kind, reason', [
    ({'ann': 'accepted', 'bo': 'uncertain'}, 'accepted',
     '1 of 2 recipients uncertain: bo is uncertain'),
    ({'ann': 'rejected', 'bo': 'uncertain'}, 'uncertain',
     '1 of 2 recipients rejected: ann is rejected; '
     '1 of 2 recipients uncertain: bo is uncertain'),
    ({'ann': 'rejected', 'bo': 'unsupported'}, 'unsupported',
     '1 of 2 recipients rejected: ann is rejected; '
     '1 of 2 recipients unsupported: bo is unsupported'),
    ({'bo': 'rejected'}, 'rejected', 'bo is rejected')])
def test_an_attempt_comes_to_the_most_hopeful_that_is_not_settled(
        kinds, kind, reason):
    result = fared(**kinds)
    assert (result.kind, result.reason) == (kind, reason)
    assert len(result.recipients) == (len(kinds) if len(kinds) > 1 else 0)


def test_a_thousand_recipients_are_told_apart_in_reasonable_time(world):
    many = tuple(Recipient(email=f'r{n}@example.org', kind='to',
                           status='sending') for n in range(1000))
    result = together([RecipientOutcome(
        email=one.email, kind=Kind('deferred' if n % 2 else 'accepted'))
        for n, one in enumerate(many)])
    service = Mixed('s1', result, outcome('accepted'))
    done = send(world, service, recipients=many)
    assert statuses(done).count('accepted') == 500
    world.time.pass_by(900)
    world.deliver(service)
    assert statuses(world.message).count('accepted') == 1000


# -- what is concluded behind an attempt that told them apart -----------------

def test_a_rejection_of_the_whole_is_everybody_s(world):
    first = ScriptedService('s1', together([
        RecipientOutcome(email=ANN, kind=Kind.unsupported, reason='a list'),
        RecipientOutcome(email=BO, kind=Kind.unsupported, reason='a rule')]))
    second = ScriptedService('s2', outcome('rejected', reason='no address'))
    done = send(world, first, second, recipients=THREE[:2])
    assert done.state is State.rejected
    assert statuses(done) == ['rejected', 'rejected']
    assert {one.reason for one in done.recipients} == {'no address'}


def test_a_rejection_beside_doubt_leaves_everybody_in_doubt(world):
    services = [
        ScriptedService('s1', together([
            RecipientOutcome(email=ANN, kind=Kind.deferred, reason='a'),
            RecipientOutcome(email=BO, kind=Kind.deferred, reason='b')])),
        ScriptedService('s2', outcome('uncertain', reason='silence')),
        ScriptedService('s3', outcome('rejected'))]
    done = send(world, *services, recipients=THREE[:2])
    assert done.state is State.uncertain and done.next_attempt_at is None
    assert statuses(done) == ['uncertain', 'uncertain']


def test_send_again_does_not_mail_who_was_rejected(world):
    service = Mixed('s1', fared(ann='rejected', bo='deferred'),
                    outcome('uncertain'), outcome('accepted'))
    send(world, service, recipients=THREE[:2], on_uncertain='hold')
    world.time.pass_by(900)
    world.deliver(service)
    told = world.store.change(
        'example.com', ID, [State.uncertain], State.queued, restart=True,
        next_attempt_at=world.time.at)
    assert statuses(told) == ['rejected', 'queued']
    world.deliver(service)
    assert service.calls[-1].envelope == (BO,)
    assert statuses(world.message) == ['rejected', 'accepted']


def test_a_retry_of_what_was_rejected_is_for_everybody(world):
    service = Mixed('s1', together([
        RecipientOutcome(email=ANN, kind=Kind.rejected, reason='a'),
        RecipientOutcome(email=BO, kind=Kind.rejected, reason='b')]),
        outcome('accepted'))
    send(world, service, recipients=THREE[:2])
    told = world.store.change(
        'example.com', ID, [State.rejected], State.queued, restart=True,
        next_attempt_at=world.time.at)
    assert statuses(told) == ['queued', 'queued']
    world.deliver(service)
    assert service.calls[-1].envelope is None
    assert statuses(world.message) == ['accepted', 'accepted']


def test_who_may_have_it_beside_others_stays_so_whatever_is_said(world):
    service = Mixed('s1', fared(ann='accepted', bo='uncertain',
                                cy='deferred'), outcome('uncertain'),
                    outcome('accepted'))
    send(world, service, recipients=THREE, on_uncertain='hold')
    world.time.pass_by(900)
    world.deliver(service)
    world.store.change(
        'example.com', ID, [State.uncertain], State.queued, restart=True,
        next_attempt_at=world.time.at)
    world.deliver(service)
    assert [call.envelope for call in service.calls] == [
        None, (CY,), (CY,)]
    assert statuses(world.message) == ['accepted', 'uncertain', 'accepted']


def test_a_service_that_could_not_carry_it_to_all_may_to_some(world):
    first = Mixed('s1', outcome('unsupported'), outcome('accepted'))
    second = ScriptedService('s2', fared(ann='accepted', bo='deferred'))
    send(world, first, second, recipients=THREE[:2])
    world.time.pass_by(900)
    world.deliver(first, second)
    assert world.message.state is State.accepted
    assert statuses(world.message) == ['accepted', 'accepted']
    assert [call.envelope for call in first.calls] == [None, (BO,)]
