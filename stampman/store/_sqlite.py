"""SQLite as the database of a store: its file, its connections, its troubles.

Committed means synced: WAL with synchronous=FULL where the library is sound,
else a rollback journal, with EXTRA, which syncs the directory too. One
connection of a process writes, so that its threads queue here and not in
SQLite's busy handler, which sleeps.

No connection may cross a fork, not even unused: SQLite counts its locks for
each process, so a child would believe that it holds its parent's, and what it
commits could be lost. So all are closed before a fork, and opened after it.
"""

import fcntl
import logging
import os
import threading
import weakref
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, exc
from sqlalchemy.pool import QueuePool

from stampman.helpers.exceptions import StoreUnavailable

try:
    from pysqlite3 import dbapi2 as driver
except ImportError:
    import sqlite3 as driver

log = logging.getLogger(__name__)

BUSY_TIMEOUT = 5.0          # seconds to wait for another's transaction
READERS = 8                 # connections of a process that read
RETRY_AFTER = 2             # seconds a client is told to wait
WHOLE_CHECK = 64 << 20      # bytes up to which a file is checked at start

# Versions without the bug by which WAL can lose commits: from the first on,
# and the later releases of the two older lines it was mended in.
SOUND = (3, 51, 3)
SOUND_BACKPORTS = ((3, 50, 7), (3, 44, 6))
_SYNCHRONOUS = {'wal': 'FULL', 'delete': 'EXTRA'}
_SIDECARS = ('-wal', '-journal')

_RESTORE = ('Nothing was changed. Stop all Stampman processes, keep a copy of '
            'it and of the files beside it, and put a backup in its place')
# What a person is told, by the primary result code.
_TROUBLES = {
    'BUSY': 'is locked by another process',
    'LOCKED': 'is locked by another process',
    'PROTOCOL': 'is locked by another process',
    'FULL': 'cannot grow: the disk is full',
    'IOERR': 'cannot be read or written: the disk is full or has failed',
    'READONLY': 'is read-only: this process must be able to write to it and '
                'to its directory',
    'PERM': 'may not be opened by this process',
    'CANTOPEN': 'cannot be opened: if there is none yet, run "stampman '
                'migrate"; else this process must be able to write to it '
                'and to its directory',
    'NOTADB': f'is not an SQLite database, or is damaged. {_RESTORE}.',
    'CORRUPT': f'is damaged. {_RESTORE}, or recover it with "sqlite3" and '
               'its command ".recover".',
    'NOMEM': 'cannot be read: there is no memory left',
}
# After these the file may be replaced, by a backup for instance.
_OPEN_ANEW = ('IOERR', 'READONLY', 'CANTOPEN', 'NOTADB', 'CORRUPT')
_OLD_SCHEMA = ('no such table', 'no such column', 'has no column')


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
    writer: Engine
    reader: Engine

    def dispose(self):
        self.reader.dispose()
        self.writer.dispose()


