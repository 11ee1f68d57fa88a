"""Transactions on PostgreSQL that are open at the same time, by one seed.

Each statement within a transaction is a point (`World.point`): there its
process may be killed or frozen, and others run meanwhile, who may come to
want what it has locked. Whoever has to wait for a lock lets others run. A
server is another process, and faster or slower each time; so nobody goes on
before all that it was told to do is done, or waits for a lock: that does not
depend on how fast it was. Who of two that wait for the same would get it
first does: so the second one waits in vain.

What the server ends after a time in reality, it ends here after as much
virtual time.
"""

import select
from contextlib import suppress

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.waiting import READY_R, READY_W, WAIT_R, WAIT_W

from stampman.store._postgres import PostgresDatabase

from simulation.scheduling import Killed

MANY = 100          # connections of a process: nobody waits for one
LOOK = 0.001        # real seconds until it is asked if something is locked
LOCKED = 0.05       # virtual seconds between two looks at what is locked
# As the store asks a server for, in virtual seconds.
LOCK_TIMEOUT = 2.0
IDLE_TIMEOUT = 10.0
_NO_LIMITS = 'SET statement_timeout = 0; SET lock_timeout = 0; ' \
    'SET idle_in_transaction_session_timeout = 0'
_BLOCKERS = 'SELECT pid, pg_blocking_pids(pid) FROM unnest(%s::int[]) pid'


class Locks:
    """Who waits for whom, as the server sees it."""

    def __init__(self, monitor: psycopg.Connection, scheduler, show_time):
        self.scheduler = scheduler
        self.show_time = show_time
        self._monitor = monitor
        self._waiting = set()       # sessions

    def wait(self, session: 'Session') -> None:
        """Let others run until a session's statement may have gone on."""
        self._waiting.add(session)
        try:
            session.process.wait(LOCKED)
        finally:
            self._waiting.discard(session)

    def is_blocked(self, session: 'Session') -> bool:
        """Say whether a session waits for a lock, and not in a circle: that
        ends soon by itself."""
        return self._are_blocked([session])

    def is_behind(self, session: 'Session') -> bool:
        """Say whether one that is blocked waits for what another waits for,
        too, or for another that waits."""
        others = {one.pid for one in self._waiting}
        blockers = self._blockers([*self._waiting, session])
        contended = others.union(*(blockers[pid] for pid in others))
        return not contended.isdisjoint(blockers[session.pid])

    def _are_blocked(self, sessions):
        blockers = self._blockers(sessions)
        return all(blockers[session.pid]
                   and not _in_circle(blockers, session.pid)
                   for session in sessions)

    def _blockers(self, sessions):
        """Return who waits for whom, of those and all whom they wait for."""
        blockers = {}
        unknown = {session.pid for session in sessions}
        while unknown:
            blockers |= self._monitor.execute(
                _BLOCKERS, (sorted(unknown),)).fetchall()
            unknown = set().union(*blockers.values()) - blockers.keys()
        return blockers

    def settle(self) -> None:
        """Wait until all that could go on has: something was unlocked."""
        while unanswered := [
                session for session in self._waiting
                if not session.connection.closed
                and not session.is_answered(LOOK)]:
            if self._are_blocked(unanswered):
                return

    def cancel(self, session: 'Session') -> None:
        """End its statement."""
        self._monitor.execute('SELECT pg_cancel_backend(%s)', (session.pid,))
        self.settle()

    def cut(self, session: 'Session') -> None:
        """End its connection, and wait until it has unlocked all."""
        self._monitor.execute(
            'SELECT pg_terminate_backend(%s, 60000)', (session.pid,))
        self.settle()


def _in_circle(blockers, start):
    seen, unseen = set(), list(blockers[start])
    while unseen:
        one = unseen.pop()
        if one not in seen:
            seen.add(one)
            unseen.extend(blockers.get(one, ()))
    return start in seen


