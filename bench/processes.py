"""What is measured, as processes: started, counted, and surely ended.

Those that are still there at the end are killed with all their children;
where this process is killed itself, the kernel ends them.
"""

import atexit
import http.client
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench import mail
from bench.load import Result

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 60.0         # seconds for a server to start, or a backlog to end
STOPS = 5.0             # seconds for a process to stop when it is told
IDLE = 0.03             # seconds of CPU in a third of a second
LEASH = Path(__file__).parent / 'leash.py'
TICK = os.sysconf('SC_CLK_TCK')
_running = set()


class Memory(NamedTuple):
    """Of one process, in MB: resident, and its share of what is shared."""

    rss: float
    pss: float


def stop_all() -> None:
    """End what is still there."""
    for process in [*_running]:
        process.stop(patience=0.5)


def end_all_at_exit() -> None:
    """Let no signal that can be heard leave something running."""
    atexit.register(stop_all)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))


def children() -> dict[int, list[int]]:
    """Return the children of every process of this machine."""
    found = {}
    for path in Path('/proc').glob('[0-9]*/stat'):
        try:
            parent = int(_stat(path)[1])
        except OSError:     # it has ended meanwhile
            continue
        found.setdefault(parent, []).append(int(path.parent.name))
    return found


def family(ids: Sequence[int]) -> list[int]:
    """Return processes, and all that they started."""
    below, found = children(), [*ids]
    for one in found:
        found += below.get(one, ())
    return found


def _stat(path):
    """Return the fields behind the name, which may hold anything."""
    return path.read_text().rpartition(')')[2].split()


