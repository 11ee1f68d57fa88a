"""PostgreSQL as the database of a store: connections, timeouts, troubles.

Committed means that the server has synced it: `synchronous_commit` is on,
whatever the server's default is. A server that says that it syncs nothing at
all is used, and complained about: some have storage of their own.

A conversation may stop in many ways, and none of them may hold a request for
long: the server ends what takes too long, the kernel gives up packets that
nobody acknowledges, and this side a server that is alive and does not answer.
"""

import logging
import select
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, create_engine, exc
from sqlalchemy.pool import NullPool

from stampman.helpers.exceptions import CommitUnknown, StoreUnavailable
from stampman.helpers.turns import turns
from stampman.store._databases import Result, Work
from stampman.store._lease_clock import SERVER_TIME, ServerClock
from stampman.store._postgres_pool import Pool
from stampman.store._postgres_troubles import (
    AGAIN, ELSEWHERE, NO_MORE, is_lost, state, told)
from stampman.store._postgres_url import parameters
from stampman.store.base import RETRY_AFTER

log = logging.getLogger(__name__)

# Of a process. The smallest plans allow 20: two web processes, a worker, and
# some for `stampman migrate` and a person. More bring nothing on two cores.
CONNECTIONS = 5
TRIES = 5               # of a transaction that others were in the way of
SILENCE = 10.0          # seconds without an answer to a statement
PATIENCE = 5.0          # seconds to wait for a connection of the pool
_MIGRATION = 0x7374616d70  # the key of the lock under which the schema grows

_CONNECT = {
    'application_name': 'stampman', 'client_encoding': 'utf8',
    'connect_timeout': 5,
    'keepalives_idle': 10, 'keepalives_interval': 3, 'keepalives_count': 3,
    'tcp_user_timeout': 8000}       # milliseconds
# lock_timeout: seconds that an Idempotency-Key's second request waits for
# the first. A process that stops in mid-transaction keeps its locks for the
# idle_in_transaction_session_timeout.
_SETTINGS = {
    'statement_timeout': '5s', 'lock_timeout': '2s',
    'idle_in_transaction_session_timeout': '10s', 'jit': 'off',
    'default_transaction_isolation': 'read committed'}
_SESSION = f"""SELECT current_setting('server_version'),
    current_setting('server_encoding'),
    set_config('synchronous_commit',
        CASE current_setting('synchronous_commit')
        WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false),
    current_setting('fsync'), current_setting('full_page_writes'),
    {', '.join(f"set_config('{name}', '{value}', false)"
               for name, value in _SETTINGS.items())}"""
_TIME = 'SELECT extract(epoch FROM clock_timestamp())::float8'
_NOTHING = ''
_WRITE = f'BEGIN ISOLATION LEVEL READ COMMITTED; {_TIME}'
# A plan for whatever state would read a pool's sent messages for the few that
# wait: reads are planned anew.
_READ = 'BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; ' \
    f'SET LOCAL plan_cache_mode = force_custom_plan; {_TIME}'
_MIGRATE = 'BEGIN; SET LOCAL statement_timeout = 0; ' \
    'SET LOCAL lock_timeout = 0; ' \
    f'SELECT pg_advisory_xact_lock({_MIGRATION}); ' \
    f"SET LOCAL lock_timeout = '10s'; {_TIME}"

# Statements of the shortest way raise the driver's own.
_ERRORS = exc.DBAPIError, psycopg.Error


