"""What a big store's upkeep does to those who send meanwhile.

`python -m bench.upkeep --messages 1000000` prints a table: while old
messages are given up (by the worker's own steps, without its rests between
them), while the file is made smaller (by the same, after half of all messages
are gone), while SQLite vacuums it at once, which Stampman never does, and
while nothing is done: how long a trickle of sends took, and how long a
neighbour of theirs waited for the write lock of the file at most. And how
long a migration of such a store holds it. SQLite alone: no lock of
PostgreSQL's stops all who write.
"""

import argparse
import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from alembic import command
from sqlalchemy import func, select

from bench import fill, mail, rounds, stores
from bench.load import percentile
from bench.processes import (
    ROOT, Measured, Process, Provider, end_all_at_exit, measure)
from stampman.helpers.delivery import Clock
from stampman.store import migrations, open_store, schema
from stampman.store._sqlite import driver
from stampman.upkeep import Upkeep

KEPT = SimpleNamespace(keep_bodies=30, keep_messages=90)    # days
STORED_FOR = 120.0      # days: a quarter of all is to be deleted
OLDEST = '0001'         # the revision that is migrated from
BETWEEN = 0.005         # seconds between the asks for the lock
SPIN = 0.0002           # seconds between tries of one ask
HEADINGS = ('meanwhile', 'sends, p50 / p99 / longest', 'no 200',
            'lock waited for, p99 / longest', 'done')


class Neighbour:
    """Asks for the write lock of a file again and again, and gives it back;
    `waits` are the sorted milliseconds that it took, for `with`."""

    def __init__(self, path: Path):
        self._path = path
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.waits = []

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()
        self.waits.sort()

    def _ask(self):
        connection = driver.connect(
            str(self._path), timeout=0, isolation_level=None)
        while not self._over.wait(BETWEEN):
            began = time.perf_counter()
            while not self._has_lock(connection):
                time.sleep(SPIN)
            self.waits.append((time.perf_counter() - began) * 1000)
        connection.close()

    @staticmethod
    def _has_lock(connection):
        try:
            connection.execute('BEGIN IMMEDIATE')
        except driver.OperationalError:
            return False
        connection.execute('ROLLBACK')
        return True

    def told(self) -> str:
        return f'{percentile(self.waits, 0.99):.1f} / ' \
            f'{self.waits[-1]:.0f} ms'


# -- what is done meanwhile: each in a process of its own ---------------------

def retention(url: str, seconds: float) -> str:
    """Give up what is old for so many seconds; tell how much."""
    engine = fill.engine_for(url)
    store = open_store(url)
    upkeep = Upkeep(store, Clock(time.time, time.monotonic), KEPT)
    before = _counts(engine)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        upkeep.prune()
    store.close()
    gone = [was - are for was, are in zip(before, _counts(engine))]
    return '{:,} messages, {:,} contents given up'.format(*gone)


def _counts(engine):
    with engine.begin() as connection:
        return [connection.execute(select(func.count()).select_from(
            table)).scalar() for table in (schema.messages, schema.emails)]


def shrinking(url: str, seconds: float) -> str:
    """Give back what is free in the file for so many seconds; tell how much.
    """
    path, store = Path(url.removeprefix('sqlite:///')), open_store(url)
    before, steps = path.stat().st_size, []
    until = time.monotonic() + seconds
    while (began := time.monotonic()) < until and store.shrink():
        steps.append(time.monotonic() - began)
    store.drop_traces()     # the log holds what the file is to be
    store.close()
    given = (before - path.stat().st_size) / 1e6
    return f'{given:.0f} of {before / 1e6:.0f} MB given back, in ' \
        f'{len(steps)} steps that took {sum(steps):.1f} s'


def vacuum(url: str, seconds: float) -> str:
    """Vacuum the file."""
    connection = driver.connect(url.removeprefix('sqlite:///'), timeout=30)
    began = time.monotonic()
    connection.execute('VACUUM')
    connection.close()
    return f'took {time.monotonic() - began:.1f} s'


