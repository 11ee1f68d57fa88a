"""Taking a message in: from here on it is ours to deliver."""

from collections.abc import Callable
from typing import NamedTuple

from stampman.helpers.config import DAY, PoolConfig
from stampman.helpers.delivery import (
    Claim, Message, Recipient, State, Timing)
from stampman.helpers.exceptions import Forbidden, InvalidFields
from stampman.helpers.mail import Submission

LONGEST_LIFE = 30 * DAY     # seconds that a message may ask to be tried


class Intake(NamedTuple):
    """What taking in needs: a store, and a maker of ids from a time."""

    store: object
    new_id: Callable[[float], str]
    owner: str              # by whom a message is claimed at once
    timing: Timing = Timing()

    def submit(self, pool: PoolConfig, submission: Submission, now: float,
               claimed: bool) -> tuple[Message, Claim | None]:
        """Store a message and return it; `claimed` for the caller.

        Raises Forbidden for a sender that the pool does not allow,
        InvalidFields for options it cannot have, TooManyRequests over the
        pool's rate, and StoreUnavailable: then nothing is stored.
        """
        if not pool.allows(submission.from_email):
            raise Forbidden(
                f'{submission.from_email} is not an allowed sender of '
                f'{pool.domain}',
                errors=[('from_email', 'is not an allowed sender')])
        expires_at = _expiry(pool, submission, now)
        message = Message(
            id=self.new_id(now), pool=pool.domain,
            state=State.sending if claimed else State.queued,
            created_at=now, expires_at=expires_at,
            on_uncertain=_on_uncertain(pool, submission),
            next_attempt_at=None if claimed else now,
            recipients=_recipients(submission, claimed))
        claim = Claim(message.id, self.owner, 1, now + self.timing.lease) \
            if claimed else None
        self.store.add(message, submission.email(), claim, pool.rate)
        return message, claim


def _recipients(email, claimed):
    status = State.sending if claimed else State.queued
    return tuple(
        Recipient(email=address.email, kind=kind, status=status)
        for kind, addresses in (('to', email.recipients), ('cc', email.cc),
                                ('bcc', email.bcc))
        for address in addresses)


def _expiry(pool, submission, now):
    if submission.expires_at is None:
        return now + pool.expires_after
    expires_at = submission.expires_at.timestamp()
    if not now < expires_at <= now + LONGEST_LIFE:
        raise InvalidFields(errors=[(
            'expires_at', 'must lie ahead, by '
            f'{LONGEST_LIFE / DAY:.0f} days at most')])
    return expires_at


def _on_uncertain(pool, submission):
    """A message may be stricter than its pool, not the reverse."""
    wanted = submission.on_uncertain or pool.on_uncertain
    if wanted == 'failover' and pool.on_uncertain == 'hold':
        raise InvalidFields(errors=[(
            'on_uncertain', 'this pool holds: a message cannot ask for '
            '"failover"')])
    return wanted
