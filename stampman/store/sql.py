"""A store in an SQL database. The database is handed in; SQL is portable."""

import json
import logging
from pathlib import Path
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.exc import IntegrityError

from stampman.helpers.delivery import Claim, Kind, Outcome, State
from stampman.helpers.exceptions import (
    ConfigError, Conflict, LeaseLost, NotFound, StoreUnavailable,
    TooManyRequests)
from stampman.helpers.recipients import tells_apart, told_apart
from stampman.store import _following as following
from stampman.store import _reading as reading
from stampman.store import _rows as rows
from stampman.store import _statements as sql
from stampman.store._sqlite import SqliteDatabase
from stampman.store.base import (
    ORPHANED, AbstractStore, Claimed, Filter, HealthRow)
from stampman.store.schema import HEAD

log = logging.getLogger(__name__)

FORGET_AFTER = 86400.0      # seconds without a beat: the worker is no more
ASIDE = 3600.0              # seconds for which an unreadable message waits
_GUESS = rows.rest_of(Outcome(kind=Kind.uncertain, reason=ORPHANED))
_VERSION = 'SELECT version_num FROM alembic_version'


class _Unreadable(Exception):
    """A message's rows are not of this program."""

    def __init__(self, id):
        super().__init__(id)
        self.id = id


def sqlite_path(url: str) -> Path:
    """Return the file that an `sqlite:///` URL names.

    Raises ConfigError where it names none: a database in memory would be
    lost.
    """
    start, _, path = url.partition(':///')
    if start != 'sqlite' or not path or path == ':memory:' or '?' in path:
        raise ConfigError(errors=[(
            'DATABASE_URL', 'must name a file, without options: '
                            'sqlite:////absolute/path.db')])
    return Path(path)


