"""What one delivery is about, and why it may end before it begins."""

import hashlib
from typing import NamedTuple

from stampman.helpers.delivery import Kind
from stampman.helpers.mail import Address, Email


class CannotCarry(ValueError):
    """Raised where only building shows that an email will not do.

    Its text is an outcome's reason: no address, no part of the email.
    """


class NoCredentials(Exception):
    """Raised where the credentials that a service needs are not to be had.

    Its text is an outcome's reason and holds no secret; `kind` is the
    outcome's: `deferred` where they may only be late.
    """

    def __init__(self, reason: str, kind: Kind = Kind.refused):
        super().__init__(reason)
        self.kind = kind


class SendContext(NamedTuple):
    """What one delivery is about, beside the email.

    `deadline`, in seconds of the monotonic clock, is when the call must be
    over; a call that has not written its first byte by then writes none.
    `envelope` holds the addresses that this delivery is for, where it is
    not for all that the email names.
    """

    message_id: str
    attempt_id: str
    deadline: float
    envelope: tuple[str, ...] | None = None

    @property
    def idempotency_key(self) -> str:
        """What a provider may know this delivery by when it comes again: it
        is the same for the same recipients of a message."""
        if self.envelope is None:
            return self.message_id
        whom = hashlib.sha256('\n'.join(self.envelope).encode())
        return f'{self.message_id}/{whom.hexdigest()[:16]}'

    @property
    def metadata(self) -> dict[str, str]:
        """Our ids, for the provider's metadata: its events bring them."""
        return {'stampman_id': self.message_id,
                'stampman_attempt': self.attempt_id}

    @property
    def headers(self) -> dict[str, str]:
        """Our ids, for the email's own headers."""
        return {'X-Stampman-Id': f'{self.message_id}/{self.attempt_id}'}

    def recipients_of(self, email: Email) -> tuple[Address, ...]:
        """Return whom this delivery of `email` is for."""
        if self.envelope is None:
            return email.everyone
        wanted = set(self.envelope)
        return tuple(one for one in email.everyone if one.email in wanted)
