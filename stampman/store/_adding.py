"""Taking messages in, in a transaction that is open: all of them, or none."""

import json
from collections.abc import Mapping, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from stampman.helpers.delivery import IdempotencyKey, State
from stampman.helpers.exceptions import (
    KeyBusy, KeyReused, KeyTaken, TooManyRequests)
from stampman.store import _rows as rows
from stampman.store import _statements as sql
from stampman.store.base import Entry

KEY_LIFE = 86400.0      # seconds for which an Idempotency-Key is remembered
BLOCKED = '55P03'       # SQLSTATE: another's lock was waited for too long
LATE = 15.0             # seconds: who waited for the lock brings an old time


class Prepared:
    """The rows of messages to be stored, made before the lock is taken."""

    def __init__(self, entries: Sequence[Entry]):
        for one in entries:
            if (one.claim is not None) != (
                    one.message.state is State.sending) \
                    or one.attempt and not one.claim:
                raise ValueError('a message is `sending` exactly if it is '
                                 'claimed, and only then attempted')
        self.pool = entries[0].message.pool
        self.now = entries[0].message.created_at
        self.ids = {one.position: one.message.id for one in entries}
        self.messages = [rows.message_row(one.message, one.claim)
                         for one in entries]
        # When their leases were told: the wall clock may jump meanwhile.
        self.told_at = [one.attempt.started_at if one.attempt
                        else one.message.created_at for one in entries]
        self.emails = [{'message_id': one.message.id,
                        'content': rows.content_of(one.email)}
                       for one in entries]
        self.recipients = [row for one in entries
                           for row in rows.recipient_rows(one.message)]
        self.attachments = [
            row for one in entries
            for row in rows.attachment_rows(one.message.id, one.email)]
        self.attempts = [rows.begun_row(one.attempt, one.message.id)
                         for one in entries if one.attempt]

    @property
    def is_plain(self) -> bool:
        """Whether it is one message, without attachments."""
        return len(self.messages) == 1 and not self.attachments

    def write(self, connection: Connection, lease_time: float) -> None:
        """`lease_time`: what the clock shows that leases are counted on."""
        messages = [
            row if row['lease_until'] is None else
            {**row, 'lease_until': row['lease_until'] - told_at + lease_time}
            for row, told_at in zip(self.messages, self.told_at)]
        sql.ADD_MESSAGE.run_all(connection, messages)
        sql.ADD_EMAIL.run_all(connection, self.emails)
        sql.ADD_RECIPIENT.run_all(connection, self.recipients)
        sql.ADD_ATTACHMENT.run_all(connection, self.attachments)
        sql.BEGIN.run_all(connection, self.attempts)


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
    """Write what is stored under `key`.

    Raises KeyTaken, KeyReused, and KeyBusy where a twin's transaction lasts.
    """
    if known(connection, pool, key, now):
        raise KeyTaken()
    with _twins_waited_for():
        connection.execute(sql.FORGET_KEY, {
            'in_pool': pool, 'digest': key.digest, 'before': now - KEY_LIFE})
        connection.execute(sql.ADD_KEY, {
            'pool': pool, 'key': key.digest, 'fingerprint': key.fingerprint,
            'message_ids': json.dumps(ids), 'created_at': created_at})


@contextmanager
def _twins_waited_for():
    """A twin that writes the same row is waited for, not for ever."""
    try:
        yield
    except DBAPIError as error:
        if getattr(error.orig, 'sqlstate', '') != BLOCKED:
            raise
        raise KeyBusy('The first request with this Idempotency-Key is still '
                      'being stored: ask again.', retry_after=1) from error


def count(connection: Connection, pool: str, now: float, rate: float,
          messages: int) -> None:
    """Take so many from the pool's bucket, which fills at `rate` a second.

    Several that come at once may empty it by more than it holds: who comes
    after them waits the longer. Raises TooManyRequests where it is empty.
    """
    size = max(1.0, rate)
    its = {'in_pool': pool}
    row = connection.execute(sql.RATE, its).one_or_none()
    if row is None:
        connection.execute(sql.ADD_RATE, {
            'pool': pool, 'free': size, 'counted_at': now})
        row = connection.execute(sql.RATE, its).one()
    free, counted_at = row
    if counted_at > now + max(size / rate, LATE):   # the clock was set back
        free, counted_at = size, now
    free = min(size, free + max(0.0, now - counted_at) * rate)
    if free < 1:
        raise TooManyRequests(
            f'{pool} may send {rate:g} messages a second',
            retry_after=(1 - free) / rate)
    connection.execute(sql.SET_RATE, {
        **its, 'free': free - messages,
        'counted_at': max(now, counted_at)})
