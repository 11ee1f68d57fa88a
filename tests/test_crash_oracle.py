"""The judge of the crash tests sees every kind of breach, and no other."""

import pytest

from stampman.helpers.delivery import (
    Attempt, Kind, Message, Outcome, Recipient, State)
from stampman.helpers.mail import submission
from stampman.simulator import ledger

from crashing.oracle import History, Stored, Told, violations

NOW = 1_800_000_000.0       # seconds since the epoch
POOLS = {'hold': 'hold.example', 'failover': 'failover.example'}
TO = 'ada@example.org'
SUBJECT = 'Order 1'


def told(policy='failover', **fields):
    return Told(**{'pool': POOLS[policy], 'subject': SUBJECT, 'status': 200,
                   'id': 'm1', 'state': 'accepted', **fields})


def attempt(kind='accepted', number=1, start=NOW, provider='sendgrid',
            **fields):
    return Attempt(**{
        'id': f'm1-a{number}', 'service': provider, 'provider': provider,
        'round': 0, 'started_at': start, 'ended_at': start + 1,
        'outcome': Outcome(kind=Kind(kind), reason='as it was'), **fields})


def stored(*attempts, policy='failover', state='accepted', **fields):
    state = State(state)
    message = Message(**{
        'id': 'm1', 'pool': POOLS[policy], 'state': state,
        'created_at': NOW, 'expires_at': NOW + 3600, 'on_uncertain': policy,
        'reason': '' if state is State.accepted else 'as it was',
        'attempts': attempts,
        'recipients': [Recipient(email=TO, kind='to', status=str(state))],
        **fields})
    return Stored(message, submission({
        'from': 'shop@example.com', 'to': TO, 'subject': SUBJECT,
        'content': 'Hi'}).email())


def taken(number=1, after=0.5, provider='sendgrid', message='m1', to=TO):
    return ledger.Entry(
        number, provider, NOW + after, ('theirs',), message,
        f'm1-a{number}', 'shop@example.com',
        (ledger.Recipient(to, 'to'),), SUBJECT, 100)


ACCEPTED = stored(attempt())
HELD = stored(attempt('uncertain'), policy='hold', state='uncertain')
SECOND = attempt(number=2, start=NOW + 2, provider='mailgun')
TWICE = stored(attempt('uncertain'), SECOND, possible_duplicate=True)
OF_BOTH = [taken(1), taken(2, 2.5, 'mailgun')]
REJECTED = stored(attempt('rejected'), state='rejected')
NO_ANSWER = told(status=None, id=None, state=None)
OPEN = {'ended_at': None, 'outcome': None}


@pytest.mark.parametrize('history', [
    ([told()], [taken()], [ACCEPTED]),
    ([told()] * 2, [taken()], [ACCEPTED]),
    ([told(status=202, state='queued')], [taken()], [ACCEPTED]),
    ([NO_ANSWER], [taken()], [ACCEPTED]),
    ([NO_ANSWER], [], []),
    ([told(status=503, id=None)], [], []),
    ([told(status=504, id=None)], [], []),
    ([told(status=504, id=None)], [taken()], [ACCEPTED]),
    ([told(status=503, id=None), told()], [taken()], [ACCEPTED]),
    ([told('hold', status=202, state='uncertain')], [taken()], [HELD]),
    ([told('hold', status=202, state='uncertain')], [], [HELD]),
    ([told()], OF_BOTH, [TWICE]),
    ([told(valid=False, status=422, state='rejected')], [], [REJECTED]),
    ([told(status=202, state='uncertain')], [taken(0)], [stored(*(
        attempt('uncertain', n, NOW + 2 * n) for n in (0, 1, 2)),
        state='uncertain', possible_duplicate=True)]),
    ([told()], OF_BOTH, [TWICE._replace(message=TWICE.message.model_copy(
        update={'attempts': (attempt('uncertain', ended_at=NOW + 9),
                             SECOND)}))])], ids=range(15))
def test_what_is_well_is_left_alone(history):
    assert violations(History(*history)) == []


