"""The walk of a pool: who is asked next, and who is not."""

import math

import pytest

from stampman.helpers.delivery import Kind
from stampman.helpers.exceptions import LeaseLost
from stampman.services.base import SendContext
from stampman.services.pool import UNFINISHED, PooledEmailService

from fakes import (
    EveryoneIsWell, MemoryJournal, ScriptedService, Time, email, message,
    outcome)

ANY_TIME = SendContext('m', '', math.inf)


def walk(*services, until=math.inf, resting=(), **fields):
    """Walk once; return the outcome, the journal and the health."""
    time = Time()
    journal = MemoryJournal(message(**fields), time)
    health = EveryoneIsWell(resting)
    pool = PooledEmailService(services, journal, health, time.clock)
    return pool.send_email(
        email(), SendContext('m', '', until)), journal, health


def test_the_first_service_that_accepts_ends_the_walk():
    first = ScriptedService('first', outcome('accepted'))
    second = ScriptedService('second', outcome('accepted'))
    result, journal, _ = walk(first, second)
    assert result.kind is Kind.accepted
    assert journal.entries == [
        ('begin', 'first'), ('end', 'first', Kind.accepted)]
    assert not second.calls


@pytest.mark.parametrize('kind, asked_next', [
    ('rejected', False), ('unsupported', True), ('refused', True),
    ('deferred', True), ('uncertain', True)])
def test_the_kind_decides_whether_the_next_service_is_asked(
        kind, asked_next):
    second = ScriptedService('second', outcome('accepted'))
    walk(ScriptedService('first', outcome(kind)), second)
    assert len(second.calls) == asked_next


def test_every_attempt_is_written_before_and_after_the_call():
    seen = []
    service = ScriptedService('only', outcome('deferred'))
    time = Time()
    journal = MemoryJournal(message(), time)
    service.during = lambda: seen.append(list(journal.entries))
    PooledEmailService([service], journal, EveryoneIsWell(),
                       time.clock).send_email(email(), ANY_TIME)
    assert seen == [[('begin', 'only')]]
    assert journal.entries[-1] == ('end', 'only', Kind.deferred)


def test_nothing_is_called_when_the_journal_cannot_be_written():
    class Lost(MemoryJournal):
        def begin(self, service, seconds, replays=None):
            raise LeaseLost()

    service = ScriptedService('only', outcome('accepted'))
    time = Time()
    pool = PooledEmailService([service], Lost(message(), time),
                              EveryoneIsWell(), time.clock)
    with pytest.raises(LeaseLost):
        pool.send_email(email(), ANY_TIME)
    assert not service.calls


def test_an_uncertain_attempt_holds_the_message_where_the_pool_holds():
    second = ScriptedService('second', outcome('accepted'))
    result, _, _ = walk(ScriptedService('first', outcome('uncertain')),
                        second, on_uncertain='hold')
    assert result.kind is Kind.uncertain
    assert not second.calls


def test_three_uncertain_attempts_hold_the_message():
    services = [ScriptedService(f's{n}', outcome('uncertain'))
                for n in range(5)]
    walk(*services)
    assert [len(service.calls) for service in services] == [1, 1, 1, 0, 0]


def test_a_bug_in_a_service_is_uncertain_and_fails_over():
    second = ScriptedService('second', outcome('accepted'))
    result, journal, _ = walk(
        ScriptedService('first', RuntimeError('secret')), second)
    assert result.kind is Kind.accepted
    first = journal.message.attempts[0].outcome
    assert first.kind is Kind.uncertain and first.alert
    assert 'secret' not in first.reason


def test_a_resting_service_is_passed_over_without_an_attempt():
    second = ScriptedService('second', outcome('accepted'))
    first = ScriptedService('first', outcome('accepted'))
    _, journal, _ = walk(first, second, resting=('first',))
    assert not first.calls
    assert [one.service for one in journal.message.attempts] == ['second']


def test_an_attempt_tells_who_was_passed_over():
    _, journal, _ = walk(
        ScriptedService('first', outcome('accepted')),
        ScriptedService('second', outcome('deferred')),
        ScriptedService('third', outcome('accepted')), resting=('first',))
    assert [one.outcome.passed_over for one in journal.message.attempts] == [
        ('first',), ('first',)]


def test_the_walk_says_that_all_services_rest():
    result, journal, _ = walk(
        ScriptedService('a', outcome('accepted')),
        ScriptedService('b', outcome('accepted')), resting=('a', 'b'))
    assert result.kind is Kind.deferred
    assert result.reason == 'resting: a, b'
    assert not journal.entries


def test_no_service_is_begun_that_may_last_beyond_the_deadline():
    time = Time()
    first = ScriptedService('first', outcome('deferred'), timeout=10)
    first.during = lambda: time.pass_by(9)
    second = ScriptedService('second', outcome('accepted'), timeout=10)
    journal = MemoryJournal(message(), time)
    result = PooledEmailService(
        [first, second], journal, EveryoneIsWell(), time.clock).send_email(
            email(), SendContext('m', '', time.clock.monotonic() + 15))
    assert result.code == UNFINISHED
    assert not second.calls


