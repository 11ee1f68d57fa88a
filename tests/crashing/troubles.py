"""What can befall the store of a running program, and pass again.

Each is for `Program(site, **trouble.orders)`; `begin(program)` makes the
trouble, `end(program)` mends it. They work for root and for anybody else.
"""

import errno
import resource
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from stampman.store import open_store
from stampman.store._sqlite import driver
from stampman.store.sql import SqlStore

from crashing.oracle import ENDS, read
from crashing.running import POOLS, assert_whole

PAGES = 300             # of the database, at most
PAGE = 4096             # bytes
SMALL_DISK = 2          # MiB
# Makes a disk of its own in a directory, for this process and its children,
# and puts the database there.
_OWN_DISK = ('mount -t tmpfs -o size="$1"m tmpfs "$2" && '
             'cp "$3" "$2"/stampman.db && shift 3 && exec "$@"')


class Trouble:
    """Nothing is wrong: what the others have in common.

    `reads` says whether the store can still be read, `total` that nothing
    at all can be written, not even what is small.
    """

    reads = total = True

    def __init__(self, site):
        self.site = site
        self.orders = {}

    def started(self, program) -> None:
        """Say that it runs for the first time."""

    def begin(self, program) -> None:
        """Make the trouble."""

    def end(self, program) -> None:
        """Mend it."""

    def connect(self):
        """Return a connection of this process, which no limit binds."""
        return driver.connect(self.site.path, isolation_level=None)


class NoPageLeft(Trouble):
    """SQLite itself may take no more pages."""

    total = False       # there is room in those it has

    def __init__(self, site):
        super().__init__(site)
        self.orders = {'store': {'pragmas': {'max_page_count': PAGES}}}

    def begin(self, program):
        connection = self.connect()
        connection.execute('CREATE TABLE filler (filling)')
        while connection.execute('PRAGMA page_count').fetchone()[0] < PAGES:
            connection.execute('INSERT INTO filler VALUES (zeroblob(2000))')
        # What was free within the size is used up too.
        while connection.execute('PRAGMA freelist_count').fetchone()[0]:
            connection.execute('INSERT INTO filler VALUES (zeroblob(2000))')
        connection.close()

    def end(self, program):
        connection = self.connect()
        connection.execute('DELETE FROM filler')
        connection.close()


class NoFileGrows(Trouble):
    """The system lets the process write to no place of any file."""

    def started(self, program):
        """Another process uses the store too: what WAL shares is there."""
        self.site.store.last_beat()

    def begin(self, program):
        self._limit(program, 0)

    def end(self, program):
        self._limit(program, resource.RLIM_INFINITY)

    def _limit(self, program, soft):
        _, hard = resource.prlimit(program.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(program.pid, resource.RLIMIT_FSIZE, (soft, hard))


class NoJournalGrows(NoFileGrows):
    """The same with a rollback journal, which grows for each commit."""

    def __init__(self, site):
        super().__init__(site)
        options = {'journal_mode': 'delete'}
        self.orders = {'store': options}
        site.store.close()
        site.store = SqlStore.at(site.url, **options)


class DiskIsFull(Trouble):
    """A small disk of its own, filled by somebody else's file."""

    def __init__(self, site):
        super().__init__(site)
        fresh = site.folder / 'fresh.db'
        site.store.close()
        site.path.rename(fresh)
        self._place = site.path.parent
        self.orders = {'before': [
            'unshare', '--user', '--map-root-user', '--mount', 'sh', '-c',
            _OWN_DISK, 'sh', str(SMALL_DISK), str(site.path.parent),
            str(fresh)]}

    @staticmethod
    def can_be_made(folder: Path) -> bool:
        """Whether this system lets us mount a disk of our own."""
        return bool(shutil.which('unshare')) and not subprocess.run(
            ['unshare', '--user', '--map-root-user', '--mount', 'mount',
             '-t', 'tmpfs', 'tmpfs', folder], capture_output=True
        ).returncode

    def started(self, program):
        """SQLite itself would not follow the path into another disk."""
        self._disk = Path(f'/proc/{program.process.pid}/root{self._place}')
        self.site.stored = lambda: self._copied(program)
        self.site.is_quiet = lambda: all(
            one.message.state in ENDS or one.held
            for one in self._copied(program))

    def _copied(self, program):
        program.signal(signal.SIGSTOP)
        copy = Path(tempfile.mkdtemp(dir=self.site.folder))
        for name in ('stampman.db', 'stampman.db-wal'):
            shutil.copy(self._disk / name, copy)
        program.signal(signal.SIGCONT)
        assert_whole(copy / 'stampman.db')
        store = open_store(f'sqlite:///{copy / "stampman.db"}')
        found = read(store, POOLS.values())
        store.close()
        return found

    def begin(self, program):
        with open(self._filling, 'wb', buffering=0) as file:
            try:
                while True:
                    file.write(bytes(PAGE))
            except OSError as error:
                assert error.errno == errno.ENOSPC

    def end(self, program):
        self._filling.unlink()

    @property
    def _filling(self):
        return self._disk / 'filling'


class Locked(Trouble):
    """Another process is in the middle of a transaction, for long."""

    def __init__(self, site):
        super().__init__(site)
        self.orders = {'store': {'busy_timeout': 0.3}}

    def begin(self, program):
        self._holder = self.connect()
        self._holder.execute('BEGIN IMMEDIATE')

    def end(self, program):
        self._holder.execute('ROLLBACK')
        self._holder.close()


class ReadOnly(Trouble):
    """The file and its directory may not be written to, by root neither."""

    def __init__(self, site):
        super().__init__(site)
        self.orders = {'fettered': True}

    def begin(self, program):
        self.site.store.close()
        self._permit(0o444, 0o555)
        program.kill('process')     # what is open stays writable

    def end(self, program):
        self._permit(0o644, 0o755)

    def _permit(self, file, directory):
        self.site.path.parent.chmod(0o755)
        for path in self.site.path.parent.iterdir():
            path.chmod(file)
        self.site.path.parent.chmod(directory)
