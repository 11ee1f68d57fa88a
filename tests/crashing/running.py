"""Starting, ending and asking the processes of a crash test."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from stampman.gateway import Gateway, load_config
from stampman.helpers import environment as environments
from stampman.helpers.delivery import State
from stampman.helpers.mail import submission
from stampman.opening import surroundings
from stampman.store import open_store
from stampman.store._sqlite import driver
from stampman.store.base import Filter

from crashing.oracle import (
    PAGE, History, Stored, Told, read, violations)
from fresh import put_fresh
from gateway_server import ADMIN_KEY, ROOT, SECRET_KEY

POOLS = {'hold': 'hold.example', 'failover': 'failover.example'}
PATIENCE = 30.0         # seconds after which a test that waits in vain fails
# So short that a rescue comes after some two seconds, not a minute.
TIMING = {'lease': 1.0, 'recording': 0.5, 'between_tries': 0.05,
          'grace': 0.3, 'request': 5.0, 'drain': 3.0, 'idle': 0.05,
          'rounds': 1.0}
CALL = 1.0              # seconds that one call may take
COMMANDS = {
    'web': ('gunicorn', '--config', 'python:stampman.serving',
            '--graceful-timeout', '3', 'crashing.program:app', '--bind'),
    'worker': ('crashing.program',)}


def key_of(pool: str) -> str:
    """Return the API key of a pool."""
    return f'the-key-of-{pool}'


def email_of(pool: str, subject: str, **fields: Any) -> dict:
    """Return what a client posts."""
    return {'from': f'shop@{pool}', 'to': ['ada@example.org'],
            'cc': ['bob@example.org'], 'bcc': ['eve@example.org'],
            'subject': subject, 'text': 'It is on its way.', **fields}


class Site:
    """A folder with a config and a store, and the simulator behind it.

    `first` is where the first service, a SendGrid, is spoken to: at the
    simulator itself, or at what stands before it. `url` is that of the
    store, if it is no file of this folder.
    """

    def __init__(self, folder: Path, simulator, first: str | None = None,
                 call: float = CALL, url: str | None = None):
        self.folder = folder
        self.simulator = simulator
        self.path = folder / 'data' / 'stampman.db'
        self.url = url or f'sqlite:///{self.path}'
        found = simulator.services()
        services = {name: {**found[name], 'timeout': call}
                    for name in ('sendgrid', 'mailgun')}
        if first:
            services['sendgrid']['base_url'] = f'{first}/sendgrid'
        (folder / 'config.json').write_text(json.dumps({
            'pools': [{'domain': domain, 'api_key': key_of(domain),
                       'on_uncertain': policy, 'services': services}
                      for policy, domain in POOLS.items()],
            'admins': [{'name': 'ops', 'api_key': ADMIN_KEY}]}))
        if url is None:
            self.path.parent.mkdir()
            put_fresh(self.path)
        self.store = open_store(self.url)
        self.told = []

    def __enter__(self) -> 'Site':
        return self

    def __exit__(self, *_) -> None:
        self.store.close()

    def accept(self, pool: str, subject: str, **fields: Any) -> Told:
        """Take a message in for the workers, in this process; it is the
        client's who was told so."""
        found = environments.read({
            'STAMPMAN_CONFIG': str(self.folder / 'config.json'),
            'DATABASE_URL': self.url})
        gateway = Gateway(load_config(found), found, surroundings(),
                          self.store)
        message = gateway.send(
            pool, submission(email_of(pool, subject)),
            gateway.clock.monotonic(), at_once=False).message
        told = Told(pool, subject, 202, message.id, str(message.state),
                    **fields)
        self.told.append(told)
        return told

    def stored(self) -> list[Stored]:
        return read(self.store, POOLS.values())

    def history(self) -> History:
        return History(list(self.told), self.simulator.ledger.entries(),
                       self.stored())

    def is_quiet(self) -> bool:
        """Whether nothing waits any more for us to do something."""
        waiting = self.store.waiting()
        # Asked twice: what was queued may be on its way between two reads.
        return (all(state is State.uncertain for _, state in waiting)
                and not any(message.next_attempt_at
                            for pool, state in waiting
                            for message in self._all_in(pool, state))
                and self.store.waiting() == waiting)

    def _all_in(self, pool, state):
        after, more = None, True
        while more:
            page, more = self.store.page(
                pool, Filter(state=state, after=after), PAGE)
            yield from page
            after = page[-1].id if page else None

    def judge(self) -> History:
        """Ask the oracle, and SQLite itself; return what was judged."""
        if self.path.exists():
            assert_whole(self.path)
        history = self.history()
        found = violations(history)
        assert not found, '\n'.join(found)
        return history


def assert_whole(path: Path) -> None:
    """Have SQLite look for damage in a database."""
    with closing(driver.connect(path)) as connection:
        assert connection.execute(
            'PRAGMA integrity_check').fetchall() == [('ok',)]