class PostgresDatabase:
    """One database of a server; connects when it is first used.

    `write` runs a call in a transaction, `read` is a block of one, which
    sees one moment of the database. A connection's `info` holds the time of
    the server, as the transaction began, as SERVER_TIME. All that the
    server and the network do is raised as StoreUnavailable, in words for
    people, and as CommitUnknown where `write` has asked for a commit and
    got no clear answer; everything else is a bug and stays as it is.
    `silence` is how many seconds may pass without an answer.
    """

    lease_clock = ServerClock
    locks_rows = True
    combines = True

    def __init__(self, url: str, *, connections: int = CONNECTIONS,
                 patience: float = PATIENCE, silence: float = SILENCE):
        self._parameters = parameters(url)
        self._silence = silence
        self._pool = Pool(connections, patience)
        self._engine = create_engine(
            'postgresql+psycopg://', creator=self._connect,
            poolclass=NullPool, use_native_hstore=False)
        self._is_told = False

    def write(self, work: Work) -> Result:
        """Return what `work(connection)` returns; what it wrote is durable
        then. It is run anew where others were in its way."""
        return self._write(work, _WRITE, _Held.run)

    def write_one(self, work: Work) -> Result:
        """As `write`, for a call that runs one statement, which is then a
        transaction by itself; SERVER_TIME is not to be relied upon."""
        return self._write(work, _NOTHING, _Held.run_one)

    def _write(self, work, begin, run):
        with _troubles():
            for left in reversed(range(TRIES)):
                try:
                    with self._block(begin) as held:
                        return run(held, work)
                except _ERRORS as error:
                    if not left or state(error) not in AGAIN:
                        raise

    @contextmanager
    def read(self):
        """Open a block that sees one moment of the database."""
        with _troubles(), self._block(_READ) as held:
            yield held.connection
            held.leave()

    def migrate(self, work: Work) -> Result:
        """As `write`, alone among all that migrate, for as long as it takes:
        only the network can tell a long statement from a dead server."""
        with _troubles():
            alone = _Held(self._engine, self._pool.age)
            try:
                alone.driver.silence = None
                alone.begin(_MIGRATE)
                result = work(alone.connection)
                alone.commit()
                return result
            finally:
                alone.close()

    def exists(self) -> bool:
        """A server that has no such database says so by itself."""
        return True

    def create(self) -> bool:
        """Make nothing: a database is made by who runs the server."""
        return False

    def check(self, connection: Connection) -> None:
        """Damage is what the server looks for."""

    def drop_traces(self) -> bool:
        """Leave it to the server, which overwrites what was deleted when it
        vacuums."""
        return True

    def shrink(self) -> bool:
        """Leave it to the server: it uses the room of what was deleted
        again."""
        return False

    def close(self) -> None:
        """Close all connections, as soon as they are not in use."""
        self._pool.close()

    # -- transactions --------------------------------------------------------

    @contextmanager
    def _block(self, begin):
        idle, held = self._pool.take(), None
        try:
            held = self._begun(idle, begin)
            yield held
        except BaseException as error:
            if held and self._is_gone(error):
                self._pool.close()
            held = held and held.undo()
            raise
        finally:
            self._pool.give_back(held)

    def _begun(self, idle, begin):
        """Return the connection, or another, in a transaction.

        One that was idle may have died long ago, as after a restart: then
        nothing has happened yet, and all that were idle are as dead.
        """
        if idle is not None:
            try:
                return idle.begin(begin)
            except psycopg.Error as error:
                if not is_lost(error):
                    raise
                self._pool.close()
        return _Held(self._engine, self._pool.age).begin(begin)

    def _is_gone(self, error):
        """Whether the server of an open transaction is: so it is for what
        is idle. One that takes no more connections keeps those it has."""
        return isinstance(error, CommitUnknown) \
            or is_lost(error) or state(error) in ELSEWHERE

    def _connect(self):
        connection = _Connection.connect(
            autocommit=True, **{**_CONNECT, **self._parameters})
        try:
            connection.silence = self._silence
            connection.adapters.register_dumper(str, _Text)
            connection.add_notice_handler(_tell)
            self._check(_Session(*connection.execute(
                _SESSION).fetchone()[:len(_Session._fields)]))
        except BaseException:
            connection.close()
            raise
        return connection

    def _check(self, session):
        if session.synchronous_commit not in ('on', 'remote_apply'):
            raise _unavailable(
                f'synchronous_commit={session.synchronous_commit} is not '
                'durable, and cannot be changed: a pooler stands between, '
                'perhaps')
        if session.encoding != 'UTF8':
            raise _unavailable(
                f'the database has the encoding {session.encoding}: make it '
                'anew with UTF8')
        if self._is_told:
            return
        self._is_told = True
        log.info('PostgreSQL %s', session.version)
        for name in ('fsync', 'full_page_writes'):
            if getattr(session, name) == 'off':
                log.error('the database server has %s=off: unless its '
                          'storage makes up for that, a power cut destroys '
                          'what was accepted', name)


