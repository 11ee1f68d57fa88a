"""Taking in: what is stored, when it is due, and what comes twice."""

from datetime import UTC, datetime

import pytest

from stampman.helpers.config import PoolConfig
from stampman.helpers.delivery import State
from stampman.helpers.exceptions import (
    Forbidden, InvalidFields, KeyReused, KeyTaken, StoreUnavailable,
    TooManyRequests)
from stampman.helpers.mail import submission
from stampman.intake import Intake, Taken, idempotency_key, is_due
from stampman.store.base import Entry

from backends import NOW, POOL, attempt, migrated, new_id, store
from clocks import DAY, HOUR, YEAR, machine

__all__ = ['machine', 'migrated', 'store']     # the fixtures

MAIL = {'from': 'Shop <shop@example.com>', 'to': 'a@example.org',
        'subject': 'Hello', 'text': 'Hi'}


def pool(**settings):
    return PoolConfig(domain=POOL, api_key='k' * 24,
                      services={'capture': {'provider': 'capture'}},
                      **settings)


def at(seconds):
    """Return a time as a client writes it, so many seconds from NOW."""
    return datetime.fromtimestamp(NOW + seconds, UTC).isoformat()


def mail(**fields):
    return submission({**MAIL, **fields})


@pytest.fixture
def intake(store, machine):
    return Intake(store, new_id, 'me', Entry, machine.clock, machine.pass_by)


def submit(intake, now=NOW, key=None, pool=pool(), **fields):
    return intake.submit(pool, mail(**fields), now,
                         key and idempotency_key(key, mail(**fields)))


def begin(intake, key=None, **fields):
    return intake.begin(pool(), mail(**fields), NOW,
                        key and idempotency_key(key, mail(**fields)))


def count(intake):
    return sum(intake.store.waiting().values())


# -- when it is due ----------------------------------------------------------

def test_what_is_ours_to_deliver_is_stored_when_that_begins(intake):
    acceptance = begin(intake)
    message = acceptance.message
    assert message.state is State.sending
    assert (message.send_at, message.next_attempt_at) == (None, None)
    assert message.expires_at == NOW + DAY
    assert count(intake) == 0 and not acceptance.is_done
    first = attempt()
    assert acceptance.store(first, NOW + 60) == (
        message.id, 'me', 1, NOW + 60)
    assert acceptance.is_done
    assert intake.store.message(POOL, message.id) == message.model_copy(
        update={'attempts': (first,)})


def test_it_may_be_stored_with_no_attempt_begun(intake):
    acceptance = begin(intake)
    assert acceptance.store() == (
        acceptance.message.id, 'me', 1, NOW + intake.timing.lease)
    assert intake.store.message(POOL, acceptance.message.id) \
        == acceptance.message


def test_without_a_time_it_is_due_at_once(intake):
    message, replayed = submit(intake)
    assert message.state is State.queued and not replayed
    assert (message.send_at, message.next_attempt_at) == (None, NOW)
    assert intake.store.message(POOL, message.id) == message


@pytest.mark.parametrize('ahead', [1, HOUR, 30 * DAY])
def test_what_is_scheduled_waits_for_its_time(intake, ahead):
    message, _ = submit(intake, send_at=at(ahead))
    assert not is_due(mail(send_at=at(ahead)), NOW)
    assert message.state is State.queued
    assert message.send_at == message.next_attempt_at == NOW + ahead
    assert message.expires_at == NOW + ahead + DAY
    assert not intake.store.claim_due('x', NOW + ahead - 0.1, NOW + YEAR)
    [(_, due)] = intake.store.claim_due('x', NOW + ahead, NOW + YEAR)
    assert due.id == message.id and due.send_at == NOW + ahead


@pytest.mark.parametrize('late', [0, 1, 300])
def test_a_time_that_has_just_passed_is_now(intake, late):
    """A client's clock may be a little late, or its request slow."""
    assert is_due(mail(send_at=at(-late)), NOW)
    queued, ours = (submit(intake, send_at=at(-late)).message,
                    begin(intake, send_at=at(-late)).message)
    assert (queued.state, queued.next_attempt_at) == (State.queued, NOW)
    assert (ours.state, ours.next_attempt_at) == (State.sending, None)
    assert queued.expires_at == ours.expires_at == NOW + DAY


@pytest.mark.parametrize('ahead', [-301, -DAY, 30 * DAY + 1, 10 * YEAR])
def test_a_time_that_cannot_be_meant_is_refused(intake, ahead):
    with pytest.raises(InvalidFields) as refused:
        submit(intake, send_at=at(ahead))
    assert [field for field, _ in refused.value.errors] == ['send_at']
    assert count(intake) == 0


