"""Processes of the Procfile as Heroku runs them, in its environment.

What is set: https://devcenter.heroku.com/articles/dynos, and the scripts
that the Python buildpack (of August 2026) lets each dyno source.
"""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

from gateway_server import PATIENCE, ROOT, SECRET_KEY, GatewayServer
from processes import wait_until

PROCFILE = dict(re.findall(r'^(\w+): (.+)$', (
    ROOT / 'Procfile').read_text(), re.MULTILINE))
BOOT = 60.0         # seconds until a web process must listen
SHUTDOWN = 30.0     # seconds from SIGTERM to SIGKILL
ROUTER = {'X-Forwarded-For': '192.0.2.7', 'X-Forwarded-Proto': 'https',
          'X-Forwarded-Port': '443', 'Via': '1.1 heroku-router',
          'X-Request-Id': '8601b555-6a83-4c12-8269-97c8e32cdb22',
          'X-Request-Start': '1796054400000'}


class Dyno(GatewayServer):
    """One dyno, such as `web.1`, in `folder`, what was pushed; for `with`.

    `config_vars` are those of the app.
    """

    def __init__(self, folder: Path, name: str, **config_vars: str):
        self.folder, self.name = folder, name
        self._path = folder / f'{name}.log'
        with socket.create_server(('127.0.0.1', 0)) as free:
            self.port = free.getsockname()[1]
        programs = Path(sys.executable).parent
        self._environ = {
            'DYNO': name, 'PORT': str(self.port), 'HOME': str(folder),
            'PATH': f'{programs}{os.pathsep}{os.environ["PATH"]}',
            'PYTHONPATH': str(ROOT),    # $HOME there
            'PYTHONUNBUFFERED': 'true', 'LANG': 'en_US.UTF-8',
            'DYNO_RAM': '512', 'WEB_CONCURRENCY': '2',
            'WEB_CONCURRENCY_SET_BY': 'heroku/python',
            'FORWARDED_ALLOW_IPS': '*',
            'GUNICORN_CMD_ARGS': '--access-logfile -',
            'STAMPMAN_SECRET_KEY': SECRET_KEY, **config_vars}

    def __enter__(self):
        command = PROCFILE[self.name.partition('.')[0]]
        with open(self._path, 'wb') as log:
            self.process = subprocess.Popen(
                ['bash', '-c', command], cwd=self.folder, env=self._environ,
                stdout=log, stderr=log, start_new_session=True)
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    @property
    def log(self) -> str:
        return self._path.read_text()

    def until(self, true, patience=PATIENCE) -> None:
        wait_until(true, self, patience)

    def until_it_says(self, words: str) -> None:
        self.until(lambda: words in self.log)

    def until_it_serves(self) -> None:
        self.until(lambda: self.get('/healthz').status == 200, BOOT)

    def ends(self, patience: float = BOOT) -> int:
        """Wait for its end; return its exit code."""
        return self.process.wait(patience)

    def shut_down(self) -> int:
        """End it as Heroku does: SIGTERM to each process of it, and perhaps
        again. Return the exit code; nobody may be left then."""
        everyone = psutil.Process(self.process.pid)
        everyone = [everyone, *everyone.children(recursive=True)]
        give_up_at = time.monotonic() + SHUTDOWN
        while (code := self.process.poll()) is None:
            assert time.monotonic() < give_up_at, self.log
            os.killpg(self.process.pid, signal.SIGTERM)
            time.sleep(0.01)
        assert not [one for one in everyone if one.is_running()]
        return code

    def ask(self, method, path, body=None, headers=(), key=None):
        """Ask for `path` through Heroku's router."""
        return self.request(
            method, path, body, {**ROUTER, **dict(headers)}, key)


def words_of(kind: str) -> list[str]:
    """Return the words of a command of the Procfile."""
    return shlex.split(PROCFILE[kind])