class SqlStore(AbstractStore):
    """A store in an SQL database.

    `database` has blocks `write` and `read`, each one transaction that gives
    a connection, and raises StoreUnavailable for what befalls them.
    """

    def __init__(self, database: SqliteDatabase):
        self._database = database

    @classmethod
    def at(cls, url: str, **options: Any) -> 'SqlStore':
        """Return the store of an `sqlite:///` URL."""
        return cls(SqliteDatabase(sqlite_path(url), **options))

    # -- its own state -------------------------------------------------------

    def migrate(self):
        self._database.create()
        with self._database.write() as connection:
            self._database.check(connection)
            problem, behind = _compared(connection)
            if problem and not behind:
                raise StoreUnavailable(problem)
            if behind:
                from stampman.store import migrations
                migrations.upgrade(connection)
            return behind

    def schema_problem(self):
        if not self._database.exists():
            return 'there is no database yet: run "stampman migrate"'
        with self._database.read() as connection:
            return _compared(connection)[0]

    def check_writable(self, now):
        with self._database.write() as connection:
            if not connection.execute(
                    sql.CHECK, {'of': 'writable', 'now': now}).rowcount:
                connection.execute(
                    sql.ADD_CHECK, {'name': 'writable', 'checked_at': now})

    def close(self):
        self._database.close()

    # -- the message's way ---------------------------------------------------

    def add(self, message, email, claim=None, rate=None):
        _check_new(message, claim)
        content = rows.content_of(email)
        parts = rows.attachment_rows(message.id, email)
        recipients = rows.recipient_rows(message)
        with self._database.write() as connection:
            if rate is not None:
                _count(connection, message.pool, message.created_at, rate)
            connection.execute(
                sql.ADD_MESSAGE, rows.message_row(message, claim))
            connection.execute(sql.ADD_EMAIL, {
                'message_id': message.id, 'content': content})
            if recipients:
                connection.execute(sql.ADD_RECIPIENT, recipients)
            if parts:
                connection.execute(sql.ADD_ATTACHMENT, parts)

    def claim_due(self, owner, now, lease_until, limit=1):
        with self._database.read() as connection:
            if not _due(connection, now, limit, sql.WAITING_DUE,
                        sql.RUN_OUT)[0]:
                return ()
        try:
            return self._claim(owner, now, lease_until, limit)
        except _Unreadable as unreadable:
            # As after going back to an older release. It must not keep
            # those behind it from being sent.
            log.exception('a message cannot be read, and is put aside for '
                          'an hour', extra={'message_id': unreadable.id})
            with self._database.write() as connection:
                connection.execute(sql.PUT_ASIDE, {
                    'of': unreadable.id, 'later': now + ASIDE})
            return ()

    def _claim(self, owner, now, lease_until, limit):
        with self._database.write() as connection:
            ids, run_out = _due(connection, now, limit, sql.TAKE_WAITING_DUE,
                                sql.TAKE_RUN_OUT)
            for message_id in run_out:
                if connection.execute(sql.ORPHAN, {
                        'of': message_id, 'at': now,
                        'guess': _GUESS}).rowcount:
                    connection.execute(sql.CRASHED, {'of': message_id})
            return tuple(_claimed(connection, message_id, owner, lease_until)
                         for message_id in ids)

    def begin(self, claim, attempt, lease_until, possible_duplicate=False):
        with self._database.write() as connection:
            _held(claim, connection.execute(sql.EXTEND, {
                'of': claim.message_id, 'held_fence': claim.fence,
                'until': lease_until, 'twice': possible_duplicate}))
            connection.execute(
                sql.BEGIN, rows.begun_row(attempt, claim.message_id))
        return claim._replace(lease_until=lease_until)

    def end(self, attempt, message_id):
        outcome = attempt.outcome
        with self._database.write() as connection:
            is_late = tells_apart(attempt) and connection.execute(
                sql.WAS_ENDED, {'of': message_id, 'ended': attempt.id}
            ).scalar()
            if not connection.execute(sql.END, {
                    'of': message_id, 'ended': attempt.id,
                    'at': attempt.ended_at, 'how': outcome.kind.value,
                    'rest': rows.rest_of(outcome)}).rowcount:
                raise NotFound(f'no attempt {attempt.id} of {message_id}')
            if tells_apart(attempt):
                following.settle(connection, attempt, message_id, is_late)
            elif outcome.kind is Kind.accepted:
                connection.execute(sql.ACCEPTED, {'of': message_id})
                connection.execute(sql.ALL_ACCEPTED, {
                    'of': message_id,
                    'theirs': outcome.provider_message_id})
            elif outcome.kind is not Kind.uncertain:
                connection.execute(sql.RECONSIDER, {
                    'of': message_id, 'at': attempt.ended_at})

    def finish(self, claim, state, *, round, next_attempt_at=None, reason='',
               recipients=None):
        with self._database.write() as connection:
            _held(claim, connection.execute(sql.FINISH, {
                'of': claim.message_id, 'held_fence': claim.fence,
                'becomes': state.value, 'rounds': round,
                'next': next_attempt_at, 'why': reason}))
            if recipients is None:
                following.follow(connection, sql.FOLLOW, claim.message_id,
                                 state, reason)
            else:
                following.write(connection, claim.message_id, recipients)

    def change(self, pool, message_id, expected, state, *, reason='',
               resolved=None, next_attempt_at=None, restart=False,
               expires_at=None, others_at=None):
        with self._database.write() as connection:
            changed = connection.execute(sql.CHANGE, {
                'of': message_id, 'in_pool': pool,
                'expected': [one.value for one in expected],
                'becomes': state.value, 'why': reason,
                'next': next_attempt_at, 'restarts': restart,
                'expires': expires_at}).rowcount
            message = reading.message(connection, pool, message_id)
            if not changed:
                raise Conflict(f'the message is {message.state.value}')
            if resolved is not None:
                connection.execute(
                    sql.RESOLVE, {'of': message_id, 'word': resolved})
            anew = restart and State.uncertain not in expected
            if told_apart(message) and not anew:
                following.conclude(
                    connection, reading.message(connection, pool, message_id),
                    state, reason, others_at)
            else:
                following.follow(
                    connection, sql.FOLLOW_ANEW if restart else sql.FOLLOW,
                    message_id, state, reason)
            return reading.message(connection, pool, message_id)

    def hasten(self, pools, now):
        with self._database.write() as connection:
            return connection.execute(sql.HASTEN, {
                'pools': list(pools), 'now': now}).rowcount

    # -- what is known -------------------------------------------------------

    def message(self, pool, message_id):
        with self._database.read() as connection:
            return reading.message(connection, pool, message_id)

    def email(self, message_id):
        with self._database.read() as connection:
            content = connection.execute(
                sql.CONTENT, {'of': message_id}).scalar()
            if content is None:
                raise NotFound(f'no content of message {message_id}')
            parts = connection.execute(
                sql.PARTS, {'of': message_id}).scalars().all()
        return rows.email_of(content, parts)

    def page(self, pool, filter=Filter(), limit=50):
        low, high = rows.id_bounds(filter.since, filter.until, filter.after)
        asked = {'in_pool': pool, 'low': low, 'high': high,
                 'since': float('-inf' if filter.since is None
                                else filter.since),
                 'until': float('inf' if filter.until is None
                                else filter.until),
                 'most': limit + 1}
        if filter.state is not None:
            asked['in_state'] = filter.state.value
        if filter.recipient is not None:
            asked['mailbox'] = filter.recipient.lower()
        page = sql.PAGES[filter.state is not None,
                         filter.recipient is not None]
        with self._database.read() as connection:
            found = connection.execute(page, asked).mappings().all()
        return tuple(map(rows.message_of, found[:limit])), len(found) > limit

    def waiting(self):
        with self._database.read() as connection:
            return {(pool, State(state)): count for pool, state, count
                    in connection.execute(sql.UNSETTLED_COUNTS)}

    # -- what processes share ------------------------------------------------

    def health(self):
        with self._database.read() as connection:
            return {key: HealthRow(key, version, json.loads(state))
                    for key, version, state in connection.execute(sql.HEALTH)}

    def put_health(self, row, now):
        state = json.dumps(dict(row.state))
        try:
            with self._database.write() as connection:
                if row.version == 1:
                    connection.execute(sql.ADD_HEALTH, {
                        'key': row.key, 'version': 1, 'state': state,
                        'updated_at': now})
                    return True
                return bool(connection.execute(sql.SET_HEALTH, {
                    'of': row.key, 'before': row.version - 1,
                    'becomes': state, 'now': now}).rowcount)
        except IntegrityError:      # somebody else wrote the first version
            return False

    def beat(self, owner, now):
        with self._database.write() as connection:
            if not connection.execute(
                    sql.BEAT, {'of': owner, 'now': now}).rowcount:
                connection.execute(sql.FORGET_WORKERS, {
                    'silent_since': now - FORGET_AFTER})
                connection.execute(
                    sql.ADD_WORKER, {'owner': owner, 'beaten_at': now})

    def last_beat(self):
        with self._database.read() as connection:
            return connection.execute(sql.LAST_BEAT).scalar()