@pytest.mark.parametrize('send_at, expires_at, good', [
    (None, 1, True), (None, 0, False), (None, -1, False),
    (None, 30 * DAY, True), (None, 30 * DAY + 1, False),
    (HOUR, HOUR + 1, True), (HOUR, HOUR, False), (HOUR, 1, False),
    (HOUR, HOUR + 30 * DAY, True), (HOUR, HOUR + 30 * DAY + 1, False),
    (-60, 1, True), (-60, -1, False), (-60, 30 * DAY, True)])
def test_it_expires_behind_its_time(intake, send_at, expires_at, good):
    fields = {} if send_at is None else {'send_at': at(send_at)}
    if good:
        message = submit(intake, expires_at=at(expires_at), **fields).message
        assert message.expires_at == NOW + expires_at
    else:
        with pytest.raises(InvalidFields) as refused:
            submit(intake, expires_at=at(expires_at), **fields)
        assert [field for field, _ in refused.value.errors] == ['expires_at']


def test_a_pool_s_own_life_counts_from_its_time(intake):
    brief = pool(expires_after=600)
    assert submit(intake, pool=brief, send_at=at(HOUR)).message.expires_at \
        == NOW + HOUR + 600
    assert submit(intake, pool=brief).message.expires_at == NOW + 600


# -- what comes twice --------------------------------------------------------

def test_a_replay_is_the_message_as_it_is_now(intake):
    first = begin(intake, key='k')
    intake.store.finish(first.store(), State.failed, round=1, reason='so')
    again = submit(intake, now=NOW + HOUR, key='k')
    assert again == Taken(
        intake.store.message(POOL, first.message.id), True)
    assert begin(intake, key='k') == again
    assert again.message.state is State.failed
    assert submit(intake, now=NOW + HOUR).message.id != first.message.id


def test_a_key_with_another_body_is_refused_whatever_the_body(intake):
    first = submit(intake, key='k')
    for changed in ({'subject': 'x'}, {'from': 'x@elsewhere.org'},
                    {'send_at': at(-DAY)}):
        with pytest.raises(KeyReused):
            submit(intake, key='k', **changed)
    assert count(intake) == 1
    assert submit(intake, key='k').message.id == first.message.id


def test_a_replay_is_answered_when_its_time_has_passed(intake):
    """What would be refused by now was taken when it came first."""
    first = submit(intake, key='k', send_at=at(60), expires_at=at(120))
    again = submit(intake, key='k', now=NOW + HOUR, send_at=at(60),
                   expires_at=at(120))
    assert again.replayed and again.message == first.message


def test_a_replay_is_answered_by_a_pool_that_has_become_strict(intake):
    first = submit(intake, key='k', on_uncertain='failover')
    strict = pool(on_uncertain='hold', allowed_senders=['x.org'], rate=0.001)
    assert submit(intake, key='k', pool=strict, on_uncertain='failover'
                  ).message.id == first.message.id


def test_what_was_refused_is_not_remembered(intake):
    with pytest.raises(Forbidden):
        submit(intake, key='k', **{'from': 'x@elsewhere.org'})
    assert not submit(intake, key='k').replayed


class Faster:
    """A store in which somebody else stores the same just before us."""

    def __init__(self, store, twin):
        self._store = store
        self._twin = twin

    def __getattr__(self, name):
        return getattr(self._store, name)

    def add_all(self, *args):
        twin, self._twin = self._twin, None
        if twin:
            twin()
        self._store.add_all(*args)


def test_a_twin_that_is_faster_is_the_message(intake):
    first = []
    slower = intake._replace(store=Faster(
        intake.store, lambda: first.append(submit(intake, key='k'))))
    taken = submit(slower, key='k')
    assert taken.replayed
    assert taken.message.id == first[0].message.id and count(intake) == 1


def test_a_twin_that_is_faster_than_our_first_attempt_is_the_message(intake):
    acceptance = begin(intake, key='k')
    first = submit(intake, key='k')
    with pytest.raises(KeyTaken):
        acceptance.store(attempt(), NOW + 60)
    assert not acceptance.is_done and count(intake) == 1
    key = idempotency_key('k', mail())
    assert intake.stored(pool(), NOW, key) == (first.message, True)


def test_a_twin_that_is_faster_with_another_body_is_told(intake):
    slower = intake._replace(store=Faster(
        intake.store, lambda: submit(intake, key='k', subject='x')))
    with pytest.raises(KeyReused):
        submit(slower, key='k')
    assert count(intake) == 1


class Commits:
    """A store that fails in a commit: after it, or before."""

    def __init__(self, store, after):
        self._store = store
        self._after = after

    def __getattr__(self, name):
        return getattr(self._store, name)

    def add_all(self, *args):
        if self._after:
            self._store.add_all(*args)
        raise StoreUnavailable('failed in the commit')