class Program:
    """One Stampman of ours, for `with`: `web` (gunicorn and the process it
    starts, with its worker in it) or `worker` (one process).

    `orders` are those of `crashing.program`; `before` are words that stand
    before the command.
    """

    def __init__(self, site: Site, kind: str = 'web', name: str = '',
                 before: Sequence[str] = (), timing: Mapping = {},
                 worker: str = 'embedded', **orders: Any):
        self.site = site
        self.kind = kind
        self.name = name or kind
        self._ready = site.folder / f'{self.name}.pid'
        self._strikes = site.folder / f'{self.name}.strikes'
        self.strike()
        words = list(COMMANDS[kind])
        if kind == 'web':
            with socket.create_server(('127.0.0.1', 0)) as free:
                self.port = free.getsockname()[1]
            words.append(f'127.0.0.1:{self.port}')
        self._words = [*before, sys.executable, '-m', *words]
        self._environ = {
            'PATH': os.environ['PATH'], 'CRASHING_NAME': self.name,
            'PYTHONPATH': f'{ROOT}{os.pathsep}{ROOT / "tests"}',
            'STAMPMAN_CONFIG': str(site.folder / 'config.json'),
            'STAMPMAN_SECRET_KEY': SECRET_KEY, 'DATABASE_URL': site.url,
            'STAMPMAN_WORKER': worker,
            'CRASHING': json.dumps({
                'timing': {**TIMING, **timing},
                'strikes': str(self._strikes), **orders})}
        self.process = None
        self.starts = 0
        self._readers = []

    def strike(self, *lines: str) -> None:
        """Say where it is to get a signal: see `program.Strikes`."""
        self._strikes.write_text('\n'.join(lines))
        self._deaths = sum(line.endswith('SIGKILL group') for line in lines)

    @property
    def struck(self) -> bool:
        """Whether all strikes were made, and it is there again."""
        return (not self._strikes.read_text().strip()
                and self.starts > self._deaths)

    def start(self, wait: bool = True) -> 'Program':
        """Start it, and wait until it serves."""
        with suppress(FileNotFoundError):
            self._ready.unlink()
        self.process = subprocess.Popen(
            self._words, cwd=self.site.folder, env=self._environ,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True)
        self.starts += 1
        # Not straight to a file: its size may be what is limited.
        self._readers.append(threading.Thread(
            target=self._keep_log, args=(self.process.stdout,)))
        self._readers[-1].start()
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self) -> None:
        """Return when it serves."""
        until(self._ready.exists, lambda: self.log, lambda: self.runs)

    def _keep_log(self, stream):
        with stream, open(self.site.folder / f'{self.name}.log', 'ab') as log:
            for line in stream:
                log.write(line)
                log.flush()

    @property
    def log(self) -> str:
        path = self.site.folder / f'{self.name}.log'
        return path.read_text() if path.exists() else ''

    @property
    def pid(self) -> int:
        """The process that serves or works."""
        return int(self._ready.read_text())

    @property
    def pid_now(self) -> int | None:
        """The same; None while it starts."""
        try:
            return self.pid
        except FileNotFoundError:
            return None

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self, whom: str = 'group') -> None:
        """Kill all of it at once, or the process that serves alone."""
        if whom == 'group':
            self.signal(signal.SIGKILL)
            self.process.wait()
        else:
            os.kill(self.pid, signal.SIGKILL)

    def signal(self, number: int) -> bool:
        """Send a signal to all its processes; say if there are any."""
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return False
        return True

    def stop(self) -> int:
        """End it as an operator does; return its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.end()

    def end(self) -> None:
        """End it, whatever has become of it."""
        if self.process is None:
            return
        self.kill()
        for reader in self._readers:
            reader.join(PATIENCE)

    def __enter__(self) -> 'Program':
        return self.start()

    def __exit__(self, *_) -> None:
        self.end()

    def recover(self, patience: float = PATIENCE) -> None:
        """Start it again when it is dead, until all strikes were made and
        nothing is left to do."""
        def done():
            if not self.runs:
                self.start(wait=False)     # it may die at once
            return self.struck and self.site.is_quiet()

        until(done, lambda: self.log, patience=patience)
        self.wait_ready()

    # -- asking it -----------------------------------------------------------

    def send(self, pool: str, subject: str, **named: Any) -> Told:
        """Send an email; note and return what was told of it."""
        return self.exchange(pool, subject, **named)[0]

    def exchange(self, pool: str, subject: str, key: str | None = None,
                 body: Mapping = {}, patience: float = 10.0, **fields: Any
                 ) -> tuple[Told, Mapping[str, str]]:
        """Do the same; return the answer's headers too."""
        told, headers = Told(pool, subject, key=key, **fields), {}
        try:
            status, headers, answer = self.ask(
                'POST', f'/{pool}/send', email_of(pool, subject, **body),
                {'Idempotency-Key': key} if key else {}, patience)
            told = told._replace(status=status, id=answer.get('id'),
                                 state=answer.get('status'))
        except (OSError, http.client.HTTPException):
            pass                # the client does not know
        self.site.told.append(told)
        return told, headers

    def ask(self, method: str, path: str, body: Any = None,
            headers: Mapping = {}, patience: float = 10.0):
        """Return status, headers and JSON of an answer."""
        connection = http.client.HTTPConnection(
            '127.0.0.1', self.port, timeout=patience)
        with closing(connection):
            connection.request(
                method, path, body and json.dumps(body).encode(), {
                    'Authorization': f'Bearer {key_of(path.split("/")[1])}',
                    'Content-Type': 'application/json', **headers})
            answer = connection.getresponse()
            return answer.status, answer.headers, json.loads(answer.read())

    def send_meanwhile(self, *args: Any, **named: Any) -> threading.Thread:
        """Send in a thread, which is to be joined."""
        thread = threading.Thread(target=self.send, args=args, kwargs=named)
        thread.start()
        return thread


def until(true: Callable[[], Any], told: Callable[[], str] = str,
          hope: Callable[[], bool] = lambda: True,
          patience: float = PATIENCE) -> None:
    """Wait until `true()`, as long as there is `hope`; else fail with the
    end of what `told` tells."""
    give_up_at = time.monotonic() + patience
    while not true():
        assert hope() and time.monotonic() < give_up_at, \
            f'waited in vain: {told()[-4000:]}'
        time.sleep(0.02)
