"""What runs in the processes: Stampman as `main` opens it, told to die.

`gunicorn crashing.program:app` serves, `python -m crashing.program` works.
The environment variable CRASHING holds the orders, as JSON: `timing`, the
fields of a Timing; `store`, the options of the database; `strikes`, a file
that says when to die; `clock`, a file with the seconds by which the wall
clock is wrong; `fettered`, where file permissions must bind root too.
"""

import functools
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from stampman import logs
from stampman.gateway import Gateway, load_config
from stampman.helpers import environment as environments
from stampman.helpers.delivery import Timing
from stampman.helpers.turns import turns
from stampman.main import create_app
from stampman.opening import surroundings
from stampman.store._databases import database_at
from stampman.store.sql import SqlStore
from stampman.working import work

from crashing.capabilities import obey_permissions

ORDERS = 'CRASHING'


class Strikes:
    """When this process is to get a signal, from the lines of a file.

    A line is `moment method number signal whom`, such as `after begin 1
    SIGKILL group`: after the first call of `begin` in a process. The first
    line is the next one; who is struck takes it out before.
    """

    def __init__(self, path: str | None):
        self._path = path and Path(path)
        self._counts = Counter()
        self._lock = threading.Lock()
        self._writing = threading.RLock()
        self.now = threading.local()    # `method`: what this thread is in

    def at(self, moment: str, method: str) -> None:
        """Say where we are: the process may go no further."""
        if not self._path:
            return
        with self._lock:
            self._counts[moment, method] += 1
            due = self._take(
                f'{moment} {method} {self._counts[moment, method]} ')
        if due:
            name, whom = due.split()
            with self.writing():    # or the frozen would lock everybody out
                self._send(signal.Signals[name], whom)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Let nobody else of this process write meanwhile."""
        with turns.away:        # whoever writes may wait for a turn
            self._writing.acquire()
        try:
            yield
        finally:
            self._writing.release()

    def _take(self, here):
        first, *others = self._path.read_text().splitlines() or ['']
        if not first.startswith(here):
            return ''
        replace_text(self._path, '\n'.join(others))
        return first.removeprefix(here)

    def _send(self, number, whom):
        if whom == 'group':
            os.killpg(os.getpgrp(), number)
        # To this thread: it is stopped before it can go on.
        signal.pthread_kill(threading.get_ident(), number)


def replace_text(path: Path, text: str) -> None:
    """Write a file of which nobody ever reads half."""
    fresh = path.with_suffix('.fresh')
    fresh.write_text(text)
    fresh.replace(path)


class DeadlyDatabase:
    """A database in whose transactions the process may die.

    `within` a method is when its statements are done, and not committed.
    """

    def __init__(self, database, strikes):
        self._database = database
        self._strikes = strikes

    def __getattr__(self, name):
        return getattr(self._database, name)

    def write(self, work):
        method = getattr(self._strikes.now, 'method', None)

        def deadly(connection):
            result = work(connection)
            if method:
                self._strikes.at('within', method)
            return result

        with self._strikes.writing():
            return self._database.write(deadly)

    def write_one(self, work):
        """There is nothing within what is one statement: it dies before."""
        if method := getattr(self._strikes.now, 'method', None):
            self._strikes.at('within', method)
        with self._strikes.writing():
            return self._database.write_one(work)


class DeadlyStore:
    """A store before and after whose methods the process may die."""

    def __init__(self, store, strikes):
        self._store = store
        self._strikes = strikes

    def __getattr__(self, name):
        method = getattr(self._store, name)
        if not callable(method):
            return method
        if name == 'beat':      # a worker's first sign of life
            _say_ready()

        def call(*args, **named):
            self._strikes.now.method = name
            self._strikes.at('before', name)
            result = method(*args, **named)
            if name != 'claim_due' or result:   # it looks in vain most times
                self._strikes.at('after', name)
            return result

        return call


def open_program() -> Gateway:
    """Return the gateway of this process, as the orders want it."""
    orders = json.loads(os.environ[ORDERS])
    if orders.get('fettered'):
        obey_permissions()
    environment = environments.read(os.environ)
    config = load_config(environment)
    world = surroundings()
    if 'clock' in orders:
        wrong = Path(orders['clock'])
        world = world._replace(clock=replace(
            world.clock, now=lambda: wall_clock(wrong)))
    strikes = Strikes(orders.get('strikes'))
    store = SqlStore(DeadlyDatabase(database_at(
        environment.database_url, **orders.get('store', {})), strikes),
        world.clock)
    gateway = Gateway(
        config, environment,
        world._replace(timing=Timing(**orders.get('timing', {}))),
        DeadlyStore(store, strikes))
    logs.setup(sys.stderr, gateway.secrets())
    logs.log_uncaught()
    return gateway


def wall_clock(wrong: Path) -> float:
    """Return the time of a clock that is wrong by what a file says."""
    return time.time() + float(wrong.read_text())


@functools.cache
def _say_ready():
    """The pid of who serves, for those who want to signal it alone."""
    name = os.environ['CRASHING_NAME']
    replace_text(Path(f'{name}.pid'), str(os.getpid()))


def __getattr__(name):
    """Make `app` when gunicorn asks for it, in the process that serves."""
    if name != 'app':
        raise AttributeError(name)
    app = globals()['app'] = create_app(open_program())
    _say_ready()
    return app


if __name__ == '__main__':
    sys.exit(work(open_program()))