ACTS = {one.__name__: one for one in (retention, shrinking, vacuum)}


# -- what is seen -------------------------------------------------------------

class Bench(NamedTuple):
    """A store that is served, at so many sends a second."""

    store: stores.Store
    provider: Provider
    rate: float
    seconds: float

    def seen(self, meanwhile: str) -> list[str]:
        """Send while something is done; return the cells of a row."""
        with self.store.serve(self.provider, 'off') as server, Neighbour(
                self.store.folder / 'stampman.db') as neighbour:
            request = mail.request(
                f'{server.url}{server.path}', mail.EMAIL)

            def load() -> Measured:
                return measure(server, request, rate=self.rate,
                               seconds=self.seconds)

            found, done = self._beside(meanwhile, load) \
                if meanwhile in ACTS else (load(), '')
        good = found.load.statuses.get('200', 0)
        others = sum(found.load.statuses.values()) + found.load.failed - good
        return [meanwhile, f'{found.load.p50:.1f} / {found.load.p99:.1f} / '
                f'{found.load.longest:.0f} ms', f'{others} of {good + others}',
                neighbour.told(), done]

    def _beside(self, act, load: Callable[[], Measured]):
        with Process([sys.executable, '-m', 'bench.upkeep', '--act', act,
                      '--url', self.store.url, '--seconds',
                      str(self.seconds)], self.store.folder, act,
                     answers=True) as process:
            found = load()
            told = process.popen.stdout.readline()
            if not told:
                raise RuntimeError(process.told())
        return found, json.loads(told)


def migrated(folder: Path, messages: int, size: int) -> list[str]:
    """Migrate a store from the oldest revision; return the cells."""
    store = stores.sqlite(folder / 'old')
    with fill.engine_for(store.url).begin() as connection:
        connection.exec_driver_sql('PRAGMA journal_mode=WAL')
    with fill.engine_for(store.url).begin() as connection:
        command.upgrade(migrations.config(connection), OLDEST)
    store.fill(messages, size)
    with Neighbour(store.folder / 'stampman.db') as neighbour:
        opened = open_store(store.url)
        began = time.monotonic()
        opened.migrate()
        took = time.monotonic() - began
        opened.close()
    return [f'migration from {OLDEST}', '', '', neighbour.told(),
            f'took {took:.1f} s']


def table(asked: argparse.Namespace, folder: Path) -> None:
    print(rounds.line(HEADINGS))
    print(rounds.line(['---'] * len(HEADINGS)), flush=True)
    with Provider(folder) as provider:
        store = stores.sqlite(folder / 'store').migrate(provider)
        store.fill(asked.messages, asked.size, STORED_FOR)
        bench = Bench(store, provider, asked.rate, asked.seconds)
        for meanwhile in ('nothing', *ACTS, 'nothing'):
            if meanwhile == 'shrinking':
                fill.forget_half(fill.engine_for(store.url))
            print(rounds.line(bench.seen(meanwhile)), flush=True)
    print(rounds.line(migrated(folder, asked.messages, asked.size)))


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('--messages', type=int, default=1_000_000)
    parser.add_argument('--size', type=int, default=0)
    parser.add_argument('--rate', type=float, default=20.0,
                        help='sends a second')
    parser.add_argument('--seconds', type=float, default=20.0)
    parser.add_argument('--folder', type=Path, default=ROOT / 'build')
    parser.add_argument('--act', choices=ACTS, help=argparse.SUPPRESS)
    parser.add_argument('--url', help=argparse.SUPPRESS)
    asked = parser.parse_args(words)
    if asked.act:
        print(json.dumps(ACTS[asked.act](asked.url, asked.seconds)))
        return
    end_all_at_exit()
    asked.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix='bench-', dir=asked.folder))
    try:
        table(asked, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == '__main__':
    main(sys.argv[1:])