class Session:
    """One connection of a process."""

    def __init__(self, connection: psycopg.Connection, process, locks: Locks):
        self.process = process
        self.connection = connection
        self.pid = connection.info.backend_pid
        self.locks = locks
        self._descriptor = connection.fileno()
        self._statements = 0
        self._failure = None    # by what the server has ended something

    def wait(self, gen, *_, **__):
        """Stand in the place of the connection's own `wait`."""
        if self.connection.closed:
            raise psycopg.OperationalError('the connection is closed')
        if self._is_between_statements():
            self._call_after(IDLE_TIMEOUT, self._end_idle)
            self.process.in_transaction()
        self._statements += 1
        self.locks.show_time()
        try:
            return self._run(gen)
        except psycopg.errors.DeadlockDetected:
            self.process.meets('deadlock')
            raise
        except (psycopg.errors.QueryCanceled,
                psycopg.errors.AdminShutdown) as error:
            if self._failure is None:
                raise
            raise self._failure from error
        finally:
            self._statements += 1
            self._failure = None
            if not self.is_busy:
                self.locks.settle()

    def _is_between_statements(self):
        """Of a transaction. What is known of one in a pipeline depends on
        how fast the server was."""
        connection = self.connection.pgconn
        return connection.pipeline_status == PipelineStatus.OFF \
            and connection.transaction_status == TransactionStatus.INTRANS

    @property
    def is_busy(self) -> bool:
        """Whether it may have locked anything."""
        return self.connection.pgconn.transaction_status in (
            TransactionStatus.INTRANS, TransactionStatus.ACTIVE)

    def _run(self, gen):
        try:
            wanted = next(gen)
            self._is_late = False
            while True:
                while not (ready := self._ready(wanted, LOOK)):
                    if self.locks.is_blocked(self):
                        self._give_way()
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value
        except Killed:
            # A pipeline would still want to come to an end.
            with suppress(psycopg.Error, RuntimeError):
                gen.close()
            raise

    def _give_way(self):
        if not self._is_late:
            self._is_late = True
            self.process.meets('waits for a lock')
            if self.locks.is_behind(self):
                self._end_waiting()
                self.process.wait(LOCK_TIMEOUT)
                return
            self._call_after(LOCK_TIMEOUT, self._end_waiting)
        self.locks.wait(self)

    def is_answered(self, seconds: float) -> bool:
        return bool(self._ready(WAIT_R, seconds))

    def _ready(self, wanted, seconds):
        mine = [self._descriptor]
        reads, writes, _ = select.select(
            mine if wanted & WAIT_R else (), mine if wanted & WAIT_W else (),
            (), seconds)
        return bool(reads) * READY_R | bool(writes) * READY_W

    # -- what the server ends ------------------------------------------------

    def _call_after(self, seconds, end):
        """Call it, unless this session does something meanwhile."""
        statements = self._statements

        def unless_moved():
            if statements == self._statements \
                    and not self.connection.closed:
                end()

        self.locks.scheduler.call(seconds, unless_moved)

    def _end_idle(self):
        self.process.meets('transaction idles for too long')
        self._failure = psycopg.errors.IdleInTransactionSessionTimeout(
            'simulated: it was idle for too long')
        self.locks.cut(self)

    def _end_waiting(self):
        if self.is_answered(0):     # to a process that is frozen
            self._call_after(IDLE_TIMEOUT - LOCK_TIMEOUT, self._end_idle)
            return
        self.process.meets('wait for a lock is too long')
        self._failure = psycopg.errors.LockNotAvailable(
            'simulated: it waited for too long')
        self.locks.cancel(self)


class InterleavedDatabase(PostgresDatabase):
    """The real one, for one process after another: what SQLAlchemy has
    compiled is kept, and so are connections that no transaction was open on:
    they are as good as new, which take a fifth of a run."""

    def __init__(self, url):
        super().__init__(url, connections=MANY)
        self._sessions = []

    def serve(self, process, locks: Locks) -> None:
        """Be the database of a process from now on."""
        self._process, self._locks = process, locks
        for session in self._sessions:
            session.process, session.locks = process, locks

    def cut_off(self) -> None:
        """Be as if the process had been killed, and the server knew."""
        for session in self._sessions:
            if session.is_busy:
                self._process.meets('end in a transaction')
                self._locks.cut(session)
                session.connection.close()
        self._sessions = [session for session in self._sessions
                          if not session.connection.closed]

    def _connect(self):
        connection = super()._connect()
        connection.execute(_NO_LIMITS)
        session = Session(connection, self._process, self._locks)
        self._sessions.append(session)
        connection.wait = session.wait
        return connection
