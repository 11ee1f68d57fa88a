"""The contract of a store, over every backend: a message's way."""

import threading

import pytest

from stampman.helpers.delivery import Claim, Kind, State
from stampman.helpers.exceptions import (
    LeaseLost, NotFound, TooManyRequests)
from stampman.helpers.mail import Email
from stampman.store.base import ORPHANED

from backends import (
    NOW, POOL, add, add_claimed, attempt, email, ended, held, ids, message,
    migrated, store)

__all__ = ['migrated', 'store']     # the fixtures

EMAILS = {
    'least': {},
    'everything': {
        'from': '"Müller, Jürgen" <shop@example.com>',
        'to': ['a@example.org', 'Zoë <z@exämple.org>'], 'cc': 'c@example.org',
        'bcc': ['d@example.org'], 'reply_to': ['r@example.org'],
        'subject': 'Grüße 💌', 'html': '<p>"quoted" \\ back</p>\r\n',
        'headers': {'X-Order': '17', 'List-Id': '<l.example.com>'},
        'tags': ['one', 'zwei ü'], 'metadata': {'key': 'välue', 'n': '1'},
        'track_opens': True, 'track_clicks': False,
        'attachments': [
            {'filename': 'ä "b".bin', 'content': 'AP/+AA==',
             'content_type': 'application/x-odd; a=b'},
            {'filename': 'l.png', 'content': '', 'content_id': 'logo',
             'content_type': 'image/png'}]}}


# -- add ---------------------------------------------------------------------

@pytest.mark.parametrize('fields', EMAILS.values(), ids=EMAILS)
def test_what_is_added_is_read_back_the_same(store, fields):
    one = message(recipients=['A@example.org', 'b@example.org'],
                  possible_duplicate=True, reason='why not',
                  round=3, crashes=2, restarted_after=2)
    store.add(one, email(**fields))
    assert store.message(POOL, one.id) == one
    assert store.email(one.id) == email(**fields)


def test_mail_that_would_not_be_taken_in_any_more_is_still_read(store):
    odd = Email.model_construct(
        **{**dict(email()), 'subject': 'a\nb', 'from_email': 'nobody',
           'headers': {'Bcc': 'x'}, 'html': ''})
    one = message()
    store.add(one, odd)
    assert store.email(one.id) == odd


def test_a_store_that_is_closed_opens_again_with_all_it_had(store):
    one = add(store)
    store.close()
    assert store.message(POOL, one.id) == one


def test_a_message_is_added_once_or_not_at_all(store):
    one = add(store)
    with pytest.raises(Exception, match='(?i)unique'):
        store.add(one.model_copy(update={'pool': 'example.net'}), email())
    assert store.message(POOL, one.id) == one
    assert dict(store.waiting()) == {(POOL, State.queued): 1}


def test_a_claimed_message_is_sending_under_its_claim(store):
    one, claim = add_claimed(store)
    assert store.message(POOL, one.id).state is State.sending
    assert not store.claim_due('worker', NOW + 29.9, NOW + 60)
    assert store.begin(claim, attempt(), NOW + 60) == \
        Claim(one.id, 'request', 1, NOW + 60)


def test_exactly_a_claimed_message_is_added_as_sending(store):
    with pytest.raises(ValueError):
        store.add(message(), email(), Claim('x', 'request', 1, NOW))
    with pytest.raises(ValueError):
        store.add(message(state='sending'), email())


# -- the rate of a pool ------------------------------------------------------

def add_at(store, now, rate, pool=POOL):
    store.add(message(now, pool=pool), email(), rate=rate)


@pytest.mark.parametrize('rate, burst', [
    (10, 10), (2.5, 2), (1, 1), (0.25, 1)])
def test_a_pool_may_store_one_second_s_worth_at_once(store, rate, burst):
    for _ in range(burst):
        add_at(store, NOW, rate)
    with pytest.raises(TooManyRequests) as refused:
        add_at(store, NOW, rate)
    wait = refused.value.retry_after
    assert 0 < wait <= 1 / rate
    with pytest.raises(TooManyRequests):
        add_at(store, NOW + wait - 0.01, rate)
    add_at(store, NOW + wait + 0.001, rate)
    assert sum(store.waiting().values()) == burst + 1


