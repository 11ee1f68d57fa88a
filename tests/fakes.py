"""What tests hand in where the program is handed the world."""

import itertools

from stampman.helpers import recipients
from stampman.helpers.config import ServiceSettings
from stampman.helpers.delivery import (
    Attempt, Clock, Kind, Message, Outcome, Recipient, State)
from stampman.helpers.mail import submission
from stampman.services.base import (
    AbstractEmailService, Evidence, ProbeResult, SendContext)

NOW = 1_800_000_000.0       # seconds since the epoch


class Time:
    """A clock that moves when told to."""

    def __init__(self, now=NOW):
        self.at = now
        self.clock = Clock(lambda: self.at, lambda: self.at - NOW + 1000.0)

    def pass_by(self, seconds):
        self.at += seconds


class ScriptedService(AbstractEmailService):
    """A service that answers with the outcomes it was given, in turn, the
    last one for ever; an exception among them is raised."""

    provider = 'scripted'

    def __init__(self, name, *outcomes, domain='example.com', probes=(),
                 during=None, evidence=Evidence(), known=None,
                 **settings):
        super().__init__(name, ServiceSettings(**settings), domain, None)
        self.evidence = evidence
        self.known = known      # what a look-up finds
        self.looked_up = []
        self.outcomes = list(outcomes)
        self.probes = list(probes)
        self.during = during
        self.calls = []

    def credential(self):
        return self.name

    def send_email(self, email, context):
        self.calls.append(context)
        if self.during:
            self.during()
        outcome = self.outcomes[0]
        if len(self.outcomes) > 1:
            self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def look_up(self, context):
        self.looked_up.append(context)
        if isinstance(self.known, Exception):
            raise self.known
        return self.known

    def probe(self):
        return ProbeResult(self.probes.pop(0), 'as scripted')


class MemoryJournal:
    """A journal that a test can read, with every entry in order."""

    def __init__(self, message, time):
        self.message = message
        self.time = time
        self.entries = []
        self._ids = itertools.count(1)

    def begin(self, service, seconds, replays=None):
        attempt = Attempt(
            id=f'attempt-{next(self._ids)}', service=service.name,
            provider=service.provider, round=self.message.round,
            started_at=self.time.at, replays=replays and replays.id,
            envelope=recipients.envelope(self.message))
        self.entries.append(('begin', service.name))
        self._set((*self.message.attempts, attempt))
        return SendContext(self.message.id, attempt.id,
                           self.time.clock.monotonic() + seconds,
                           attempt.envelope)

    def end(self, outcome):
        *earlier, attempt = self.message.attempts
        self.entries.append(('end', attempt.service, outcome.kind))
        self._set((*earlier, attempt.model_copy(update={
            'ended_at': self.time.at, 'outcome': outcome})))

    def _set(self, attempts):
        self.message = self.message.model_copy(update={'attempts': attempts})


class EveryoneIsWell:
    """A health by which every service may be tried."""

    def __init__(self, resting=()):
        self.resting = resting
        self.recorded = []

    def permit(self, service):
        return None if service.name in self.resting else service.name

    def record(self, permit, outcome):
        self.recorded.append((permit, outcome.kind))

    def release(self, permit):
        self.recorded.append((permit, None))


def outcome(kind, **more):
    """Return an outcome of that kind."""
    return Outcome(kind=Kind(kind), **more)


def email(**fields):
    """Return an ordinary email, with `fields` as a client gives them."""
    return submission({
        'from_email': 'hello@example.com', 'recipients': ['you@example.org'],
        'subject': 'Hello', 'content': 'It works.', **fields}).email()


def message(**fields):
    """Return a message that is being sent."""
    return Message(**{
        'id': '01890000-0000-7000-8000-000000000001', 'pool': 'example.com',
        'state': State.sending, 'created_at': NOW, 'expires_at': NOW + 86400,
        'on_uncertain': 'failover',
        'recipients': (Recipient(email='you@example.org', kind='to',
                                 status='sending'),), **fields})
