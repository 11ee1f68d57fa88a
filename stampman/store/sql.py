"""A store in an SQL database. The database is handed in; SQL is portable."""

import logging
from typing import Any

from sqlalchemy.exc import IntegrityError

from stampman.helpers.delivery import Claim, Clock, Kind, State
from stampman.helpers.exceptions import (
    Conflict, KeyTaken, LeaseLost, NotFound, StoreUnavailable)
from stampman.helpers.recipients import tells_apart, told_apart
from stampman.store import _adding as adding
from stampman.store import _following as following
from stampman.store import _reading as reading
from stampman.store import _retention as retention
from stampman.store import _rows as rows
from stampman.store import _statements as sql
from stampman.store._combined import Combined
from stampman.store._databases import Database, database_at
from stampman.store._hastening import make_due
from stampman.store._shared import SharedTables
from stampman.store._version import compared
from stampman.store._written import written
from stampman.store.base import (
    ORPHANED, RETRY_AFTER, UNSETTLED, Claimed, Entry, Filter)

log = logging.getLogger(__name__)

ASIDE = 3600.0              # seconds for which an unreadable message waits


class _Unreadable(Exception):
    """A message's rows are not of this program."""

    def __init__(self, id):
        super().__init__(id)
        self.id = id


class SqlStore(SharedTables):
    """A store in an SQL database.

    `database` runs calls by `write`, and has a block `read`, each one
    transaction that gives a connection; it raises StoreUnavailable for what
    befalls them. Leases are counted on a clock of the database's, or on the
    monotonic half of `clock`, where that names its boot.
    """

    def __init__(self, database: Database, clock: Clock | None = None):
        self._database = database
        self._clock = database.lease_clock(clock)
        self._combined = database.combines and Combined(
            database, self._clock)
        self._some_due = False      # at the last look

    @classmethod
    def at(cls, url: str, clock: Clock | None = None,
           **options: Any) -> 'SqlStore':
        """Return the store of a database URL, opened with `options`."""
        return cls(database_at(url, **options), clock)

    # -- its own state -------------------------------------------------------

    def migrate(self):
        if self._database.create():
            log.warning('a new, empty database was made: what an earlier one '
                        'held, messages and keys, is not in it')
        return self._database.migrate(self._migrated)

    def _migrated(self, connection):
        self._database.check(connection)
        problem, behind = compared(connection)
        if problem and not behind:
            raise StoreUnavailable(problem, retry_after=RETRY_AFTER)
        if behind:
            from stampman.store import migrations
            migrations.upgrade(connection)
        return behind

    def schema_problem(self):
        if not self._database.exists():
            return 'there is no database yet: run "stampman migrate"'
        with self._database.read() as connection:
            return compared(connection)[0]

    def close(self):
        self._database.close()

    # -- the message's way ---------------------------------------------------

    def add(self, message, email, claim=None, rate=None, key=None):
        self.add_all([Entry(0, message, email, claim)], rate, key)

    def add_all(self, entries, rate=None, key=None):
        prepared = adding.Prepared(entries)
        if self._combined and prepared.is_plain \
                and key is None and rate is None:
            return self._combined.add(prepared)
        try:
            self._add(prepared, rate, key)
        except IntegrityError as error:
            if key is None or not self.known(
                    prepared.pool, key, prepared.now):
                raise
            raise KeyTaken() from error

    @written
    def _add(self, connection, prepared, rate, key):
        pool, now = prepared.pool, prepared.now
        if key is not None:
            adding.remember(connection, pool, key, prepared.ids,
                            self._clock.surely(connection, now), now)
        if rate is not None:
            adding.count(connection, pool, now, rate, len(prepared.ids))
        prepared.write(connection, self._clock.time(connection, now))

    def known(self, pool, key, now):
        with self._database.read() as connection:
            return adding.known(connection, pool, key,
                                self._clock.surely(connection, now))

    def claim_due(self, owner, now, lease_until, limit=1):
        # Where some were due just now, more may be: no look goes before.
        if not self._some_due and not self._is_due(now):
            return ()
        try:
            claimed = self._claim(owner, now, lease_until, limit)
            self._some_due = bool(claimed)
            return claimed
        except _Unreadable as unreadable:
            # As after going back to an older release. It must not keep
            # those behind it from being sent.
            log.exception('a message cannot be read, and is put aside for '
                          'an hour', extra={'message_id': unreadable.id})
            self._put_aside(unreadable.id, now)
            return ()

    def _is_due(self, now):
        with self._database.read() as connection:
            waits = {'now': now, 'most': 1}
            leased = {'now': self._clock.seen(connection, now), 'most': 1}
            return bool(sql.WAITING_DUE.read(connection, waits)
                        or sql.RUN_OUT.read(connection, leased))

    @written
    def _put_aside(self, connection, message_id, now):
        connection.execute(sql.PUT_ASIDE, {
            'of': message_id, 'later': now + ASIDE,
            'run_out': self._clock.time(connection, now) + ASIDE})

    @written
    def _claim(self, connection, owner, now, lease_until, limit):
        leases_now = self._clock.time(connection, now)
        ids, run_out = _due(connection, now, leases_now, limit)
        for message_id in run_out:
            if following.orphan(connection, message_id, now):
                log.warning('an attempt is uncertain: %s', ORPHANED,
                            extra={'message_id': message_id})
                connection.execute(sql.CRASHED, {'of': message_id})
        claim = Claim('', owner, 0, lease_until)
        return tuple(_claimed(
            connection, claim._replace(message_id=message_id),
            leases_now + lease_until - now) for message_id in ids)

    def begin(self, claim, attempt, lease_until, possible_duplicate=False):
        begin = self._combined.begin if self._combined else self._begin
        _held(claim, begin(claim, attempt, lease_until, possible_duplicate))
        return claim._replace(lease_until=lease_until)

    @written
    def _begin(self, connection, claim, attempt, lease_until, twice):
        now = attempt.started_at
        extended = sql.EXTEND.run(connection, {
            'of': claim.message_id, 'held_fence': claim.fence,
            'until': (self._clock.time(connection, now)
                      + lease_until - now), 'twice': twice}).rowcount
        if extended:
            sql.BEGIN.run(
                connection, rows.begun_row(attempt, claim.message_id))
        return extended

    def end(self, attempt, message_id, claim=None):
        end = {'of': message_id, 'ended': attempt.id,
               'at': attempt.ended_at, 'how': attempt.outcome.kind.value,
               'rest': rows.rest_of(attempt.outcome)}
        if self._combined and self._combined.end(end, attempt):
            return True
        return self._end(end, attempt, message_id, claim)

    @written
    def _end(self, connection, end, attempt, message_id, claim):
        self._lock(connection, message_id)
        if sql.END_OPEN.run(connection, end).rowcount:
            following.ended(connection, attempt, message_id)
            return True
        row = connection.execute(sql.ENDED, {
            'of': message_id, 'ended': attempt.id}).one_or_none()
        if row is None:
            raise NotFound(f'no attempt {attempt.id} of {message_id}')
        if row.erased_at is not None:
            attempt = retention.unnamed(attempt)
            end = {**end, 'rest': rows.rest_of(attempt.outcome)}
        if _is_known_better(row.kind, attempt.outcome.kind):
            return False
        connection.execute(sql.END, end)
        if row.kind and row.outcome != end['rest'] and tells_apart(attempt):
            connection.execute(sql.TURN_AWAY, {
                'of': message_id, 'but': claim.fence if claim else -1})
        following.ended(connection, attempt, message_id, row.kind)
        return True

    @written
    def finish(self, connection, claim, state, *, round,
               next_attempt_at=None, reason='', recipients=None,
               uncertain=None):
        held = {'of': claim.message_id, 'held_fence': claim.fence}
        if uncertain is not None:
            self._lock(connection, claim.message_id)
        finished = connection.execute(sql.FINISH, {
            **held, 'becomes': state.value, 'rounds': round,
            'next': next_attempt_at, 'why': reason,
            'uncertain': -1 if uncertain is None else uncertain})
        if not finished.rowcount:
            _held(claim, connection.execute(sql.STILL_HELD, held).first())
            return False
        if recipients is None:
            following.follow(connection, sql.FOLLOW, claim.message_id,
                             state, reason)
        else:
            following.write(connection, claim.message_id, recipients)
        return True

    @written
    def change(self, connection, pool, message_id, expected, state, *,
               reason='', resolved=None, next_attempt_at=None,
               restart=False, expires_at=None, others_at=None):
        self._lock(connection, message_id)
        wanted = sorted(one.value for one in expected)
        changed = connection.execute(sql.CHANGE, {
            'of': message_id, 'in_pool': pool,
            'expected': wanted,
            'becomes': state.value, 'why': reason,
            'next': next_attempt_at, 'restarts': restart,
            'expires': expires_at}).rowcount
        message = reading.message(connection, pool, message_id)
        if not changed:
            raise Conflict(f'the message is {message.state.value}, and '
                           f'not {" or ".join(wanted)}')
        if restart and not connection.execute(
                sql.HAS_CONTENT, {'of': message_id}).first():
            raise Conflict('its content is not kept any more')
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

    def _lock(self, connection, message_id):
        """Let nobody change a message, from its next reading on."""
        if self._database.locks_rows:
            connection.execute(sql.LOCK, {'of': message_id})

    def hasten(self, pools, now):
        return make_due(self._database, sql.TO_HASTEN, now,
                        pools=list(pools))

    def bring_back(self, now, ahead):
        return make_due(self._database, sql.TO_BRING_BACK, now,
                        far=now + ahead)

    # -- giving up -----------------------------------------------------------

    @written
    def forget_bodies(self, connection, now, age, after=''):
        return retention.forget_bodies(
            connection, self._clock.surely(connection, now) - age, after)

    @written
    def forget_messages(self, connection, now, age, after=''):
        return retention.forget_messages(
            connection, self._clock.surely(connection, now) - age, after)

    @written
    def forget_keys(self, connection, now):
        before = self._clock.surely(connection, now) - adding.KEY_LIFE
        connection.execute(sql.FORGET_KEYS, {'before': before})

    @written
    def erase(self, connection, pool, message_id, now):
        self._lock(connection, message_id)
        message = reading.message(connection, pool, message_id)
        if message.state in UNSETTLED:
            raise Conflict(
                f'the message is {message.state.value}: it must be '
                'cancelled, resolved or at its end first')
        if message.erased_at is None:
            retention.erase(connection, message, now)
        return reading.message(connection, pool, message_id)

    def drop_traces(self):
        return self._database.drop_traces()

    def shrink(self):
        return self._database.shrink()

    # -- what is known -------------------------------------------------------

    def message(self, pool, message_id):
        with self._database.read() as connection:
            return reading.message(connection, pool, message_id)

    def email(self, message_id):
        with self._database.read() as connection:
            found = sql.CONTENT.read(connection, {'of': message_id})
            if not found:
                raise NotFound(f'no content of message {message_id}')
            parts = sql.PARTS.read(connection, {'of': message_id})
        return rows.email_of(
            found[0]['content'], [part['content'] for part in parts])

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