def test_a_commit_that_failed_and_has_happened_is_ours(intake):
    taken = submit(intake._replace(store=Commits(intake.store, True)))
    assert intake.store.message(POOL, taken.message.id) == taken.message
    ours = begin(intake._replace(store=Commits(intake.store, True)))
    assert ours.store(attempt(), NOW + 60) and ours.is_done
    with pytest.raises(StoreUnavailable):
        submit(intake._replace(store=Commits(intake.store, False)))
    assert count(intake) == 2
    ours = begin(intake._replace(store=Commits(intake.store, False)))
    with pytest.raises(StoreUnavailable):
        ours.store(attempt(), NOW + 60)
    assert not ours.is_done and count(intake) == 2


# -- batches -----------------------------------------------------------------

GOOD, BAD = mail(), mail(**{'from': 'x@elsewhere.org'})
LATE = mail(send_at=at(-DAY))


def submit_all(intake, submissions, now=NOW, key='k', pool=pool()):
    return intake.submit_all(
        pool, submissions, now,
        key=key and idempotency_key(key, submissions))


def test_each_of_a_batch_has_a_result_of_its_own(intake):
    results = submit_all(intake, {0: GOOD, 1: BAD, 4: LATE, 5: GOOD})
    assert list(results) == [0, 1, 4, 5]
    assert isinstance(results[1], Forbidden)
    assert isinstance(results[4], InvalidFields)
    assert count(intake) == 2
    for position in (0, 5):
        message, replayed = results[position]
        assert (message.state, replayed) == (State.queued, False)
        assert intake.store.message(POOL, message.id) == message


def test_a_batch_of_which_nothing_is_good_stores_nothing(intake):
    results = submit_all(intake, {0: BAD, 1: LATE})
    assert [type(one) for one in results.values()] == [
        Forbidden, InvalidFields]
    assert count(intake) == 0
    assert intake.store.known(POOL, idempotency_key(
        'k', {0: BAD, 1: LATE}), NOW) == {}


def test_a_batch_that_comes_again_stores_nothing(intake):
    batch = {0: GOOD, 1: BAD, 2: GOOD}
    first = submit_all(intake, batch)
    again = submit_all(intake, batch)
    for position in (0, 2):
        assert again[position] == first[position]._replace(replayed=True)
    assert isinstance(again[1], Forbidden) and count(intake) == 2


def test_what_was_refused_then_is_not_stored_by_a_replay(intake):
    batch = {0: GOOD, 1: BAD}
    submit_all(intake, batch)
    lenient = pool(allowed_senders=['*'])
    again = submit_all(intake, batch, pool=lenient)
    assert again[0].replayed
    assert isinstance(again[1], InvalidFields)
    assert 'first' in again[1].detail and count(intake) == 1
    assert not submit_all(intake, batch, key='x', pool=lenient)[1].replayed


def test_what_would_be_refused_now_is_known_from_then(intake):
    batch = {0: mail(send_at=at(60)), 1: GOOD}
    first = submit_all(intake, batch)
    again = submit_all(intake, batch, now=NOW + HOUR)
    assert {position: one.message.id for position, one in again.items()} == {
        position: one.message.id for position, one in first.items()}


def test_twin_batches_make_one(intake):
    batch, first = {0: GOOD, 1: BAD, 2: GOOD}, []
    slower = intake._replace(store=Faster(
        intake.store, lambda: first.append(submit_all(intake, batch))))
    results = submit_all(slower, batch)
    assert [results[0].message.id, results[2].message.id] == [
        first[0][0].message.id, first[0][2].message.id]
    assert isinstance(results[1], Forbidden) and count(intake) == 2


@pytest.mark.parametrize('change', [
    {0: GOOD}, {0: GOOD, 2: GOOD}, {0: GOOD, 1: GOOD, 2: GOOD},
    {0: GOOD, 1: mail(subject='x')}])
def test_another_batch_under_the_key_is_refused_whole(intake, change):
    submit_all(intake, {0: GOOD, 1: GOOD})
    with pytest.raises(KeyReused):
        submit_all(intake, change)
    assert count(intake) == 2


def test_a_batch_over_the_rate_is_refused_whole(intake):
    slow = pool(rate=1)
    submit_all(intake, {0: GOOD, 1: GOOD}, pool=slow)
    with pytest.raises(TooManyRequests) as refused:
        submit_all(intake, {0: GOOD}, key='x', pool=slow)
    assert 0 < refused.value.retry_after <= 2
    assert count(intake) == 2
    assert submit_all(intake, {0: GOOD, 1: GOOD}, pool=slow)[0].replayed


def test_all_that_is_wrong_with_the_options_is_told_at_once(intake):
    with pytest.raises(InvalidFields) as raised:
        submit(intake, pool=pool(on_uncertain='hold'), send_at=at(-DAY),
               expires_at=at(-HOUR), on_uncertain='failover')
    assert [error.field for error in raised.value.errors] == [
        'send_at', 'expires_at', 'on_uncertain']
    assert not count(intake)
