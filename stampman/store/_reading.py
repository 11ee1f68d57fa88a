"""Whole messages, read in a transaction that is open."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from stampman.helpers.delivery import Message
from stampman.helpers.exceptions import NotFound
from stampman.store import _rows as rows
from stampman.store import _statements as sql


def message(connection: Connection, pool: str, message_id: str) -> Message:
    """Return a message of a pool; raises NotFound."""
    row = connection.execute(sql.MESSAGE, {
        'of': message_id, 'in_pool': pool}).mappings().one_or_none()
    if row is None:
        raise NotFound(f'there is no message "{message_id}" in {pool}')
    return whole(connection, row)


def whole(connection: Connection, row: Mapping[str, Any]) -> Message:
    """Return the message of a row, with its attempts and recipients."""
    of = {'of': row['id']}
    attempts = sorted(sql.ATTEMPTS.read(connection, of),
                      key=lambda attempt: attempt['number'])
    recipients = sql.RECIPIENTS.read(connection, of)
    return rows.message_of(row, map(rows.attempt_of, attempts),
                           map(rows.recipient_of, recipients))