class _Text(Dumper):
    """Text as PostgreSQL can hold it: what it cannot is asked for in vain.
    """

    def dump(self, obj):
        return obj.encode('utf-8', 'replace').replace(
            b'\0', '\N{REPLACEMENT CHARACTER}'.encode())


class _Session(NamedTuple):
    """What a session of the server starts with."""

    version: str
    encoding: str
    synchronous_commit: str
    fsync: str
    full_page_writes: str


class _Connection(psycopg.Connection):
    """A connection that does not wait for ever, `silence` in seconds."""

    silence: float | None = SILENCE

    def wait(self, gen, interval=0.1, timeout=None):
        try:
            with turns.aside:   # others may wait for its rows
                return super().wait(gen, interval, timeout or self.silence)
        except psycopg.errors._WaitTimeout as error:
            self.close()        # what comes later answers nothing
            raise psycopg.OperationalError(
                'timeout expired: no answer') from error


class _Held:
    """A connection with its transactions begun and ended by hand: to have
    SQLAlchemy count them costs as much as they do."""

    def __init__(self, engine, age):
        self.age = age          # of the pool, as it was made
        self.connection = engine.connect()
        self.driver: Any = self.connection.connection.driver_connection

    def begin(self, statements):
        """Return this, in a transaction, or close it.

        The last of the statements tells the server's time. Without any,
        nothing is asked: it is seen whether the server has hung up.
        """
        try:
            if not statements:
                return self._heard_nothing()
            cursor = self.driver.execute(statements)
            while cursor.nextset():
                pass
            self.connection.info[SERVER_TIME], = cursor.fetchone()
        except BaseException:
            self.close()
            raise
        return self

    def _heard_nothing(self):
        unasked = select.poll()
        unasked.register(self.driver, select.POLLIN)
        if unasked.poll(0):
            raise psycopg.OperationalError(NO_MORE)
        return self

    def run(self, work):
        """Run a call in the transaction that is open, and commit it."""
        result = work(self.connection)
        self.commit()
        return result

    def run_one(self, work):
        """Run a call whose only statement is a transaction by itself."""
        with self._committing():
            return work(self.connection)

    def commit(self):
        with self._committing():
            ended = self.driver.execute('COMMIT').statusmessage
        if ended != 'COMMIT':
            raise AssertionError(
                f'an error was passed over in a transaction: {ended}')

    @contextmanager
    def _committing(self):
        """Raise CommitUnknown unless the server says how that ended.

        An error says that the transaction is undone, if the connection
        lives to hear that none is open any more. One that breaks may have
        done so before, in, or after the commit.
        """
        try:
            yield
        except psycopg.Error as error:
            if self.driver.info.transaction_status is TransactionStatus.IDLE:
                raise
            raise CommitUnknown(
                f'a commit is not answered: {told(error) or NO_MORE}',
                retry_after=RETRY_AFTER) from error

    def leave(self):
        """End a transaction that has only read."""
        self.driver.rollback()

    def undo(self):
        """Return this, as good as new, or None where it has to be closed."""
        try:
            if not self.connection.invalidated:
                self.driver.rollback()
                return self
        except psycopg.Error as error:
            log.info('a connection is given up: %s', type(error).__name__)
        self.close()

    def close(self):
        """Close it, whatever state it is in, also if it is closed."""
        if not self.connection.closed:
            self.connection.invalidate()
            self.connection.close()


def _tell(notice):
    """Log what a server warns of, as of a standby that nobody waits for."""
    if notice.severity_nonlocalized == 'WARNING':
        log.warning('the database server says: %s', notice.message_primary)


@contextmanager
def _troubles():
    try:
        yield
    except _ERRORS as error:
        if not (trouble := told(error)):
            raise
        raise _unavailable(trouble) from error


def _unavailable(told):
    return StoreUnavailable(told, retry_after=RETRY_AFTER)