def test_over_a_long_time_a_pool_stores_its_rate(store):
    stored = 0
    for step in range(100):         # five a second, for twenty seconds
        try:
            add_at(store, NOW + step / 5, rate=2)
            stored += 1
        except TooManyRequests:
            pass
    assert 39 <= stored <= 42


def test_each_pool_has_a_rate_of_its_own(store):
    add_at(store, NOW, 1)
    add_at(store, NOW, 1, pool='example.net')
    with pytest.raises(TooManyRequests):
        add_at(store, NOW, 1)


def test_a_clock_that_is_set_back_does_not_stop_a_pool(store):
    add_at(store, NOW + 7200, rate=1)
    add_at(store, NOW, rate=1)
    with pytest.raises(TooManyRequests):
        add_at(store, NOW + 0.5, rate=1)
    add_at(store, NOW + 1, rate=1)


# -- claim_due ---------------------------------------------------------------

def test_what_waits_is_due_when_its_time_has_come(store):
    one = add(store)
    assert store.claim_due('worker', NOW - 0.001, NOW + 60) == ()
    [(claim, claimed)] = store.claim_due('worker', NOW, NOW + 60)
    assert claim == (one.id, 'worker', 1, NOW + 60)
    assert claimed == one.model_copy(update={
        'state': State.sending, 'next_attempt_at': None})
    assert store.message(POOL, one.id) == claimed
    assert store.claim_due('worker', NOW, NOW + 60) == ()


@pytest.mark.parametrize('state', [
    State.queued, State.deferred, State.uncertain])
def test_every_waiting_state_becomes_due(store, state):
    _, claim = add_claimed(store)
    store.finish(claim, state, round=1, next_attempt_at=NOW + 5)
    assert not store.claim_due('worker', NOW + 4, NOW + 60)
    [(again, claimed)] = store.claim_due('worker', NOW + 5, NOW + 60)
    assert again.fence == claim.fence + 1 and claimed.round == 1


@pytest.mark.parametrize('state', [
    State.uncertain, State.accepted, State.rejected, State.failed,
    State.cancelled])
def test_what_is_held_or_settled_is_never_due(store, state):
    held(store, state=state)
    assert not store.claim_due('worker', NOW + 1e9, NOW + 2e9)


def test_the_longest_due_comes_first(store):
    late, early = add(store, created_at=NOW), add(store, created_at=NOW - 9)
    run_out, _ = add_claimed(store, lease_until=NOW - 5)
    last = add(store, created_at=NOW + 1)
    assert ids(store.claim_due('worker', NOW + 2, NOW + 60, limit=3)) == [
        early.id, run_out.id, late.id]
    assert ids(store.claim_due('worker', NOW + 2, NOW + 60, limit=3)) == [
        last.id]


def test_a_claimed_message_comes_with_all_its_attempts_in_order(store):
    one, claim = add_claimed(store, recipients=['b@x.org', 'a@x.org'])
    begun = [attempt(NOW + 2), attempt(NOW + 1), attempt(NOW + 3)]
    for each in begun:              # whatever a clock says: as they began
        claim = store.begin(claim, each, NOW + 60)
        store.end(ended(each, 'deferred', reason='busy', retry_after=2.5,
                        throttled=True, http_status=429), one.id)
    store.finish(claim, State.deferred, round=1, next_attempt_at=NOW)
    [(_, claimed)] = store.claim_due('worker', NOW, NOW + 60)
    assert [each.id for each in claimed.attempts] == [
        each.id for each in begun]
    assert claimed.attempts[0] == ended(
        begun[0], 'deferred', reason='busy', retry_after=2.5, throttled=True,
        http_status=429)
    assert [to.email for to in claimed.recipients] == ['b@x.org', 'a@x.org']


