"""The stores that are measured: each with a config of its own beside it."""

import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench import fill, mail
from bench.processes import ROOT, Process, Provider, Stampman
from stampman.helpers.delivery import State

POSTGRES = {'shared_buffers': '128MB', 'max_connections': '200',
            'max_wal_size': '1GB', 'scram_iterations': '4096'}


class Store(NamedTuple):
    """A database, and the folder that a Stampman with it is run in.

    `server` is the id of the database's process, where it has one.
    """

    name: str
    folder: Path
    url: str
    server: int | None = None

    def serve(self, provider: Provider, worker: str = 'embedded',
              processes: int = 2) -> Stampman:
        """Start a Stampman with it."""
        return Stampman(
            self.folder, self.environ(provider), worker, processes,
            () if self.server is None else (self.server,))

    def environ(self, provider: Provider) -> dict[str, str]:
        """Write the config for a provider; return what the environment of a
        Stampman has."""
        path = self.folder / 'config.json'
        path.write_text(json.dumps(mail.config(provider.url)))
        return {'STAMPMAN_CONFIG': str(path), 'DATABASE_URL': self.url}

    def migrate(self, provider: Provider) -> 'Store':
        """Make its tables; return itself."""
        run(['migrate'], self.folder, self.environ(provider))
        return self

    def queue(self, messages: int) -> None:
        """Store messages that are due."""
        self._fill(messages, state=State.queued, days=0.01)

    def fill(self, messages: int, size: int, days: float = 20.0) -> None:
        """Store messages that were accepted in the last days."""
        self._fill(messages, size=size, days=days)

    def _fill(self, messages, **options):
        engine = fill.engine_for(self.url)
        for _ in fill.fill(engine, messages, **options):
            pass
        engine.dispose()

    def forget_waiting(self) -> None:
        """Delete what waits to be sent."""
        engine = fill.engine_for(self.url)
        fill.forget_waiting(engine)
        engine.dispose()


def run(words: list[str], folder: Path, environ: Mapping[str, str]) -> None:
    """Run a command of Stampman's to its end; raises RuntimeError."""
    with Process([sys.executable, '-m', 'stampman', *words], folder,
                 words[0], environ) as process:
        if process.popen.wait():
            raise RuntimeError(process.told())


def sqlite(folder: Path, name: str = 'SQLite') -> Store:
    """Return a store in a file of a new folder."""
    folder.mkdir(parents=True)
    return Store(name, folder, f'sqlite:///{folder / "stampman.db"}')


@contextmanager
def postgres_server() -> Iterator[Callable[[Path], Store]]:
    """Run a PostgreSQL as the tests have it, but with fsync; give what
    makes a store in a new database of it."""
    sys.path.append(str(ROOT / 'tests'))
    postgres = importlib.import_module('postgres')

    def new(folder):
        folder.mkdir(parents=True)
        return Store('PostgreSQL', folder, server.url(server.new_database()),
                     server.process.pid)

    with postgres.installed() as installation, postgres.PostgresServer(
            installation, **POSTGRES) as server:
        new.version = server.run('SHOW server_version')[0][0]
        new.place = installation.folder
        yield new
