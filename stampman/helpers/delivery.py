"""What happens to a message: outcomes, attempts, states.

All times are seconds since the epoch, UTC, as floats; a monotonic time says
so in its name or its docstring.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

MAX_UNCERTAIN = 3       # uncertain attempts under `failover`, then it is held
MAX_CRASHES = 5         # attempts that took the process with them: poison
MAX_REASON = 300        # characters of what a person is told


@dataclass(frozen=True)
class Clock:
    """Where time comes from: handed in, so that tests need not wait.

    `boot` names the start that `monotonic` counts from, where all processes
    of the machine share it; '' where that is not known.
    """

    now: Callable[[], float]            # wall clock, seconds since the epoch
    monotonic: Callable[[], float]      # seconds; never jumps
    boot: str = ''


@dataclass(frozen=True)
class Timing:
    """How long things may take, in seconds: handed in like the clock.

    `lease` is that of a claim, which each attempt extends: it outlasts the
    call by `recording`, for which the end of an attempt is tried to be
    written, and by `grace`. `request` is for how long after its arrival a
    request delivers, `drain` how long a process that is told to stop may
    take. A worker looks after `idle`, and makes its rounds each `rounds`.
    """

    lease: float = 30.0
    recording: float = 30.0
    between_tries: float = 0.5
    grace: float = 5.0
    request: float = 25.0
    drain: float = 20.0
    idle: float = 1.0
    rounds: float = 10.0


class Kind(StrEnum):
    """How an attempt ended."""

    accepted = 'accepted'           # the provider took responsibility
    rejected = 'rejected'           # this email is refused for good, anywhere
    unsupported = 'unsupported'     # this provider cannot carry this email
    refused = 'refused'             # this provider will not serve us
    deferred = 'deferred'           # not now, and surely not taken
    uncertain = 'uncertain'         # handed over, no proof either way


class State(StrEnum):
    """Where a message stands."""

    queued = 'queued'               # will be sent as soon as it is due
    sending = 'sending'             # somebody holds the lease
    deferred = 'deferred'           # no service would take it; tried again
    uncertain = 'uncertain'         # a provider may have taken it
    accepted = 'accepted'           # a provider took it
    rejected = 'rejected'           # refused for good
    failed = 'failed'               # nobody could carry it, or in time
    cancelled = 'cancelled'         # withdrawn by a person


class RecipientOutcome(BaseModel):
    """How one recipient fared in an attempt; `email` as the email has it."""

    model_config = ConfigDict(frozen=True, extra='forbid')

    email: str
    kind: Kind
    reason: str = ''
    provider_message_id: str | None = None


class Outcome(BaseModel):
    """How an attempt ended, and what a person should know of it.

    `reason` is for people: no address, no key, no part of the email.
    `code` is the provider's own word. `retry_after` is in seconds. `alert`
    asks for a person's eye. `throttled` says a deferral is about our pace,
    `recipient_only` that it is about mailboxes, `domain_only` that a refusal
    is about the sender's domain: none then speaks of the account's health.
    `stalled` says of an accepted email that it may lie there for ever: the
    account rests. `simulated`: no mail really goes out. `passed_over` are
    the services before it that rested.
    `recipients` tells how each of the attempt's recipients fared, where
    they are told apart; where it is empty all fared as `kind` says.
    """

    model_config = ConfigDict(frozen=True, extra='forbid')

    kind: Kind
    reason: str = ''
    code: str = ''
    http_status: int | None = None
    provider_message_id: str | None = None
    retry_after: float | None = None
    throttled: bool = False
    domain_only: bool = False
    recipient_only: bool = False
    alert: bool = False
    simulated: bool = False
    stalled: bool = False
    passed_over: tuple[str, ...] = ()
    recipients: tuple[RecipientOutcome, ...] = ()


class Attempt(BaseModel):
    """One delivery of one message by one service.

    `outcome` is None while it runs. `resolved` is what settled an uncertain
    one: a person's word, `accepted` or `not_sent`, or `replayed`. `envelope`
    holds the addresses that it is for, where it is not for all of the
    message's. `replays` is the id of an uncertain one that the provider is
    asked about by sending the same again, which it takes once: that it is
    accepted holds for both, and nothing else proves anything.
    """

    model_config = ConfigDict(frozen=True, extra='forbid')

    id: str
    service: str
    provider: str
    round: int
    started_at: float
    ended_at: float | None = None
    outcome: Outcome | None = None
    resolved: str | None = None
    envelope: tuple[str, ...] | None = None
    replays: str | None = None

    @property
    def root(self) -> str:
        """The id of the attempt that it replays, or its own."""
        return self.replays or self.id

    @property
    def is_uncertain(self) -> bool:
        """Whether a provider may hold the message because of it."""
        return (self.outcome is not None
                and self.outcome.kind is Kind.uncertain
                and self.resolved is None)


class Recipient(BaseModel):
    """Whom a message goes to, and the last thing known about that."""

    model_config = ConfigDict(frozen=True, extra='forbid')

    email: str
    kind: str                   # `to`, `cc` or `bcc`
    status: str
    reason: str = ''
    provider_message_id: str | None = None


class Message(BaseModel):
    """One submission, as stored; its email lies apart.

    `round` counts the walks of the pool that are over. Policy looks at
    attempts behind the first `restarted_after`, which had ended when a
    person last set it going. Nothing is tried before `send_at`. Since
    `erased_at` its email and its addresses are gone.
    """

    model_config = ConfigDict(frozen=True, extra='forbid')

    id: str
    pool: str
    state: State
    created_at: float
    expires_at: float
    on_uncertain: str
    send_at: float | None = None
    erased_at: float | None = None
    round: int = 0
    next_attempt_at: float | None = None
    restarted_after: int = 0
    crashes: int = 0
    possible_duplicate: bool = False
    reason: str = ''
    attempts: tuple[Attempt, ...] = ()
    recipients: tuple[Recipient, ...] = ()

    @property
    def recent(self) -> tuple[Attempt, ...]:
        """The attempts that policy looks at."""
        return self.attempts[self.restarted_after:]

    @property
    def is_uncertain(self) -> bool:
        """Whether a provider may have taken it, by any of its attempts."""
        return any(attempt.is_uncertain for attempt in self.attempts)

    @property
    def accepted_by(self) -> Attempt | None:
        """The attempt by which a provider took the message."""
        return next((attempt for attempt in self.attempts if
                     attempt.resolved == Kind.accepted or attempt.outcome
                     and attempt.outcome.kind is Kind.accepted), None)


class IdempotencyKey(NamedTuple):
    """A client's name for one submission, which is stored once under it.

    Both are SHA-256 in hex: of the key, and of what was submitted.
    """

    digest: str
    fingerprint: str


class Claim(NamedTuple):
    """The right to deliver a message until `lease_until`; `fence` numbers
    the claims of a message, so that an older holder is turned away."""

    message_id: str
    owner: str
    fence: int
    lease_until: float


# The most hopeful first: what a message has come to, over all attempts.
HOPE = (Kind.accepted, Kind.uncertain, Kind.rejected, Kind.deferred,
        Kind.refused, Kind.unsupported)
# What an attempt has come to, over its recipients: one that is rejected is
# settled, so that any other speaks for what is still to be done.
FOR_ALL = (Kind.accepted, Kind.uncertain, Kind.deferred, Kind.refused,
           Kind.unsupported, Kind.rejected)


def together(recipients: Sequence[RecipientOutcome], **more: Any) -> Outcome:
    """Return the outcome of an attempt whose recipients fared like this.

    `more` are further fields of the outcome.
    """
    kinds = {one.kind for one in recipients}
    kind = next(kind for kind in FOR_ALL if kind in kinds)
    whys = Counter((one.kind, one.reason) for one in recipients
                   if one.kind is not Kind.accepted)
    alike = len({(one.kind, one.reason, one.provider_message_id)
                 for one in recipients}) == 1
    reason = '; '.join(
        why if alike else f'{count} of {len(recipients)} recipients '
        f'{kind}: {why}' for (kind, why), count in whys.items())
    return Outcome(**{
        'kind': kind, 'reason': reason[:MAX_REASON],
        'provider_message_id': next(
            (one.provider_message_id for one in recipients
             if one.kind is Kind.accepted), None),
        'recipients': () if alike else tuple(recipients), **more})


def by_word(kind: Kind, word: str | None) -> Kind:
    """Return `kind`, or what a person's word makes of one that is
    uncertain."""
    if kind is not Kind.uncertain or word is None:
        return kind
    return Kind.accepted if word == Kind.accepted else Kind.deferred


def must_hold(message: Message) -> str:
    """Return why nothing more may be tried without a person, or ''."""
    uncertain = len({attempt.root for attempt in message.recent
                     if attempt.is_uncertain})
    if message.crashes >= MAX_CRASHES:
        return f'poison: it crashed the process {message.crashes} times'
    if uncertain and message.on_uncertain == 'hold':
        return 'held: a provider may have taken it'
    if uncertain >= MAX_UNCERTAIN:
        return f'held after {uncertain} uncertain attempts'
    return ''