class SqliteDatabase:
    """One SQLite file, opened when it is first used.

    `write` and `read` are blocks of one transaction. All that the file, the
    disk and other processes do to them is raised as StoreUnavailable, in
    words for people; everything else is a bug and stays as it is.
    `busy_timeout` is in seconds; `pragmas` are set on each connection.
    """

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
        _databases.add(self)

    @contextmanager
    def write(self):
        """Open a block that holds the write lock; durable at its end."""
        with self._available() as opened, opened.writer.begin() as connection:
            yield connection

    @contextmanager
    def read(self):
        """Open a block that sees one moment of the database."""
        with self._available() as opened, opened.reader.begin() as connection:
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
                    f'{self.path.name}{left[0]} is there. {_RESTORE}.')
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
            raise _unavailable(self._told('CORRUPT'))

    def drop_traces(self) -> bool:
        """Take what was overwritten out of the file's own log, too; say if
        nobody was in the way. Nobody waits for it."""
        with self._available() as opened:
            connection = opened.writer.raw_connection()
            try:
                cursor = connection.cursor()
                cursor.execute('PRAGMA busy_timeout=0')
                busy = cursor.execute(
                    'PRAGMA wal_checkpoint(TRUNCATE)').fetchone()[0]
                cursor.execute('PRAGMA busy_timeout='
                               f'{int(self._busy_timeout * 1000)}')
            finally:
                connection.close()
        return not busy

    def close(self) -> None:
        """Close all connections, as soon as none is in use."""
        with self._gate:
            self._retire()

    # -- connections ---------------------------------------------------------

    @contextmanager
    def _available(self):
        with self._gate:
            self._gate.wait_for(lambda: not self._forking)
            opened = self._open()
            self._inside += 1
        try:
            with self._troubles():
                yield opened
        finally:
            with self._gate:
                self._inside -= 1
                self._close_retired()
                self._gate.notify_all()

    def _open(self):
        if self._opened and self._opened.file != _identity(self.path):
            self._retire()      # the file was replaced, or is gone
        if self._opened is None:
            self._opened = _Opened(
                os.getpid(), _identity(self.path),
                self._engine('BEGIN IMMEDIATE', 1),
                self._engine('BEGIN', READERS))
            log.info('SQLite %s, journal_mode=%s, %s', driver.sqlite_version,
                     self.journal_mode, self.path)
        if self._opened.pid != os.getpid():
            raise _unavailable('this process was forked while its parent '
                               'used the database: start it anew')
        return self._opened

    def _retire(self):
        """Use the connections no more; those of a parent are not ours."""
        if self._opened and self._opened.pid == os.getpid():
            self._retired.append(self._opened)
            self._opened = None
            self._close_retired()

    def _close_retired(self):
        while self._retired and not self._inside:
            self._retired.pop().dispose()

    def _engine(self, begin, connections):
        engine = create_engine(
            'sqlite://', module=driver, creator=self._connect,
            poolclass=QueuePool, pool_size=connections, max_overflow=0,
            pool_timeout=self._busy_timeout)
        # The driver's own BEGIN comes late, and would not be IMMEDIATE.
        engine.dialect.do_begin = lambda connection: connection.execute(begin)
        return engine

    def _connect(self):
        """Connect to a file that exists: SQLite itself would make one."""
        connection = driver.connect(
            f'file:{quote(str(self.path))}?mode=rw', uri=True,
            timeout=self._busy_timeout, isolation_level=None,
            check_same_thread=False)
        try:
            mode = self._ensure_journal_mode(connection)
            for name, value in {
                    'synchronous': _SYNCHRONOUS[mode], 'foreign_keys': 'ON',
                    'fullfsync': 'ON', 'checkpoint_fullfsync': 'ON',
                    'secure_delete': 'ON',      # what is erased is gone
                    **self._pragmas}.items():
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

    @contextmanager
    def _troubles(self):
        try:
            yield
        except exc.TimeoutError as error:
            raise _unavailable('the database is busy: too many wait for a '
                               'connection') from error
        except (exc.DBAPIError, driver.Error) as error:
            code = _primary_code(error)
            if not (told := self._told(code)):
                raise
            if code in _OPEN_ANEW and not _is_full(error):
                self.close()
            raise _unavailable(told) from error

    def _told(self, code):
        if code == 'SCHEMA':
            return 'the schema is not this program\'s: run "stampman migrate"'
        if code not in _TROUBLES:
            return ''
        return f'the database file {self.path.name} {_TROUBLES[code]}'

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


def _is_full(error):
    """Whether the file may not grow, but is what it was: it is read on."""
    return _errorname(error) in (
        'SQLITE_IOERR_WRITE', 'SQLITE_IOERR_FSYNC', 'SQLITE_IOERR_TRUNCATE')


def _errorname(error):
    return getattr(getattr(error, 'orig', error), 'sqlite_errorname', '')


def _primary_code(error):
    """Return SQLite's primary result code as a word, or '' for a bug."""
    told = getattr(error, 'orig', error)
    name = _errorname(error)
    if name == 'SQLITE_ERROR' and any(
            words in str(told) for words in _OLD_SCHEMA):
        return 'SCHEMA'
    return '_'.join(name.split('_')[1:2])


def _identity(path):
    """Return what tells a file from another of the same name, if any."""
    with suppress(OSError):
        found = os.stat(path)
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


_databases = weakref.WeakSet()


def _each(method):
    return lambda: [getattr(one, method)() for one in list(_databases)]


os.register_at_fork(
    before=_each('before_fork'), after_in_parent=_each('after_fork'),
    after_in_child=_each('in_child'))
