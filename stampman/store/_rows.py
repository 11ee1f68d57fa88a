"""Between the vocabulary and rows.

What is stored is read back without being validated again: a validator that
has become stricter must not make stored mail unreadable.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stampman.helpers.delivery import (
    Attempt, Claim, Kind, Message, Outcome, Recipient, RecipientOutcome)
from stampman.helpers.mail import Address, Attachment, Email

_EMAIL_FIELDS = frozenset(Email.model_fields)
_PARTS_CONTENT = {'attachments': {'__all__': {'content'}}}
_MESSAGE_FIELDS = tuple(name for name in Message.model_fields
                        if name not in ('attempts', 'recipients'))
_RECIPIENT_FIELDS = tuple(Recipient.model_fields)
_ADDRESSES = ('recipients', 'cc', 'bcc', 'reply_to')
_ATTEMPT_FIELDS = [name for name in Attempt.model_fields
                   if name not in ('outcome', 'envelope')]
_BEGUN_FIELDS = ('id', 'service', 'provider', 'round', 'started_at',
                 'replays')
SLACK = 1       # milliseconds: a time may be rounded into an id either way


# -- ids ---------------------------------------------------------------------

def first_id(milliseconds: int) -> str:
    """Return what every UUID v7 of that time or later sorts behind."""
    digits = f'{min(max(milliseconds, 0), 2 ** 48 - 1):012x}'
    return f'{digits[:8]}-{digits[8:]}'


def id_bounds(since: float | None, until: float | None,
              after: str | None) -> tuple[str, str]:
    """Return the lowest id (inclusive) and the highest (exclusive) of the
    messages made in a time, and before the message `after`."""
    low = '' if since is None else first_id(int(since * 1000) - SLACK)
    high = 'g' if until is None else first_id(int(until * 1000) + 1 + SLACK)
    return low, high if after is None else min(high, after)


# -- messages ----------------------------------------------------------------

def message_row(message: Message, claim: Claim | None) -> dict[str, Any]:
    row = {name: getattr(message, name) for name in _MESSAGE_FIELDS}
    return row | ({
        'leased_by': claim.owner, 'lease_until': claim.lease_until,
        'fence': claim.fence} if claim else {
        'leased_by': None, 'lease_until': None, 'fence': 0})


def recipient_rows(message: Message) -> list[dict[str, Any]]:
    return [{'message_id': message.id, 'position': position,
             'mailbox': one.email.lower(),
             **{name: getattr(one, name) for name in _RECIPIENT_FIELDS}}
            for position, one in enumerate(message.recipients)]


def message_of(row: Mapping[str, Any], attempts: Iterable[Attempt] = (),
               recipients: Iterable[Recipient] = ()) -> Message:
    return Message(
        **{name: row[name] for name in _MESSAGE_FIELDS},
        attempts=tuple(attempts), recipients=tuple(recipients))


def recipient_of(row: Mapping[str, Any]) -> Recipient:
    return Recipient(**{name: row[name] for name in _RECIPIENT_FIELDS})


# -- attempts ----------------------------------------------------------------

def attempt_of(row: Mapping[str, Any]) -> Attempt:
    whom = row['envelope']
    return Attempt(**{name: row[name] for name in _ATTEMPT_FIELDS},
                   envelope=None if whom is None else tuple(json.loads(whom)),
                   outcome=None if row['kind'] is None else _outcome_of(row))


def _outcome_of(row):
    rest = json.loads(row['outcome'])
    if 'passed_over' in rest:
        rest['passed_over'] = tuple(rest['passed_over'])
    if 'recipients' in rest:
        rest['recipients'] = tuple(
            RecipientOutcome.model_construct(
                **{**one, 'kind': Kind(one['kind'])})
            for one in rest['recipients'])
    return Outcome.model_construct(kind=Kind(row['kind']), **rest)


def begun_row(attempt: Attempt, message_id: str) -> dict[str, Any]:
    row = {name: getattr(attempt, name) for name in _BEGUN_FIELDS}
    whom = attempt.envelope
    return {'message_id': message_id, **row, 'envelope':
            None if whom is None else envelope_of(whom)}


def envelope_of(whom: Sequence[str]) -> str:
    """Return addresses as they are kept."""
    return json.dumps(whom)


def rest_of(outcome: Outcome) -> str:
    """Return what of an outcome is not its kind, as JSON."""
    return outcome.model_dump_json(exclude={'kind'}, exclude_defaults=True)


# -- emails ------------------------------------------------------------------

def content_of(email: Email) -> str:
    """Return an email but its attachments' bytes, as JSON."""
    return email.model_dump_json(
        include=_EMAIL_FIELDS, exclude=_PARTS_CONTENT)


def attachment_rows(message_id: str, email: Email) -> list[dict[str, Any]]:
    return [{'message_id': message_id, 'position': position,
             'content': part.content}
            for position, part in enumerate(email.attachments)]


def email_of(content: str, parts: Sequence[bytes]) -> Email:
    fields = json.loads(content)
    for name in _ADDRESSES:
        fields[name] = tuple(Address.model_construct(**address)
                             for address in fields[name])
    fields['attachments'] = tuple(
        Attachment.model_construct(content=bytes(part), **described)
        for part, described in zip(
            parts, fields['attachments'], strict=True))
    fields['tags'] = tuple(fields['tags'])
    return Email.model_construct(**fields)
