"""SQLite as the database of a store: its file, its connections, its troubles.

Committed means synced: WAL with synchronous=FULL where the library is sound,
else a rollback journal, with EXTRA, which syncs the directory too. One
connection of a process writes, for all its threads at a time.

No connection may cross a fork, not even unused: SQLite counts its locks for
each process, so a child would believe that it holds its parent's, and what it
commits could be lost. So all are closed before a fork, and opened after it.
"""

import fcntl
import logging
import os
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from sqlalchemy import Connection, create_engine, exc
from sqlalchemy.pool import NullPool

from stampman.helpers.exceptions import CommitUnknown, StoreUnavailable
from stampman.store import _forks
from stampman.store._databases import Result, Work
from stampman.store._group_commit import GroupCommit
from stampman.store._lease_clock import LeaseClock
from stampman.store._sqlite_commits import Unanswered
from stampman.store._sqlite_readers import Readers
from stampman.store._sqlite_troubles import (
    OPEN_ANEW, RESTORE, driver, is_full, primary_code, told)
from stampman.store._sqlite_writer import Writer
from stampman.store.base import RETRY_AFTER

log = logging.getLogger(__name__)

BUSY_TIMEOUT = 5.0          # seconds to wait for another's transaction
READERS = 8                 # connections of a process that read
READ_CACHE = -256           # KB of each: what others write makes it void
WHOLE_CHECK = 64 << 20      # bytes up to which a file is checked at start
# What is free in the file is used again. Where it is more than a share of all
# pages, some are given back at a time: others want to write, too.
INCREMENTAL = 2             # SQLite's number of that way
KEPT_FREE = 0.25
SHRUNK_BY = 100             # pages, 0.4 MB

# Versions without the bug by which WAL can lose commits: from the first on,
# and the later releases of the two older lines it was mended in.
SOUND = (3, 51, 3)
SOUND_BACKPORTS = ((3, 50, 7), (3, 44, 6))
_SYNCHRONOUS = {'wal': 'FULL', 'delete': 'EXTRA'}
_SIDECARS = ('-wal', '-journal')


def journal_mode_for(version: tuple[int, int, int]) -> str:
    """Return the journal mode that is sound with a version of SQLite."""
    sound = version >= SOUND or any(
        version[:2] == line[:2] and version >= line
        for line in SOUND_BACKPORTS)
    return 'wal' if sound else 'delete'


class _Opened(NamedTuple):
    """The connections of one process."""

    pid: int
    file: tuple[int, int] | None    # device and inode
    writer: Writer
    group: GroupCommit
    readers: Readers

    def dispose(self):
        self.readers.close()
        self.writer.close()