# -- parts of the transactions above -----------------------------------------

def _due(connection, now, leases_now, limit):
    """Take the ids due the longest; return them, and which of them are to
    be rescued."""
    rescued = sql.TAKE_RUN_OUT.read(
        connection, {'now': leases_now, 'most': limit})
    waiting = sql.TAKE_WAITING_DUE.read(
        connection, {'now': now, 'most': limit})
    both = sorted([*waiting, *rescued], key=lambda row: row['due'])
    ids = [row['id'] for row in both[:limit]]
    return ids, [row['id'] for row in rescued if row['id'] in ids]


def _claimed(connection, claim, until):
    message_id = claim.message_id
    sql.CLAIM.run(connection, {
        'of': message_id, 'owner': claim.owner, 'until': until})
    [row] = sql.CLAIMED.read(connection, {'of': message_id})
    try:
        message = reading.whole(connection, row)
    except (ValueError, TypeError, KeyError) as error:
        raise _Unreadable(message_id) from error
    return Claimed(claim._replace(fence=row['fence']), message)


def _is_known_better(known, kind):
    """Whether evidence was faster than an end, and says more than that."""
    if known == Kind.accepted:
        return kind is not Kind.accepted
    return known not in (None, Kind.uncertain) and kind is Kind.uncertain


def _held(claim, found):
    if not found:
        raise LeaseLost(
            f'claim {claim.fence} on {claim.message_id} holds no more')
