"""Stampman as its own processes, which a test may signal and kill."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

from gateway_server import PATIENCE, ROOT, GatewayServer

COMMANDS = {
    'stampman run': ('stampman', 'run', '--host', '127.0.0.1', '--port'),
    'gunicorn': ('gunicorn', 'stampman.main:app', '--bind'),
    'gunicorn --preload': (
        'gunicorn', '--preload', '--worker-class', 'gthread', '--threads',
        '8', 'stampman.main:app', '--bind'),
    'gunicorn with two workers': (
        'gunicorn', '--workers', '2', '--worker-class', 'gthread',
        '--threads', '8', 'stampman.main:app', '--bind'),
}
# The same with the Timing, and more, that `timed` reads.
TIMED = {
    name: tuple(word.replace('stampman.main:app', 'timed:app')
                for word in words)
    for name, words in COMMANDS.items() if name != 'stampman run'}
TIMED['gunicorn as stampman run'] = (
    'gunicorn', '--config', 'python:stampman.serving', 'timed:app', '--bind')
ENVIRON = {
    'PATH': os.environ['PATH'],
    'PYTHONPATH': f'{ROOT}{os.pathsep}{ROOT / "tests"}',
    'STAMPMAN_SECRET_KEY': 'signs-the-sessions-of-these-tests'}


def wait_until(true, server, patience=PATIENCE):
    """Wait until `true()`, while the server's process lives; refused
    connections count as not yet."""
    give_up_at = time.monotonic() + patience
    while time.monotonic() < give_up_at:
        try:
            if true():
                return
        except OSError:
            pass
        assert server.process.poll() is None, server.log
        time.sleep(0.02)
    raise AssertionError(f'waited in vain; the log:\n{server.log[-3000:]}')


def _kill_all(process):
    """Kill a process that leads a session, and all that it started."""
    with contextlib.suppress(ProcessLookupError):   # the last one is gone
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Server(GatewayServer):
    """A running Stampman; `with` ends it, whatever has become of it."""

    def __init__(self, folder, command='stampman run', **environ):
        self.folder = folder
        with socket.create_server(('127.0.0.1', 0)) as free:
            self.port = free.getsockname()[1]
        *words, last = (TIMED if 'TIMED' in environ else COMMANDS)[command]
        where = f'127.0.0.1:{self.port}'
        self._words = [*words, last,
                       where if last == '--bind' else str(self.port)]
        self._environ = {**ENVIRON, **environ}

    def configure(self, config):
        (self.folder / 'config.json').write_text(
            config if isinstance(config, str) else json.dumps(config))
        return self

    def run(self, *words):
        """Run another command in the same folder."""
        return subprocess.run(
            [sys.executable, '-m', 'stampman', *words], cwd=self.folder,
            env=self._environ, capture_output=True, text=True)

    def __enter__(self):
        with open(self.folder / 'log', 'ab') as log:
            self.process = subprocess.Popen(
                [sys.executable, '-m', *self._words], cwd=self.folder,
                env=self._environ, stdout=log, stderr=log,
                start_new_session=True)
        try:
            self.until(lambda: self.get('/healthz').status == 200)
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self):
        """End all its processes at once, as a power cut would."""
        _kill_all(self.process)

    def until(self, true, patience=PATIENCE):
        wait_until(true, self, patience)

    def send_meanwhile(self, email):
        """Send in a thread; return it, and the list the reply comes to."""
        replies = []

        def send():
            try:
                replies.append(self.send(email))
            except (OSError, http.client.HTTPException) as error:
                replies.append(error)

        thread = threading.Thread(target=send)
        thread.start()
        return thread, replies


class WorkerProcess:
    """A process of `stampman worker`, for `with`, beside a config.

    With TIMED it is that of `timed`. Its log is a file of its own.
    """

    def __init__(self, folder, *words, python=(), name='worker', **environ):
        self.folder = folder
        self.path = folder / f'{name}.log'
        program = 'timed' if 'TIMED' in environ else 'stampman'
        self._words = [sys.executable, *python, '-m', program, 'worker',
                       *words]
        self._environ = {**ENVIRON, **environ}

    def __enter__(self):
        with open(self.path, 'wb') as log:
            self.process = subprocess.Popen(
                self._words, cwd=self.folder, env=self._environ, stdout=log,
                stderr=log, start_new_session=True)
        try:
            self.until_it_says('has started')
        except BaseException:
            _kill_all(self.process)
            raise
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            _kill_all(self.process)

    @property
    def log(self):
        return self.path.read_text()

    def until_it_says(self, words, times=1):
        """Wait until the log has these words so many times."""
        give_up_at = time.monotonic() + PATIENCE
        while self.log.count(words) < times:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < give_up_at, self.log
            time.sleep(0.02)

    def end(self, number=signal.SIGTERM):
        """Signal it, and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)