def test_a_lease_that_ran_out_before_any_attempt_costs_nothing(store):
    one, old = add_claimed(store)
    [(claim, claimed)] = store.claim_due('rescuer', NOW + 30, NOW + 90)
    assert claim == (one.id, 'rescuer', 2, NOW + 90)
    assert claimed.crashes == 0 and claimed.attempts == ()
    with pytest.raises(LeaseLost):
        store.begin(old, attempt(), NOW + 90)


def test_an_attempt_that_a_crash_left_open_is_uncertain(store):
    one, claim = add_claimed(store)
    done, open_ = attempt(), attempt(NOW + 1, service='two')
    claim = store.begin(claim, done, NOW + 40)
    store.end(ended(done, 'deferred'), one.id)
    store.begin(claim, open_, NOW + 40)
    [(_, claimed)] = store.claim_due('rescuer', NOW + 50, NOW + 90)
    assert claimed.crashes == 1
    assert claimed.attempts == (
        ended(done, 'deferred'),
        ended(open_, 'uncertain', at=NOW + 50, reason=ORPHANED))


def test_no_two_claim_the_same_message(store):
    added = {add(store).id for _ in range(40)}
    got, claimed = [], threading.Barrier(4)

    def claim_all(owner):
        claimed.wait()
        while due := store.claim_due(owner, NOW, NOW + 60, limit=2):
            got.extend(ids(due))

    threads = [threading.Thread(target=claim_all, args=(f'worker-{n}',))
               for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 40 and set(got) == added


# -- begin -------------------------------------------------------------------

def test_what_begins_is_written_and_extends_the_lease(store):
    one, claim = add_claimed(store)
    begun = attempt()
    claim = store.begin(claim, begun, NOW + 100)
    assert store.message(POOL, one.id).attempts == (begun,)
    assert not store.claim_due('worker', NOW + 99, NOW + 200)
    assert len(store.claim_due('worker', NOW + 100, NOW + 200)) == 1


def test_a_possible_duplicate_stays_one(store):
    one, claim = add_claimed(store)
    for twice, expected in ((False, False), (True, True), (False, True)):
        claim = store.begin(claim, attempt(), NOW + 60, twice)
        assert store.message(POOL, one.id).possible_duplicate is expected


@pytest.mark.parametrize('lose', [
    lambda store, one, claim: store.claim_due('other', NOW + 31, NOW + 99),
    lambda store, one, claim: store.finish(claim, State.failed, round=1),
    lambda store, one, claim: store.change(
        POOL, one.id, [State.sending], State.cancelled)])
def test_without_the_claim_nothing_begins_and_nothing_is_finished(
        store, lose):
    one, claim = add_claimed(store)
    lose(store, one, claim)
    before = store.message(POOL, one.id)
    with pytest.raises(LeaseLost):
        store.begin(claim, attempt(), NOW + 999, True)
    with pytest.raises(LeaseLost):
        store.finish(claim, State.deferred, round=9, next_attempt_at=NOW)
    assert store.message(POOL, one.id) == before


# -- end ---------------------------------------------------------------------

def test_an_end_is_written_on_the_attempt_alone(store):
    one, claim = add_claimed(store)
    begun = attempt()
    store.begin(claim, begun, NOW + 60)
    before = store.message(POOL, one.id)
    store.end(ended(begun, 'refused', code='E1', alert=True), one.id)
    assert store.message(POOL, one.id) == before.model_copy(update={
        'attempts': (ended(begun, 'refused', code='E1', alert=True),)})


@pytest.mark.parametrize('elsewhere', [
    lambda store, one, claim: None,
    lambda store, one, claim: store.claim_due('other', NOW + 61, NOW + 99),
    lambda store, one, claim: store.finish(
        claim, State.uncertain, round=1, next_attempt_at=NOW + 9),
    lambda store, one, claim: store.finish(
        claim, State.failed, round=1, reason='expired')])
def test_an_acceptance_wins_from_whatever_state(store, elsewhere):
    one, claim = add_claimed(store, recipients=['a@x.org', 'b@x.org'])
    begun = attempt()
    claim = store.begin(claim, begun, NOW + 60)
    elsewhere(store, one, claim)
    end = ended(begun, 'accepted', provider_message_id='theirs-1')
    store.end(end, one.id)
    store.end(end, one.id)          # as after an unclear commit
    done = store.message(POOL, one.id)
    assert done.state is State.accepted and done.reason == ''
    assert done.next_attempt_at is None and done.attempts == (end,)
    assert [(to.status, to.reason, to.provider_message_id)
            for to in done.recipients] == [('accepted', '', 'theirs-1')] * 2
    assert not store.claim_due('worker', NOW + 1e6, NOW + 2e6)
    with pytest.raises(LeaseLost):
        store.finish(claim, State.failed, round=1)


def test_a_rescue_s_guess_gives_way_to_the_outcome(store):
    one, claim = add_claimed(store)
    begun = attempt()
    store.begin(claim, begun, NOW + 60)
    [(claim, _)] = store.claim_due('rescuer', NOW + 61, NOW + 99)
    store.finish(claim, State.uncertain, round=1, reason='held')
    store.end(ended(begun, 'deferred', at=NOW + 70), one.id)
    told = store.message(POOL, one.id)
    assert told.attempts == (ended(begun, 'deferred', at=NOW + 70),)
    assert told.state is State.uncertain
    assert told.next_attempt_at == NOW + 70     # to be concluded anew


@pytest.mark.parametrize('state', [State.failed, State.rejected])
def test_a_late_end_that_proves_nothing_moves_no_settled_message(
        store, state):
    one, claim = add_claimed(store)
    begun = attempt()
    claim = store.begin(claim, begun, NOW + 60)
    store.finish(claim, state, round=1, reason='settled')
    store.end(ended(begun, 'deferred'), one.id)
    told = store.message(POOL, one.id)
    assert (told.state, told.reason) == (state, 'settled')
    assert told.next_attempt_at is None
    assert told.attempts[0].outcome.kind is Kind.deferred


def test_an_attempt_that_never_began_cannot_end(store):
    one, claim = add_claimed(store)
    with pytest.raises(NotFound):
        store.end(ended(attempt(), 'accepted'), one.id)
    assert store.message(POOL, one.id).state is State.sending


def test_a_proof_outranks_a_person_s_word(store):
    one = held(store, 'uncertain')
    store.change(POOL, one.id, [State.uncertain], State.failed,
                 resolved='not_sent')
    begun = one.attempts[0]
    store.end(ended(begun, 'accepted', provider_message_id='p'), one.id)
    told = store.message(POOL, one.id)
    assert told.state is State.accepted
    assert told.attempts[0].resolved is None
    assert told.accepted_by.id == begun.id


# -- finish ------------------------------------------------------------------

def test_a_message_is_given_back_with_its_recipients(store):
    one, claim = add_claimed(store, recipients=['a@x.org', 'b@x.org'])
    store.finish(claim, State.deferred, round=2, next_attempt_at=NOW + 7,
                 reason='all rest')
    told = store.message(POOL, one.id)
    assert (told.state, told.round, told.next_attempt_at, told.reason) == (
        State.deferred, 2, NOW + 7, 'all rest')
    assert {(to.status, to.reason) for to in told.recipients} == {
        ('deferred', 'all rest')}
    [(again, _)] = store.claim_due('worker', NOW + 7, NOW + 60)
    assert again.fence == 2


def test_settled_recipients_keep_their_status(store):
    fates = ('accepted', 'rejected', 'sending')
    one = message(state='sending')
    one = one.model_copy(update={'recipients': tuple(
        one.recipients[0].model_copy(update={
            'email': f'{fate}@x.org', 'status': fate}) for fate in fates)})
    claim = Claim(one.id, 'request', 1, NOW + 30)
    store.add(one, email(), claim)
    store.finish(claim, State.failed, round=1, reason='late')
    assert [(to.status, to.reason) for to in
            store.message(POOL, one.id).recipients] == [
        ('accepted', ''), ('rejected', ''), ('failed', 'late')]