def test_the_first_service_gets_the_time_there_is():
    """A large email would never be sent in a request otherwise."""
    time = Time()
    large = ScriptedService('first', outcome('accepted'), timeout=60)
    journal = MemoryJournal(message(), time)
    until = time.clock.monotonic() + 25
    result = PooledEmailService(
        [large], journal, EveryoneIsWell(), time.clock).send_email(
            email(), SendContext('m', '', until))
    assert result.kind is Kind.accepted
    assert large.calls[0].deadline == until


def test_without_any_time_nothing_is_begun():
    result, journal, _ = walk(
        ScriptedService('first', outcome('accepted')), until=1.0)
    assert result.code == UNFINISHED
    assert not journal.entries


def test_a_round_goes_on_behind_the_services_it_has_tried():
    first = ScriptedService('first', outcome('deferred'))
    second = ScriptedService('second', outcome('accepted'))
    _, journal, _ = walk(first)
    walk(first, second, attempts=journal.message.attempts)
    assert len(first.calls) == 1
    assert len(second.calls) == 1


def test_the_next_round_begins_with_the_first_service_again():
    first = ScriptedService('first', outcome('deferred'))
    _, journal, _ = walk(first)
    walk(first, attempts=journal.message.attempts, round=1)
    assert len(first.calls) == 2


def test_who_cannot_carry_the_email_is_not_asked_in_a_later_round():
    first = ScriptedService('first', outcome('unsupported'))
    _, journal, _ = walk(first)
    walk(first, attempts=journal.message.attempts, round=1)
    assert len(first.calls) == 1


@pytest.mark.parametrize('kinds, best', [
    (['deferred', 'accepted'], 'accepted'),
    (['uncertain', 'rejected'], 'uncertain'),
    (['refused', 'deferred'], 'deferred'),
    (['unsupported', 'refused'], 'refused'),
    (['unsupported', 'unsupported'], 'unsupported')])
def test_the_most_hopeful_outcome_stands_for_the_walk(kinds, best):
    result, _, _ = walk(*(ScriptedService(f's{n}', outcome(kind))
                          for n, kind in enumerate(kinds)))
    assert result.kind is Kind(best)


def test_health_learns_of_every_call():
    _, _, health = walk(ScriptedService('a', outcome('deferred')),
                        ScriptedService('b', outcome('accepted')))
    assert health.recorded == [('a', Kind.deferred), ('b', Kind.accepted)]


class Patient(ScriptedService):
    patience = 60.0


@pytest.mark.parametrize('until, allowed', [(math.inf, 70.0), (25.0, 25.0)])
def test_a_service_that_is_waited_for_gets_what_time_there_is(
        until, allowed):
    service = Patient('only', outcome('accepted'), timeout=10)
    until += Time().clock.monotonic()
    walk(service, until=until)
    [call] = service.calls
    assert call.deadline - Time().clock.monotonic() == allowed


def test_its_patience_does_not_keep_a_service_from_being_asked():
    second = Patient('second', outcome('accepted'), timeout=10)
    walk(ScriptedService('first', outcome('deferred')), second,
         until=Time().clock.monotonic() + 25)
    assert second.calls


# -- an attempt that was long in being written down --------------------------

class Slow(MemoryJournal):
    """It takes so many seconds to begin an attempt, the first time."""

    def __init__(self, message, time, seconds):
        super().__init__(message, time)
        self.seconds = seconds

    def begin(self, *about):
        context = super().begin(*about)
        self.time.pass_by(self.seconds)
        self.seconds = 0.0
        return context


def walk_slowly(seconds, *services, resting=()):
    time, health = Time(), EveryoneIsWell(resting)
    journal = Slow(message(), time, seconds)
    pool = PooledEmailService(services, journal, health, time.clock)
    return pool.send_email(email(), ANY_TIME), journal, health, pool


@pytest.mark.parametrize('seconds', [5.1, 11.0, 60.0])
def test_a_service_for_which_no_time_is_left_is_not_called(seconds):
    """Nobody learns anything of it: that was the database."""
    first = ScriptedService('first', outcome('accepted'))
    second = ScriptedService('second', outcome('accepted'))
    result, journal, health, _ = walk_slowly(seconds, first, second)
    assert not first.calls and not second.calls
    assert (result.kind, result.code) == (Kind.deferred, UNFINISHED)
    assert journal.entries == [
        ('begin', 'first'), ('end', 'first', Kind.deferred)]
    assert health.recorded == [('first', None)]
    assert 'not called' in journal.message.attempts[0].outcome.reason


def test_while_half_of_the_time_is_left_it_is_called():
    only = ScriptedService('only', outcome('deferred'))
    _, _, health, _ = walk_slowly(4.9, only)
    assert len(only.calls) == 1
    assert health.recorded == [('only', Kind.deferred)]


def test_what_was_not_called_is_so_in_the_same_round():
    """A retry of the round begins where it should have."""
    only = ScriptedService('only', outcome('accepted'))
    _, journal, health, pool = walk_slowly(11.0, only, resting=('first',))
    again = pool.send_email(email(), ANY_TIME)
    assert again.kind is Kind.accepted and len(only.calls) == 1
    assert [one.round for one in journal.message.attempts] == [0, 0]
    assert health.recorded == [('only', None), ('only', Kind.accepted)]
