"""The pool: many services with the face of one, and failover between them.

This is the only code that walks from service to service.
"""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from stampman.helpers import recipients
from stampman.helpers.delivery import (
    HOPE, Attempt, Clock, Kind, Message, Outcome, must_hold)
from stampman.helpers.mail import Email
from stampman.services._evidence import to_ask, waited_for
from stampman.services.base import (
    AbstractEmailService, ProbeResult, SendContext)

log = logging.getLogger(__name__)

# The codes of walks that stop before their end: out of time, and for
# evidence to come.
UNFINISHED = 'round_unfinished'
WAITS = 'waits_for_evidence'
# The code of an attempt that had begun too late for a call, and the part of
# its time that a call must have left: it would only fail, or be uncertain.
NOT_CALLED = 'not_called'
LEAST = 0.5


class Journal(Protocol):
    """The book of one message: what was tried, written before it is done."""

    @property
    def message(self) -> Message:
        """The message with all its attempts, those of this walk too."""

    def begin(self, service: AbstractEmailService, seconds: float,
              replays: Attempt | None = None) -> SendContext:
        """Commit that an attempt of at most so many seconds begins.

        Raises LeaseLost, or StoreUnavailable: then nothing is called.
        """

    def end(self, outcome: Outcome) -> None:
        """Commit how the attempt ended that has begun."""

    def prove(self, attempt: Attempt, outcome: Outcome) -> None:
        """Commit what became of an attempt that was uncertain."""


class Health(Protocol):
    """Which services may be tried now."""

    def permit(self, service: AbstractEmailService) -> Any | None:
        """Return a permit to call `service` once, or None: it rests."""

    def record(self, permit: Any, outcome: Outcome) -> None:
        """Note what came of the call that `permit` allowed."""

    def release(self, permit: Any) -> None:
        """Take back a permit for which nothing was called."""


