"""How the recipients of one message fared, over all its attempts.

One attempt may end otherwise for each of them. Who is accepted by any
attempt, or rejected by one, is settled; the others are left, and are tried
again alone: as envelope recipients, under unchanged headers.
"""

from collections.abc import Iterable
from typing import NamedTuple

from stampman.helpers.delivery import (
    HOPE, Attempt, Kind, Message, Recipient, State, by_word)

ENDED = frozenset({State.rejected, State.failed, State.cancelled})


class _Fared(NamedTuple):
    """How one recipient fared in one attempt.

    One that is uncertain, where the provider took the email for others, is
    settled: it is most likely on its way, and is not sent to again.
    """

    kind: Kind
    reason: str
    provider_message_id: str | None
    is_recent: bool
    is_taken_for_others: bool

    @property
    def is_settled(self) -> bool:
        return (self.kind is Kind.accepted
                or self.kind is Kind.uncertain and self.is_taken_for_others
                or self.kind is Kind.rejected and self.is_recent)


class _Ended:
    """An attempt that has ended, asked about one recipient after another."""

    def __init__(self, attempt: Attempt, is_recent: bool):
        self._covers = attempt.envelope and frozenset(attempt.envelope)
        outcome = attempt.outcome
        whole = by_word(outcome.kind, attempt.resolved)
        self._whole, *own = (
            _Fared(by_word(one.kind, attempt.resolved), one.reason,
                   one.provider_message_id, is_recent,
                   whole is Kind.accepted)
            for one in (outcome, *outcome.recipients))
        self._own = {one.email: fared for one, fared
                     in zip(outcome.recipients, own)}

    def fared(self, email: str) -> _Fared | None:
        """Return how `email` fared; None where the attempt was not for it."""
        if self._own:
            return self._own.get(email)
        covered = self._covers is None or email in self._covers
        return self._whole if covered else None


def _by_recipient(message: Message) -> Iterable[
        tuple[Recipient, list[_Fared]]]:
    ended = [_Ended(attempt, number >= message.restarted_after)
             for number, attempt in enumerate(message.attempts)
             if attempt.outcome]
    for recipient in message.recipients:
        found = (attempt.fared(recipient.email) for attempt in ended)
        yield recipient, [fared for fared in found if fared]


def left(message: Message) -> tuple[str, ...]:
    """Return the addresses of those that are not settled, by an attempt or,
    as their status says, before a person last set the message going."""
    return tuple(recipient.email for recipient, all_fared
                 in _by_recipient(message)
                 if recipient.status != State.rejected
                 and not any(fared.is_settled for fared in all_fared))


def envelope(message: Message) -> tuple[str, ...] | None:
    """Return whom the next attempt is for, where not for all; else None."""
    unsettled = left(message)
    return unsettled if len(unsettled) < len(message.recipients) else None


def tells_apart(attempt: Attempt) -> bool:
    """Whether `attempt` was not for all, or not the same for all."""
    return (attempt.envelope is not None
            or attempt.outcome is not None and bool(
                attempt.outcome.recipients))


def told_apart(message: Message) -> bool:
    """Whether any attempt tells the message's recipients apart."""
    return any(map(tells_apart, message.attempts))


def settle(message: Message) -> Message:
    """Return `message` with what its attempts have settled.

    Recipients take their own status. Once a provider took the message, and
    nobody is left, it is `accepted`; an end that was concluded without that
    proof gives way to it.
    """
    found = list(_by_recipient(message))
    changes = {
        'recipients': tuple(_settled(*one) for one in found),
        'possible_duplicate': message.possible_duplicate
        or message.accepted_by is not None and any(
            sum(fared.kind in (Kind.accepted, Kind.uncertain)
                for fared in all_fared) > 1 for _, all_fared in found)}
    if message.accepted_by and (
            message.state in ENDED or not left(message)):
        changes |= {'state': State.accepted, 'next_attempt_at': None,
                    'reason': ''}
    return message.model_copy(update=changes)


def concluded(message: Message, status: State,
              reason: str) -> tuple[Recipient, ...]:
    """Return the recipients as a round leaves them that ends in `status`.

    Who waits on, waits as its own attempts say: nobody is `uncertain` whom
    no provider can have reached.
    """
    waits_on = status in (State.deferred, State.uncertain)
    return tuple(
        _waiting(recipient, all_fared, reason) if waits_on else
        recipient.model_copy(update={'status': status, 'reason': reason})
        if recipient.email in whom else _settled(recipient, all_fared)
        for whom in [frozenset(left(message))]
        for recipient, all_fared in _by_recipient(message))


def _waiting(recipient, all_fared, reason):
    settled = _settled(recipient, all_fared)
    if settled.status in (State.accepted, State.rejected) or any(
            fared.is_settled for fared in all_fared):
        return settled
    uncertain = [fared for fared in all_fared
                 if fared.kind is Kind.uncertain]
    last = (uncertain or all_fared)[-1:]
    return recipient.model_copy(update={
        'status': State.uncertain if uncertain else State.deferred,
        'reason': last[0].reason if last else reason})


def _settled(recipient, all_fared):
    """The most hopeful word stands: nobody is `rejected` whom another
    attempt may have reached."""
    best = min(all_fared, key=lambda fared: HOPE.index(fared.kind),
               default=None)
    if best is None or not any(fared.is_settled for fared in all_fared):
        return recipient
    return recipient.model_copy(update={
        'status': str(best.kind),
        'reason': '' if best.kind is Kind.accepted else best.reason,
        'provider_message_id': best.provider_message_id})