# -- parts of the transactions above -----------------------------------------

def _compared(connection) -> tuple[str, bool]:
    """Return what is wrong with the schema, and whether it is just behind."""
    tables = inspect(connection).get_table_names()
    if 'alembic_version' not in tables:
        if tables:
            return 'the database is another program\'s: it has tables, but ' \
                'not Stampman\'s; correct DATABASE_URL', False
        return 'the database is empty: run "stampman migrate"', True
    found = connection.exec_driver_sql(_VERSION).scalar() or ''
    if found < HEAD:
        return f'the schema ({found}) is older than this program\'s ' \
            f'({HEAD}): run "stampman migrate"', True
    if found > HEAD:
        return f'the schema ({found}) is newer than this program\'s ' \
            f'({HEAD}): run the newer Stampman, or restore a backup from ' \
            'before its "stampman migrate"', False
    return '', False


def _check_new(message, claim):
    if (claim is not None) != (message.state is State.sending):
        raise ValueError('a message is `sending` exactly if it is claimed')


def _count(connection, pool, now, rate):
    """Take one from the pool's bucket, which fills at `rate` a second."""
    size = max(1.0, rate)
    row = connection.execute(sql.RATE, {'in_pool': pool}).one_or_none()
    free, counted_at = row or (size, now)
    if counted_at > now + size / rate:      # the clock was set back
        free, counted_at = size, now
    free = min(size, free + max(0.0, now - counted_at) * rate)
    if free < 1:
        raise TooManyRequests(
            f'{pool} may send {rate:g} messages a second',
            retry_after=(1 - free) / rate)
    left = {'free': free - 1, 'counted_at': max(now, counted_at)}
    if row:
        connection.execute(sql.SET_RATE, {'in_pool': pool, **left})
    else:
        connection.execute(sql.ADD_RATE, {'pool': pool, **left})


def _due(connection, now, limit, waiting, run_out):
    """Return the ids due the longest, and which of them are to be rescued."""
    asked = {'now': now, 'most': limit}
    rescued = connection.execute(run_out, asked).all()
    both = sorted([*connection.execute(waiting, asked), *rescued],
                  key=lambda row: row.due)
    ids = [row.id for row in both[:limit]]
    return ids, [row.id for row in rescued if row.id in ids]


def _claimed(connection, message_id, owner, lease_until):
    connection.execute(sql.CLAIM, {
        'of': message_id, 'owner': owner, 'until': lease_until})
    row = connection.execute(
        sql.CLAIMED, {'of': message_id}).mappings().one()
    try:
        message = reading.whole(connection, row)
    except (ValueError, TypeError, KeyError) as error:
        raise _Unreadable(message_id) from error
    return Claimed(
        Claim(message_id, owner, row['fence'], lease_until), message)


def _held(claim, result):
    if not result.rowcount:
        raise LeaseLost(f'the claim {claim.fence} on {claim.message_id} does '
                        'not hold any more')