class PooledEmailService(AbstractEmailService):
    """The services of a pool, in the order in which they are tried."""

    def __init__(self, services: Sequence[AbstractEmailService],
                 journal: Journal, health: Health, clock: Clock,
                 stops_at: Callable[[], float] = lambda: math.inf,
                 uncertain_wait: float = 0.0):
        """`stops_at` tells when this process must be done, in monotonic
        seconds: nothing is begun that might not be. `uncertain_wait`:
        seconds for which evidence is waited for."""
        self.services = services
        self.journal = journal
        self.health = health
        self.clock = clock
        self.stops_at = stops_at
        self.uncertain_wait = uncertain_wait

    def send_email(self, email, context):
        """Walk the services until nobody is left to send to; return the best
        outcome.

        Who is left after others are settled goes alone, by services that can
        do that. `context.deadline` ends the walk: behind the first no
        service is begun that might not be done by then, and the outcome has
        the code UNFINISHED; while evidence of an attempt may come nobody
        else is asked, and it is WAITS. Raises what the journal raises.
        """
        outcomes, resting = [], []
        for service in self.services:
            message = self.journal.message
            if must_hold(message) or not recipients.left(message) \
                    or self.clock.now() >= message.expires_at:
                break
            if not can_go_by(service, message) \
                    or is_unable(service, message) \
                    or _was_asked(service, message):
                continue
            if waited_for(message, self.services, self.clock.now(),
                          self.uncertain_wait):
                return Outcome(kind=Kind.uncertain, code=WAITS,
                               reason='a provider may have taken it')
            now = self.clock.monotonic()
            left = context.deadline - now
            usual = service.seconds_for(email)
            seconds = min(usual + service.patience, left)
            if left <= 0 or outcomes and usual >= left \
                    or now + usual > self.stops_at():
                return Outcome(kind=Kind.deferred, code=UNFINISHED,
                               reason='the rest of the pool comes next')
            permit = self.health.permit(service)
            if permit is None:
                resting.append(service.name)
                continue
            outcomes.append(self._attempt(
                service, permit, seconds, email, tuple(resting)))
            if outcomes[-1].code == NOT_CALLED:     # it comes first, then
                return outcomes[-1].model_copy(update={'code': UNFINISHED})
        return _best(outcomes, resting)

    def ask(self, email: Callable[[], Email], context: SendContext,
            look_until: float) -> None:
        """Ask the providers of uncertain attempts what became of them, by a
        look-up, or by sending the same again where it is taken once.

        Look-ups end by `look_until` (monotonic seconds): the lease must
        outlast them.
        """
        message = self.journal.message
        for attempt, service in to_ask(
                message, self.services, self.clock.now(),
                self.uncertain_wait):
            now = self.clock.monotonic()
            until = min(context.deadline, look_until,
                        now + service.settings.timeout)
            found = service.evidence.look_up and now < until and _looked_up(
                service, context._replace(
                    attempt_id=attempt.id, deadline=until,
                    envelope=attempt.envelope))
            if found:
                self.journal.prove(attempt, found)
            elif service.evidence.can_replay(
                    attempt, message, self.clock.now()):
                self._replay(service, attempt, email(), context)

    def _replay(self, service, attempt, email, context):
        now, seconds = self.clock.monotonic(), service.seconds_for(email)
        if now + seconds > min(context.deadline, self.stops_at()):
            return
        if permit := self.health.permit(service):
            self._attempt(service, permit, seconds, email, (), attempt)

    def probe(self):
        results = [service.probe() for service in self.services]
        return ProbeResult(
            any(result.ok for result in results),
            '; '.join(result.detail for result in results))

    def _attempt(self, service, permit, seconds, email, resting,
                 replays=None):
        try:
            context = self.journal.begin(service, seconds, replays)
        except Exception:
            self.health.release(permit)
            raise
        in_time = (self.clock.monotonic()
                   <= context.deadline - LEAST * seconds)
        outcome = _called(service, email, context) if in_time else Outcome(
            kind=Kind.deferred, code=NOT_CALLED,
            reason='it was not called: to write that down took too long')
        if resting:
            outcome = outcome.model_copy(update={'passed_over': resting})
        try:
            self.journal.end(outcome)
        finally:
            if in_time:
                self.health.record(permit, outcome)
            else:
                self.health.release(permit)
        if outcome.alert:
            log.error('%s needs a look', service.name, extra={
                'service': service.name, 'kind': outcome.kind,
                'status': outcome.http_status, 'reason': outcome.reason})
        return outcome


def _called(service, email, context):
    try:
        return service.send_email(email, context)
    except Exception as error:      # a bug of ours: who knows how far
        log.exception('the service %s broke', service.name)
        return Outcome(
            kind=Kind.uncertain, alert=True,
            reason=f'the service broke: {type(error).__name__}')


def _looked_up(service, context):
    try:
        return service.look_up(context)
    except Exception:       # a bug of ours; the attempt stays uncertain
        log.exception('the service %s broke at a look-up', service.name)
        return None


def can_go_by(service: AbstractEmailService, message: Message) -> bool:
    """Say whether `service` could carry `message` to whom it is left for."""
    return (service.capabilities.envelope
            or recipients.envelope(message) is None)


def is_unable(service: AbstractEmailService, message: Message) -> bool:
    """Say whether `service` was found unable to carry `message` to those
    whom it is left for."""
    return any(
        attempt.service == service.name and attempt.outcome is not None
        and attempt.outcome.kind is Kind.unsupported
        and attempt.envelope == recipients.envelope(message)
        for attempt in message.recent)


def _was_asked(service, message):
    """In this round."""
    return any(attempt.service == service.name
               and attempt.round == message.round
               and not (attempt.outcome
                        and attempt.outcome.code == NOT_CALLED)
               for attempt in message.recent)


def _best(outcomes, resting):
    """The most hopeful outcome stands for the walk."""
    for kind in HOPE:
        for outcome in outcomes:
            if outcome.kind is kind:
                return outcome
    if resting:
        return Outcome(kind=Kind.deferred,
                       reason=f'resting: {", ".join(resting)}')
    return Outcome(kind=Kind.deferred, reason='no service is left to try')