class SqliteDatabase:
    """One SQLite file, opened when it is first used.

    `write` runs a call in a transaction, `read` is a block of one. All that
    the file, the disk and other processes do to them is raised as
    StoreUnavailable, in words for people, and as CommitUnknown where a commit
    failed so that it may have happened; everything else is a bug and stays as
    it is.
    `busy_timeout` is in seconds; `pragmas` are set on each connection.
    """

    lease_clock = LeaseClock
    locks_rows = False          # a transaction that writes is alone
    combines = False

    def __init__(self, path: Path, *, busy_timeout: float = BUSY_TIMEOUT,
                 journal_mode: str = journal_mode_for(
                     driver.sqlite_version_info), pragmas=()):
        self.path = path.absolute()
        self.journal_mode = journal_mode
        self._busy_timeout = busy_timeout
        self._pragmas = dict(pragmas)
        self._opened = None
        self._retired = []
        self._gate = threading.Condition()
        self._inside = 0            # blocks that are open now
        self._forking = False
        self._is_unsynced = False   # the end of a rollback journal
        _forks.tell(self)

    def write(self, work: Work) -> Result:
        """Return what `work(connection)` returns, run in a transaction of
        its own or with others'; what it wrote is durable then."""
        with self._available() as opened:
            return opened.group.run(work)

    def migrate(self, work: Work) -> Result:
        """As `write`: nobody else writes meanwhile."""
        return self.write(work)

    @contextmanager
    def read(self):
        """Open a block that sees one moment of the database."""
        with self._available() as opened, \
                opened.readers.transaction() as connection:
            yield connection

    def exists(self) -> bool:
        """Say whether there is a file, of whatever content."""
        return self.path.exists()

    def create(self) -> bool:
        """Make an empty file where there is none, for its owner alone; say
        if it did.

        Raises StoreUnavailable where one has been, and is gone.
        """
        with _alone(self.path.parent) as directory:
            if _size(self.path):
                return False
            # A rollback journal beside an empty file is just being written.
            left = [name for name in _SIDECARS[:1 + (not self.exists())]
                    if _size(f'{self.path}{name}')]
            if left:
                raise _unavailable(
                    f'the file {self.path.name} is gone or empty, but '
                    f'{self.path.name}{left[0]} is there. {RESTORE}.')
            if not self.exists():
                os.close(os.open(
                    self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
                os.fsync(directory)
            return True

    def check(self, connection: Connection) -> None:
        """Look for damage in a file that is small enough to read whole."""
        pages, size = (connection.exec_driver_sql(f'PRAGMA {name}').scalar()
                       for name in ('page_count', 'page_size'))
        if pages * size > WHOLE_CHECK:
            return
        found = connection.exec_driver_sql('PRAGMA quick_check(1)').scalar()
        if found != 'ok':
            raise _unavailable(told('CORRUPT', self.path))

    def drop_traces(self) -> bool:
        """Take what was overwritten out of the file's own log, too; say if
        nobody was in the way. Nobody waits for it."""
        with self._raw() as connection:
            connection.execute('PRAGMA busy_timeout=0')
            busy = connection.execute(
                'PRAGMA wal_checkpoint(TRUNCATE)').fetchone()[0]
            connection.execute(f'PRAGMA busy_timeout={self._milliseconds}')
        return not busy

    def shrink(self) -> bool:
        """Make the file smaller by some of what is free in it, where that is
        much; say if there was so much. A file that an older release made
        stays as large as it is."""
        with self._raw() as connection:
            free, pages, way = (
                connection.execute(f'PRAGMA {name}').fetchone()[0]
                for name in ('freelist_count', 'page_count', 'auto_vacuum'))
            if way != INCREMENTAL or free <= max(
                    SHRUNK_BY, pages * KEPT_FREE):
                return False
            # A script: `execute` would free one page, whatever it is told.
            connection.executescript(
                f'BEGIN IMMEDIATE; PRAGMA incremental_vacuum({SHRUNK_BY}); '
                'COMMIT')
            return True

    def close(self) -> None:
        """Close all connections, as soon as none is in use."""
        with self._gate:
            self._retire()

    # -- connections ---------------------------------------------------------

    @contextmanager
    def _raw(self):
        """Open a block that has the driver's own connection, outside of a
        transaction."""
        with self._available() as opened, \
                opened.readers.borrowed() as connection:
            yield connection.connection.driver_connection

    @contextmanager
    def _available(self):
        with self._gate:
            while self._forking:
                self._gate.wait()
            if self._is_unsynced:
                self._sync_directory()
            opened = self._open()
            self._inside += 1
        try:
            yield opened
        except (exc.TimeoutError, exc.DBAPIError, driver.Error) as error:
            if trouble := self._trouble(error):
                raise _unavailable(trouble) from error
            raise
        except Unanswered as unanswered:    # the connections stay: who opens
            self._is_unsynced = self.journal_mode != 'wal'
            raise CommitUnknown(            # anew finds what is not synced
                'a commit has failed, and may have happened: '
                f'{told(primary_code(unanswered.__cause__), self.path)}',
                retry_after=RETRY_AFTER) from unanswered
        finally:
            with self._gate:
                self._inside -= 1
                self._close_retired()
                if self._forking:
                    self._gate.notify_all()

    def _open(self):
        if self._opened and self._opened.file != _identity(self.path):
            self._retire()      # the file was replaced, or is gone
        if self._opened is None:
            writer = self._writer()
            self._opened = _Opened(
                os.getpid(), _identity(self.path), writer,
                GroupCommit(writer.transaction, writer.part,
                            self._busy_timeout),
                Readers(self._engine(lambda: self._connect(
                    cache_size=READ_CACHE)), READERS, self._busy_timeout))
            log.info('SQLite %s, journal_mode=%s, %s', driver.sqlite_version,
                     self.journal_mode, self.path)
        if self._opened.pid != os.getpid():
            raise _unavailable('this process was forked while its parent '
                               'used the database: start it anew')
        return self._opened

    def _sync_directory(self):
        """What is read after a journal is gone may be believed when that is
        durable: else it comes back, and undoes what it was for."""
        with _alone(self.path.parent) as directory:
            os.fsync(directory)
        self._is_unsynced = False

    def _retire(self):
        """Use the connections no more; those of a parent are not ours."""
        if self._opened and self._opened.pid == os.getpid():
            self._retired.append(self._opened)
            self._opened = None
            self._close_retired()

    def _close_retired(self):
        while self._retired and not self._inside:
            self._retired.pop().dispose()

    def _writer(self):
        """While another process writes, SQLite looks again after 1, 2, 5 …
        and at last each 100 ms, which is many times what a transaction takes.
        So each try is for 1 ms; but in a rollback journal a commit waits for
        those who read, and is not tried again."""
        if self.journal_mode != 'wal':
            return Writer(self._engine(self._connect), 1)
        return Writer(
            self._engine(lambda: self._connect(busy_timeout=1)),
            max(1, self._milliseconds))

    @property
    def _milliseconds(self):
        return int(self._busy_timeout * 1000)

    def _engine(self, connect):
        """Return what makes connections; whoever holds one begins himself:
        the driver's own BEGIN comes late, and would not be IMMEDIATE."""
        return create_engine('sqlite://', module=driver, creator=connect,
                             poolclass=NullPool)

    def _connect(self, **pragmas):
        """Connect to a file that exists: SQLite itself would make one."""
        connection = driver.connect(
            f'file:{quote(str(self.path))}?mode=rw', uri=True,
            timeout=self._busy_timeout, isolation_level=None,
            check_same_thread=False)
        try:
            if not _size(self.path):    # later this cannot be chosen
                connection.execute(f'PRAGMA auto_vacuum={INCREMENTAL}')
            mode = self._ensure_journal_mode(connection)
            for name, value in {
                    'synchronous': _SYNCHRONOUS[mode], 'foreign_keys': 'ON',
                    'fullfsync': 'ON', 'checkpoint_fullfsync': 'ON',
                    'secure_delete': 'ON',      # what is erased is gone
                    **self._pragmas, **pragmas}.items():
                connection.execute(f'PRAGMA {name}={value}')
        except BaseException:
            connection.close()
            raise
        return connection

    def _ensure_journal_mode(self, connection):
        mode, = connection.execute('PRAGMA journal_mode').fetchone()
        if mode != self.journal_mode:
            # Two who change it at once would not wait for one another.
            with _alone(self.path.parent):
                mode, = connection.execute(
                    f'PRAGMA journal_mode={self.journal_mode}').fetchone()
        if mode not in _SYNCHRONOUS:
            raise _unavailable(
                f'the file {self.path.name} has journal_mode={mode}, which '
                'is not durable')
        return mode

    # -- troubles ------------------------------------------------------------

    def _trouble(self, error):
        """Return what befell us, in words for people; '' if it is a bug."""
        if isinstance(error, exc.TimeoutError):
            return 'the database is busy: too many wait for a connection'
        code = primary_code(error)
        trouble = told(code, self.path)
        if trouble and code in OPEN_ANEW and not is_full(error):
            self.close()
        return trouble

    # -- forks ---------------------------------------------------------------

    def before_fork(self):
        """Let nobody in, wait for those inside, and close all."""
        with self._gate:
            self._forking = True
            if self._gate.wait_for(
                    lambda: not self._inside, self._busy_timeout):
                self._retire()

    def after_fork(self):
        with self._gate:
            self._forking = False
            self._gate.notify_all()

    def in_child(self):
        """Only the thread that forked lives on: nobody else is inside.

        What was in use at the fork is neither used nor closed.
        """
        self._inherited = self._retired, self._opened
        self._retired = []
        self._gate = threading.Condition()
        self._inside = 0
        self._forking = False


def _unavailable(told):
    return StoreUnavailable(told, retry_after=RETRY_AFTER)


def _identity(path):
    """Return what tells a file from another of the same name, if any."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _size(path):
    with suppress(FileNotFoundError):
        return os.stat(path).st_size
    return 0


@contextmanager
def _alone(directory):
    """Be the only one, of all processes, that does this in a directory."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _unavailable(
            f'the directory of the database file cannot be used '
            f'({error.strerror}): it must exist, and this process must be '
            'able to write to it; or correct DATABASE_URL') from error
