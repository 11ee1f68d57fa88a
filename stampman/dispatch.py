"""Delivering one claimed message: a round through its pool, the next state.

Requests and workers deliver by this same code. The safety argument is its
order: an attempt is committed before the provider is called, its end after;
nothing is called under a lease that is not ours.
"""

import logging
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from stampman import backoff, logs
from stampman.helpers import recipients
from stampman.helpers.commits import is_done_now
from stampman.helpers.delivery import (
    Attempt, Claim, Clock, Kind, Message, Outcome, State, Timing, must_hold)
from stampman.helpers.exceptions import (
    CommitUnknown, LeaseLost, StoreUnavailable)
from stampman.helpers.mail import Email
from stampman.services.base import SendContext
from stampman.services._evidence import next_look, waited_for
from stampman.services.pool import (
    UNFINISHED, WAITS, PooledEmailService, can_go_by, is_unable)

log = logging.getLogger(__name__)

# How a person hears of it, in the log.
_LEVELS = {State.accepted: logging.INFO, State.rejected: logging.WARNING,
           State.failed: logging.ERROR, State.uncertain: logging.ERROR}


class StoreJournal:
    """The journal of one message, kept in the store."""

    def __init__(self, dispatch, claim: Claim, message: Message,
                 acceptance=None, until: float = math.inf):
        """`acceptance` stores the message, where it is not stored yet. What
        became of a commit may be found out `until` a time (monotonic
        seconds)."""
        self._store = dispatch.store
        self._clock = dispatch.clock
        self._pause = dispatch.pause
        self._new_id = dispatch.new_id
        self._timing = dispatch.timing
        self._stops_at = dispatch.stops_at
        self._acceptance = acceptance
        self._until = until
        self.claim = claim
        self.message = message

    @property
    def is_stored(self) -> bool:
        return self._acceptance is None or self._acceptance.is_done

    def be_stored(self):
        """Store the message if it is not, though no attempt has begun."""
        if not self.is_stored:
            self.claim = self._acceptance.store()

    def begin(self, service, seconds, replays=None):
        """Commit that an attempt begins.

        The lease outlasts the call: nobody may rescue a message whose
        answer is still being recorded.
        """
        deadline = self._clock.monotonic() + seconds
        now = self._clock.now()
        if now >= self.message.expires_at:      # since the walk began
            raise LeaseLost()
        attempt = Attempt(
            id=self._new_id(now), service=service.name,
            provider=service.provider, round=self.message.round,
            started_at=now, replays=replays and replays.root,
            envelope=replays.envelope if replays
            else recipients.envelope(self.message))
        again = any(
            one.is_uncertain for one in self.message.attempts
            if not replays or replays.root != one.root)
        if again:
            log.warning('it may be sent twice: an attempt is uncertain')
        self.claim = self._begun(
            attempt, now + seconds + self._timing.recording
            + self._timing.grace, again)
        self._update(attempts=(*self.message.attempts, attempt),
                     possible_duplicate=(
                         self.message.possible_duplicate or again))
        return SendContext(self.message.id, attempt.id, deadline,
                           attempt.envelope)

    def _begun(self, attempt, lease_until, again):
        if not self.is_stored:
            return self._acceptance.store(attempt, lease_until)
        begins = self.claim, attempt, lease_until, again
        give_up_at = min(
            self._until, self._stops_at(), self._clock.monotonic()
            + lease_until - attempt.started_at - self._timing.grace)
        try:
            return self._store.begin(*begins)
        except CommitUnknown:
            # Each try has the same id and the same claim: one of them
            # succeeds at most, and none after a rescue.
            while self._clock.monotonic() < give_up_at:
                self._pause(self._timing.between_tries)
                if is_done_now(lambda: self._has_begun(attempt),
                               lambda: self._store.begin(*begins)):
                    log.warning('a commit was not answered; it is known now')
                    return self.claim._replace(lease_until=lease_until)
            raise

    def _has_begun(self, attempt):
        """Whether it is stored, and still open; None: nobody can say.

        Raises LeaseLost where somebody goes on without us.
        """
        try:
            stored = self._store.message(self.message.pool, self.message.id)
        except StoreUnavailable:
            return None
        found = [one for one in stored.attempts if one.id == attempt.id]
        if stored.state is not State.sending or any(
                one.outcome for one in found):
            raise LeaseLost()
        return bool(found)

    def end(self, outcome: Outcome):
        """Commit how the attempt ended; try for a while if that fails."""
        *earlier, attempt = self.message.attempts
        ended = attempt.model_copy(update={
            'ended_at': self._clock.now(), 'outcome': outcome})
        give_up_at = self._clock.monotonic() + self._timing.recording
        while True:
            try:
                stands = self._store.end(ended, self.message.id)
                break
            except StoreUnavailable:
                if self._clock.monotonic() >= give_up_at:
                    log.error(
                        '%s: %s, and that cannot be stored: whoever resolves '
                        'the message needs to know', attempt.service,
                        outcome.kind, extra=_as_logged(ended))
                    raise
                self._pause(self._timing.between_tries)
        if not stands:      # somebody else knew better, and went on
            return self.look_again()
        self._update(attempts=(*_answered(earlier, ended), ended))
        log.info('%s: %s', attempt.service, outcome.kind,
                 extra=_as_logged(ended))
        if recipients.told_apart(self.message):
            self.message = recipients.settle(self.message)
        elif outcome.kind is Kind.accepted:
            self._follow(State.accepted, '', provider_message_id=(
                outcome.provider_message_id))

    def prove(self, attempt: Attempt, outcome: Outcome):
        """Commit what a provider says of an attempt that was uncertain."""
        proven = attempt.model_copy(update={
            'ended_at': self._clock.now(), 'outcome': outcome})
        log.info('%s told what became of it: %s', attempt.service,
                 outcome.kind, extra=_as_logged(proven))
        self._store.end(proven, self.message.id, self.claim)
        self.message = self._store.message(
            self.message.pool, self.message.id)

    def look_again(self):
        """See what an earlier holder of the lease may have recorded."""
        stored = self._store.message(self.message.pool, self.message.id)
        self.message = stored
        if stored.state is not State.sending:
            raise LeaseLost()

    def finish(self, end: 'End', **changes):
        """Give the message back as `end` says; False where an attempt had
        its end meanwhile, and everything must be concluded anew."""
        self.be_stored()
        fared = recipients.concluded(
            self.message, end.left_as or end.state, end.reason
        ) if recipients.told_apart(self.message) else None
        if not self._store.finish(
                self.claim, end.state, reason=end.reason, recipients=fared,
                uncertain=sum(one.is_uncertain for one
                              in self.message.attempts), **changes):
            return False
        self._update(**changes)
        if fared is None:
            self._follow(end.state, end.reason)
        else:
            self._update(state=end.state, reason=end.reason,
                         recipients=fared)
        return True

    def _follow(self, state, reason, **changes):
        """Follow in memory what the store has just done."""
        self._update(state=state, reason=reason, recipients=tuple(
            one.model_copy(update={
                'status': state, 'reason': reason, **changes})
            for one in self.message.recipients))

    def _update(self, **changes):
        self.message = self.message.model_copy(update=changes)