@pytest.mark.parametrize('rule, words, history', [
    ('I1', 'which is not there', ([told()], [], [])),
    ('I1', 'which is not there', ([told('hold')], [taken()], [ACCEPTED])),
    ('I1', 'was accepted, and is', ([told()], [taken()], [
        HELD._replace(message=HELD.message.model_copy(
            update={'pool': POOLS['failover']}))])),
    ('I1', 'was answered 500', ([told(status=500, id=None)], [], [])),
    *(('I1', f'is left {state}', ([NO_ANSWER], [], [
        stored(state=state, next_attempt_at=NOW)]))
      for state in ('queued', 'sending', 'deferred')),
    ('I1', 'is left uncertain', ([NO_ANSWER], [taken()], [stored(
        attempt('uncertain'), policy='hold', state='uncertain',
        next_attempt_at=NOW + 9)])),
    ('I1', 'is left uncertain', ([NO_ANSWER], [taken()], [stored(
        attempt('uncertain'), policy='hold', state='uncertain',
        reason='')])),
    ('I1', 'is left uncertain', ([NO_ANSWER], [taken()], [stored(
        attempt('uncertain'), state='uncertain')])),
    ('I1', 'was refused, and stored', (
        [told(status=503, id=None)], [taken()], [ACCEPTED])),
    ('I2', 'taken 2 x', ([told('hold')], OF_BOTH, [stored(
        attempt('uncertain'), SECOND, policy='hold',
        possible_duplicate=True)])),
    ('I3', 'but was taken', ([NO_ANSWER], [taken()], [REJECTED])),
    ('I3', 'but was taken', ([NO_ANSWER], [taken()], [stored(
        attempt('deferred'), state='failed')])),
    ('I3', 'but nobody took it', ([told()], [], [ACCEPTED])),
    ('I3', 'but nobody took it', ([told()], [taken()], [stored(
        attempt('uncertain'), possible_duplicate=True)])),
    ('I3', 'but nobody took it', ([told()], [taken()], [TWICE])),
    ('I3', 'but nobody took it', (
        [told()], [taken(provider='mailgun')], [ACCEPTED])),
    ('I4', 'is stored 2 times', ([told()], [taken()], [
        ACCEPTED, ACCEPTED._replace(message=ACCEPTED.message.model_copy(
            update={'id': 'm2'}))])),
    ('I4', 'stands for several', (
        [told(key='k'), told(key='k', id='m2', subject='Order 2')],
        [taken()], [ACCEPTED])),
    ('I5', 'though all is well', ([told(canary=True)], [], [stored(
        attempt('deferred'), state='deferred')])),
    ('I5', 'though all is well', (
        [NO_ANSWER._replace(canary=True)], [], [])),
    ('I6', 'which no journal has', ([NO_ANSWER], [taken()], [])),
    ('I6', 'which no journal has', ([told()], OF_BOTH, [ACCEPTED])),
    ('I6', 'which no journal has', (
        [told()], [taken(), taken(message='')], [ACCEPTED])),
    ('I6', 'before the journal', (
        [told()], [taken(after=-0.1)], [ACCEPTED])),
    ('I6', 'called more than once', (
        [told()], [taken(), taken()], [stored(
            attempt(), possible_duplicate=True)])),
    ('I7', 'fails over, and is', ([NO_ANSWER], [], [REJECTED])),
    ('I7', 'fails over, and is', ([NO_ANSWER], [], [stored(
        attempt('deferred'), state='failed')])),
    ('I7', 'unmarked', ([told()], OF_BOTH, [stored(
        attempt('uncertain'), SECOND)])),
    ('I8', 'is open', ([told()], OF_BOTH, [stored(
        attempt(**OPEN), SECOND, possible_duplicate=True)])),
    ('I8', 'began while', ([told()], [taken(1), taken(2, 0.9, 'mailgun')], [
        stored(attempt('uncertain'), attempt(
            number=2, start=NOW + 0.8, provider='mailgun'))])),
    ('I8', 'began while', ([told('hold')], [taken(2, 0.9, 'mailgun')], [
        stored(attempt('deferred'), attempt(
            number=2, start=NOW + 0.8, provider='mailgun'),
            policy='hold', possible_duplicate=True)])),
    ('whole', 'has no email', (
        [told()], [taken()], [ACCEPTED._replace(email=None)])),
    ('whole', 'not the recipients', (
        [told()], [taken()], [stored(attempt(), recipients=[])])),
    ('whole', 'some recipients are not', ([told()], [taken()], [stored(
        attempt(), recipients=[
            Recipient(email=TO, kind='to', status='sending')])])),
    ('whole', 'for other recipients', (
        [told()], [taken(to='eve@example.org')], [ACCEPTED]))])
def test_every_breach_is_seen(rule, words, history):
    found = violations(History(*history))
    assert any(one.startswith(f'{rule}: ') and words in one
               for one in found), found


def test_the_figures_are_those_of_the_books():
    other = HELD._replace(message=HELD.message.model_copy(
        update={'id': 'm2'}))
    history = History([told(), told(), NO_ANSWER], OF_BOTH, [TWICE, other])
    assert history.figures() == {
        'sent': 1, 'acknowledged': 1, 'stored': 2, 'taken': 2,
        'doubled and marked': 1, 'held': 1}
