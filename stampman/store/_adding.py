"""Taking messages in, in a transaction that is open: all of them, or none."""

import json
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from stampman.helpers.delivery import IdempotencyKey, State
from stampman.helpers.exceptions import KeyReused, KeyTaken, TooManyRequests
from stampman.store import _rows as rows
from stampman.store import _statements as sql
from stampman.store.base import Entry

KEY_LIFE = 86400.0      # seconds for which an Idempotency-Key is remembered
LATE = 15.0             # seconds: who waited for the lock brings an old time


class Prepared:
    """The rows of messages to be stored, made before the lock is taken."""

    def __init__(self, entries: Sequence[Entry]):
        for _, message, _, claim in entries:
            if (claim is not None) != (message.state is State.sending):
                raise ValueError(
                    'a message is `sending` exactly if it is claimed')
        self.pool = entries[0].message.pool
        self.now = entries[0].message.created_at
        self.ids = {one.position: one.message.id for one in entries}
        self.messages = [rows.message_row(one.message, one.claim)
                         for one in entries]
        self.emails = [{'message_id': one.message.id,
                        'content': rows.content_of(one.email)}
                       for one in entries]
        self.recipients = [row for one in entries
                           for row in rows.recipient_rows(one.message)]
        self.attachments = [
            row for one in entries
            for row in rows.attachment_rows(one.message.id, one.email)]

    def write(self, connection: Connection, lease_ahead: float) -> None:
        """`lease_ahead`: seconds by which the store's clock is ahead of the
        one that the claims' leases were told by."""
        for row in self.messages:
            if row['lease_until'] is not None:
                row['lease_until'] += lease_ahead
        for statement, found in ((sql.ADD_MESSAGE, self.messages),
                                 (sql.ADD_EMAIL, self.emails),
                                 (sql.ADD_RECIPIENT, self.recipients),
                                 (sql.ADD_ATTACHMENT, self.attachments)):
            if found:
                connection.execute(statement, found)


def known(connection: Connection, pool: str, key: IdempotencyKey,
          now: float) -> Mapping[int, str]:
    """Return what is stored under `key`, by position; {} where nothing is.

    Raises KeyReused where it came with another body.
    """
    row = connection.execute(sql.KNOWN_KEY, {
        'in_pool': pool, 'digest': key.digest}).one_or_none()
    if row is None or row.created_at <= now - KEY_LIFE:
        return {}
    if row.fingerprint != key.fingerprint:
        raise KeyReused('This Idempotency-Key was used with another body, '
                        'and nothing is stored: send that body again, or '
                        'take another key.')
    return {int(position): message_id for position, message_id
            in json.loads(row.message_ids).items()}


def remember(connection: Connection, pool: str, key: IdempotencyKey,
             ids: Mapping[int, str], now: float, created_at: float) -> None:
    """Write what is stored under `key`; raises KeyTaken, KeyReused."""
    if known(connection, pool, key, now):
        raise KeyTaken()
    connection.execute(sql.FORGET_KEY, {
        'in_pool': pool, 'digest': key.digest})
    connection.execute(sql.ADD_KEY, {
        'pool': pool, 'key': key.digest, 'fingerprint': key.fingerprint,
        'message_ids': json.dumps(ids), 'created_at': created_at})


def count(connection: Connection, pool: str, now: float, rate: float,
          messages: int) -> None:
    """Take so many from the pool's bucket, which fills at `rate` a second.

    Several that come at once may empty it by more than it holds: who comes
    after them waits the longer. Raises TooManyRequests where it is empty.
    """
    size = max(1.0, rate)
    row = connection.execute(sql.RATE, {'in_pool': pool}).one_or_none()
    free, counted_at = row or (size, now)
    if counted_at > now + max(size / rate, LATE):   # the clock was set back
        free, counted_at = size, now
    free = min(size, free + max(0.0, now - counted_at) * rate)
    if free < 1:
        raise TooManyRequests(
            f'{pool} may send {rate:g} messages a second',
            retry_after=(1 - free) / rate)
    left = {'free': free - messages, 'counted_at': max(now, counted_at)}
    if row:
        connection.execute(sql.SET_RATE, {'in_pool': pool, **left})
    else:
        connection.execute(sql.ADD_RATE, {'pool': pool, **left})