def _as_logged(ended):
    outcome = ended.outcome
    return {'attempt_id': ended.id, 'service': ended.service,
            'kind': outcome.kind, 'status': outcome.http_status,
            'reason': outcome.reason,
            'provider_message_id': outcome.provider_message_id,
            'seconds': round(ended.ended_at - ended.started_at, 3)}


def _answered(earlier, ended):
    """A replay that is accepted settles those that it asked about; one that
    is not may not have come as far as to be known again."""
    if not ended.replays or ended.outcome.kind is not Kind.accepted:
        return earlier
    return [one.model_copy(update={'resolved': 'replayed'})
            if one.is_uncertain and one.root == ended.root
            else one for one in earlier]


class Dispatch(NamedTuple):
    """Delivers claimed messages.

    `chance` returns a number from 0 to 1, `pause` waits for so many seconds,
    `new_id` makes an id at a time, `stops_at` tells when this process must
    be done (monotonic seconds; infinity as long as it need not).
    """

    store: object
    health: object
    clock: Clock
    chance: Callable[[], float]
    pause: Callable[[float], None]
    new_id: Callable[[float], str]
    timing: Timing = Timing()
    stops_at: Callable[[], float] = lambda: math.inf

    def deliver(self, claim: Claim, message: Message,
                email: Callable[[], Email], services: Sequence,
                until: float = math.inf,
                uncertain_wait: float = 0.0,
                acceptance=None) -> Message:
        """Walk the pool once for a claimed message; return it as it is then.

        A message that is not stored yet, by its `acceptance`, is so before
        anything else happens to it; what that raises is raised.

        `email` is asked for the content only if there is something to try.
        The walk begins nothing that would last beyond `until` (monotonic
        seconds). For `uncertain_wait` seconds evidence is waited for, where
        a service can give it. A store that fails, or a lease that is lost,
        ends it; the message is then another's, or is rescued when the lease
        runs out.
        """
        journal = StoreJournal(self, claim, message, acceptance, until)
        with logs.bind(message_id=message.id, pool=message.pool):
            try:
                outcome = self._walk(journal, email, services, until,
                                     uncertain_wait)
                if journal.message.state is not State.accepted:
                    self._finish(journal, outcome, services, uncertain_wait)
            except LeaseLost:
                log.warning('the lease is lost: somebody else goes on')
            except StoreUnavailable as error:
                if not journal.is_stored:
                    raise
                log.error('left to a rescue: %s', error.detail)
            journal.be_stored()     # also where nobody could be asked
            state = journal.message.state
            log.log(_LEVELS.get(state, logging.INFO), 'the message is %s',
                    state, extra={'reason': journal.message.reason})
        return journal.message

    def _walk(self, journal, email, services, until, wait):
        pool = PooledEmailService(
            services, journal, self.health, self.clock, self.stops_at, wait)
        context = SendContext(journal.message.id, '', until)
        if journal.message.is_uncertain:
            pool.ask(email, context,
                     self.clock.monotonic() + self.timing.lease / 2)
        message = journal.message
        if self.clock.now() >= message.expires_at or must_hold(message) \
                or not recipients.left(message):
            return Outcome(kind=Kind.deferred)      # there is but to conclude
        return pool.send_email(email(), context)

    def _finish(self, journal, outcome, services, wait):
        if journal.message.is_uncertain:
            journal.look_again()
        while not self._conclude(journal, outcome, services, wait):
            journal.look_again()

    def _conclude(self, journal, outcome, services, wait):
        message, now = journal.message, self.clock.now()
        end = next_state(message, outcome, services, now)
        tried = any(attempt.round == message.round
                    for attempt in message.recent)
        finished = outcome.code not in (UNFINISHED, WAITS)
        return journal.finish(
            end, round=message.round + (tried and finished),
            next_attempt_at=self._next_attempt_at(
                message, end.state, outcome, services, now, wait))

    def _next_attempt_at(self, message, state, outcome, services, now, wait):
        if state not in (State.deferred, State.uncertain):
            return None
        if is_held(message, now) or _nobody_can_go_on(message, services):
            return next_look(message, services, now, wait)
        if outcome.code == WAITS:
            return waited_for(message, services, now, wait) or now
        if outcome.code == UNFINISHED:
            return now
        delay = backoff.delay(message.round + 1, self.chance())
        free = self.health.next_free(services)
        # Spread over the delay: not all at once when the rest is over.
        at = now + delay if free is None else free + delay * self.chance()
        return min(at, message.expires_at)