class Process:
    """A command in a folder, with a log of its own; for `with`.

    `also` are ids of processes that work for it, as a database does.
    """

    also: Sequence[int] = ()

    def __init__(self, words: Sequence[str], folder: Path, name: str,
                 environ: Mapping[str, str] = {}, answers: bool = False):
        """With `answers` its output is a pipe, and so is its input."""
        pipe = subprocess.PIPE if answers else None
        with open(folder / f'{name}.log', 'ab') as log:
            self.popen = subprocess.Popen(
                [sys.executable, '-S', str(LEASH), *words], cwd=folder,
                stdin=pipe, stdout=pipe or log, stderr=log,
                start_new_session=True,
                env={'PATH': os.environ['PATH'], 'PYTHONPATH': str(ROOT),
                     **environ})
        self.log = folder / f'{name}.log'
        _running.add(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def all_of_it(self) -> list[int]:
        """Return its id and those of all that it started."""
        return family([self.popen.pid])

    def cpu(self) -> float:
        """Return the seconds of CPU that those took which now run, and the
        database of theirs."""
        total = 0
        for one in family([self.popen.pid, *self.also]):
            try:
                user, system = _stat(Path(f'/proc/{one}/stat'))[11:13]
            except OSError:
                continue
            total += int(user) + int(system)
        return total / TICK

    def memory(self) -> list[Memory]:
        """Return what each of those needs that serve or work."""
        found = []
        for one in self.all_of_it()[1:] or [self.popen.pid]:
            told = dict(
                line.split()[:2] for line in Path(
                    f'/proc/{one}/smaps_rollup').read_text().splitlines()[1:])
            found.append(Memory(int(told['Rss:']) / 1024,
                                int(told['Pss:']) / 1024))
        return found

    def stop(self, patience: float = STOPS) -> None:
        """Tell it to end, and kill what has not by then."""
        members = self.all_of_it() if self.popen.poll() is None else []
        if members:
            self.popen.terminate()
            try:
                self.popen.wait(patience)
            except subprocess.TimeoutExpired:
                pass
        for one in members:     # also those that have a session of their own
            try:
                os.kill(one, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.popen.wait()
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe:
                pipe.close()
        _running.discard(self)

    def told(self) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors='replace')[-4000:]


def free_port() -> int:
    with socket.create_server(('127.0.0.1', 0)) as free:
        return free.getsockname()[1]


class Provider(Process):
    """The provider that takes everything, `delay` milliseconds later."""

    def __init__(self, folder: Path, delay: float = 0.0):
        super().__init__(
            [sys.executable, '-m', 'bench.provider', '--delay', str(delay)],
            folder, 'provider', answers=True)
        self.port = int(self.popen.stdout.readline())
        self.url = f'http://127.0.0.1:{self.port}'

    def taken(self) -> int:
        """Return how many emails it has taken."""
        return json.loads(_get(self.port, '/')[1])['taken']

    def until_taken(self, count: int, patience: float = PATIENCE) -> None:
        """Wait until it has taken so many."""
        give_up_at = time.monotonic() + patience
        while (taken := self.taken()) < count:
            if time.monotonic() > give_up_at:
                raise TimeoutError(f'{taken} of {count} emails came')
            time.sleep(0.02)


def _get(port, path):
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=10)
    try:
        connection.request('GET', path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class Server(Process):
    """A gunicorn of two processes; `path` is where its requests go."""

    path = '/'

    def __init__(self, words: Sequence[str], folder: Path, name: str,
                 environ: Mapping[str, str] = {}, processes: int = 2):
        self.port = free_port()
        super().__init__(
            [sys.executable, '-m', 'gunicorn', *words, '--bind',
             f'127.0.0.1:{self.port}'], folder, name,
            {'WEB_CONCURRENCY': str(processes), **environ})
        self.url = f'http://127.0.0.1:{self.port}'
        try:
            self._until_it_answers()
            self._until_idle(processes)
        except BaseException:
            self.stop()
            raise

    def _until_it_answers(self):
        give_up_at = time.monotonic() + PATIENCE
        while True:
            try:
                _get(self.port, '/healthz')
                return
            except OSError:
                if self.popen.poll() is not None or (
                        time.monotonic() > give_up_at):
                    raise RuntimeError(self.told()) from None
                time.sleep(0.05)

    def _until_idle(self, processes):
        """Wait for the last process, too: the first would take all."""
        give_up_at, seen = time.monotonic() + PATIENCE, -math.inf
        while time.monotonic() < give_up_at:
            now = self.cpu()
            if len(self.all_of_it()) > processes and now - seen <= IDLE:
                return
            seen = now
            time.sleep(0.3)


class Stampman(Server):
    """A whole Stampman, as its Procfile starts it."""

    path = f'/{mail.DOMAIN}/send'

    def __init__(self, folder: Path, environ: Mapping[str, str],
                 worker: str = 'embedded', processes: int = 2,
                 also: Sequence[int] = ()):
        self.also = also
        super().__init__(
            ['--config', 'python:stampman.serving', 'stampman.main:app'],
            folder, 'stampman', {**environ, 'STAMPMAN_WORKER': worker},
            processes)


class Peer(Server):
    """An app of `bench.peers`, under gunicorn as Stampman is."""

    def __init__(self, name: str, folder: Path, provider: str = '',
                 processes: int = 2):
        super().__init__(
            ['--config', 'python:bench.peers.serving', f'bench.peers.{name}'],
            folder, name.partition(':')[0], {'PROVIDER': provider},
            processes)


class Measured(NamedTuple):
    """What a load saw, and the seconds of CPU that it cost the server;
    `good` is the status of an answer that counts, for so many `messages`."""

    load: Result
    cpu: float
    good: str
    messages: int = 1

    @property
    def rate(self) -> float:
        """Messages a second."""
        return (self.load.statuses.get(self.good, 0) * self.messages
                / self.load.seconds)

    @property
    def each(self) -> float:
        """Milliseconds of CPU for a message, whatever was answered."""
        answered = sum(self.load.statuses.values()) * self.messages
        return self.cpu / answered * 1000 if answered else math.nan


def measure(server: Process, request: bytes, good: str = '200',
            messages: int = 1, **options: float) -> Measured:
    """Send a request again and again, by a process of its own; `options`
    are those of `bench.load`."""
    words = [f'--{name.replace("_", "-")}={value}'
             for name, value in options.items()]
    with Process([sys.executable, '-m', 'bench.load', '127.0.0.1',
                  str(server.port), *words], server.log.parent, 'load',
                 answers=True) as load:
        load.popen.stdin.write(request)
        load.popen.stdin.close()
        if load.popen.stdout.readline() != b'begin\n':
            load.popen.wait()
            raise RuntimeError(load.told())
        before = server.cpu()
        line = load.popen.stdout.readline()
        after = server.cpu()
        if not line:
            raise RuntimeError(load.told())
        return Measured(Result(**json.loads(line)), after - before, good,
                        messages)
