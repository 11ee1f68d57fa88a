"""What the store of a run stands on: a SQLite file, or a PostgreSQL server.

Both give each process a database of its own code, which goes on to the next
one when the process is dead, and read past the program that is tested.
"""

import logging
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

from stampman.store import open_store
from stampman.store._sqlite import SqliteDatabase, driver
from stampman.store.schema import metadata

from simulation.scheduling import START, Scheduler

MEMORY = Path('/dev/shm')
NEVER = float('inf')
APART = 3600.0      # seconds by which a server's clock may be another
STORES = ('sqlite', 'postgres')
TIME_FILE = 'simulated_time'    # in the folder of a server
# What is in `public` hides what PostgreSQL itself calls so.
SERVER_TIME = f"""CREATE FUNCTION public.clock_timestamp()
    RETURNS timestamptz LANGUAGE sql VOLATILE SECURITY DEFINER AS
    $$SELECT to_timestamp(pg_read_file('{TIME_FILE}')::float8)$$"""


class Databases(Protocol):
    """What a run needs; `begin` and `end` enclose it.

    `on_machine`: no lease outlives a reboot of the machine.
    """

    name: str
    on_machine: bool

    def begin(self, scheduler: Scheduler, seed: int) -> None:
        """Make the database as good as new."""

    def take(self, process: Any) -> Any:
        """Return a database for a process that starts."""

    def give_back(self, database: Any) -> None:
        """Take it from a process that is dead, whatever it was doing."""

    def lease_time(self) -> float:
        """Return what the clock shows that leases are counted on."""

    def rows(self, query: str, *values: Any) -> list[tuple]:
        """Return what is committed; `?` stands for each value."""

    def end(self) -> None: ...
    def close(self) -> None: ...


class SqliteFile(SqliteDatabase):
    """The real one, for one process after another: what SQLAlchemy has
    compiled is kept, which else takes half of a run. Connections are not."""

    def __init__(self, path):
        super().__init__(path, pragmas={'synchronous': 'OFF'})
        self._engines = {}

    def _engine(self, connect):
        reads = connect == self._connect
        if reads not in self._engines:
            self._engines[reads] = super()._engine(connect)
        return self._engines[reads]


class SqliteFiles:
    """For each run a copy of one migrated file."""

    name = STORES[0]
    on_machine = True

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(
            dir=MEMORY if MEMORY.is_dir() else None)
        self._template = Path(self._folder.name) / 'template.db'
        _migrate(f'sqlite:///{self._template}')
        self._free = []

    def begin(self, scheduler, seed):
        self._scheduler = scheduler
        self._run = tempfile.TemporaryDirectory(dir=self._folder.name)
        self._path = Path(self._run.name) / 'messages.db'
        shutil.copy(self._template, self._path)
        self._reader = driver.connect(
            f'file:{self._path}?mode=ro', uri=True, isolation_level=None)

    def take(self, process):
        database = self._free.pop() if self._free else SqliteFile(self._path)
        database.path = self._path
        return database

    def give_back(self, database):
        database.close()
        self._free.append(database)

    def lease_time(self):
        clock = self.rows('SELECT ahead, boot FROM lease_clock')
        known = clock and clock[0][1] == self._scheduler.clock().boot
        return (clock[0][0] if known else NEVER) \
            + self._scheduler.monotonic()

    def rows(self, query, *values):
        return self._reader.execute(query, values).fetchall()

    def end(self):
        self._reader.close()
        self._run.cleanup()

    def close(self):
        self._folder.cleanup()


class PostgresServerDatabase:
    """One database of a server, emptied for each run.

    The time of the server is virtual, too, and not that of the machine: no
    jump and no reboot moves it.
    """

    name = STORES[1]
    on_machine = False

    def __init__(self, server):
        """`server` is a running one of tests/postgres.py."""
        name = server.new_database()
        self._url = server.url(name)
        _migrate(self._url)
        self._reader = server.connect(name)
        for statement in (
                SERVER_TIME,
                f'ALTER DATABASE {name} SET search_path = public, pg_catalog',
                f"ALTER DATABASE {name} SET deadlock_timeout = '10ms'"):
            self._reader.execute(statement)
        self._shown = os.open(
            server.folder / TIME_FILE, os.O_CREAT | os.O_WRONLY, 0o644)
        self._free = []

    def begin(self, scheduler, seed):
        from simulation.interleaving import Locks
        self._scheduler = scheduler
        self._ahead = random.Random(f'server/{seed}').uniform(-APART, APART)
        self._reader.execute(f'TRUNCATE {", ".join(metadata.tables)}')
        self._locks = Locks(self._reader, scheduler, self._show_time)

    def take(self, process):
        from simulation.interleaving import InterleavedDatabase
        database = self._free.pop() if self._free \
            else InterleavedDatabase(self._url)
        database.serve(process, self._locks)
        return database

    def give_back(self, database):
        database.cut_off()
        self._free.append(database)

    def lease_time(self):
        return START + self._ahead + self._scheduler.time

    def _show_time(self):
        os.pwrite(self._shown, f'{self.lease_time():020.6f}'.encode(), 0)

    def rows(self, query, *values):
        return self._reader.execute(
            query.replace('?', '%s'), values).fetchall()

    def end(self):
        """The next run empties it."""

    def close(self):
        self._reader.close()
        os.close(self._shown)


@contextmanager
def databases_of(store: str) -> Iterator[Databases]:
    """Open a block that has the databases for a `--store`."""
    if store == SqliteFiles.name:
        with closing(SqliteFiles()) as found:
            yield found
        return
    import postgres
    with postgres.installed() as installation, postgres.PostgresServer(
            installation, **postgres.FAST) as server, closing(
            PostgresServerDatabase(server)) as found:
        yield found


@contextmanager
def in_silence() -> Iterator[None]:
    """Open a block in which the program and its drivers log nothing."""
    logs = [logging.getLogger(name) for name in ('stampman', 'psycopg')]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for log, level in zip(logs, levels):
            log.setLevel(level)


def _migrate(url):
    with in_silence(), closing(open_store(url)) as store:
        store.migrate()