class End(NamedTuple):
    """How a round ends: who was not settled by an attempt takes `left_as`,
    or the message's state where that is None."""

    state: State
    reason: str
    left_as: State | None = None


def is_held(message: Message, now: float) -> bool:
    """Whether an uncertain message waits for evidence or a person."""
    return bool(must_hold(message)) or message.is_uncertain and (
        now >= message.expires_at or not recipients.left(message))


def next_state(message: Message, outcome: Outcome, services: Sequence,
               now: float) -> End:
    """Return how the round of `outcome` ends.

    While an attempt is uncertain nothing else is ever concluded, unless
    everybody was reached besides.
    """
    taken = message.accepted_by is not None
    last = _last_reason(message) or outcome.reason
    if not recipients.left(message) and (taken or not message.is_uncertain):
        return End(State.accepted, '') if taken else End(State.rejected, last)
    if message.is_uncertain:
        return End(State.uncertain, must_hold(message)
                   or 'a provider may have taken it')
    if _nobody_can_go_on(message, services):
        if recipients.envelope(message) is None:
            return End(State.failed, f'no service can carry it: {last}')
        return End(State.accepted if taken else State.rejected,
                   f'no service can send to them alone: {last}',
                   State.rejected)
    if must_hold(message):
        return End(State.uncertain, must_hold(message))
    if now >= message.expires_at:
        return End(State.accepted if taken else State.failed,
                   f'expired: {last}'.rstrip(': '), State.failed)
    return End(State.deferred, last)


def _nobody_can_go_on(message, services):
    """Whether every service is known to be unable to carry it."""
    return bool(services) and not any(
        can_go_by(service, message) and not is_unable(service, message)
        for service in services)


def _last_reason(message):
    ended = [attempt for attempt in message.recent if attempt.outcome]
    return f'{ended[-1].service}: {ended[-1].outcome.reason}' if ended else ''
