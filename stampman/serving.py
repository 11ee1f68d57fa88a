"""gunicorn's settings: `gunicorn --config python:stampman.serving …`.

gthread: a request waits for a provider most of its time, so one process
serves many at a time. gunicorn below 26: later ones let one client that
lingers stall the whole process for 2 s.
"""

import fcntl
import logging
import os

from stampman import logs
from stampman.gateway import load_config
from stampman.helpers import environment as environments
from stampman.helpers.exceptions import ConfigError

log = logging.getLogger(__name__)

last_good = None    # (Environment, Config): inherited by each worker's fork


_lock = None        # the pid file, locked for as long as this server lives


def pidfile_of(environment):
    """Return where a server keeps its process id: beside its config."""
    return environment.config_path.with_suffix('.pid')


def running(environment) -> int | None:
    """Return the process id of the server that serves by this config.

    The number in the file proves nothing, its lock does: a process that is
    killed leaves the one, never the other.
    """
    try:
        with open(pidfile_of(environment)) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None
            except BlockingIOError:
                return int(file.read())
    except (OSError, ValueError):
        return None


def _write_pid(environment):
    """Let `stampman reload` find us, if there is nobody else to find."""
    global _lock
    path = pidfile_of(environment)
    try:
        _lock = open(path, 'a')
        fcntl.flock(_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _lock.truncate(0)
        _lock.write(str(os.getpid()))
        _lock.flush()
    except BlockingIOError:
        log.warning('another server serves by this config already: '
                    '"stampman reload" reaches that one')
    except OSError as error:
        log.warning('"stampman reload" will not find this server: %s: %s',
                    path, error.strerror)


def _remember_good():
    """Keep the config if it can be used; raises ConfigError if not."""
    global last_good
    environment = environments.read(os.environ)
    last_good = (environment, load_config(environment))
    return environment


def _environment():
    """Read what the settings below need; what is wrong is told later."""
    try:
        return environments.read(os.environ)
    except ConfigError:
        return None


_found = _environment()
# A dyno's router comes from outside; else a proxy on this machine does.
HOST = '0.0.0.0' if _found and _found.dyno else '127.0.0.1'
bind = f'{HOST}:{_found.port if _found else 8000}'
workers = _found.processes if _found else 1
worker_class = 'gthread'
threads = 32
timeout = 60            # seconds without a sign of life, then it is killed
graceful_timeout = 25   # seconds for requests in flight when it stops
logger_class = logs.gunicorn_logger()
control_socket_disable = True
keepalive = 5           # seconds


def on_starting(server):
    """Check the config before any process is started."""
    try:
        _write_pid(_remember_good())
    except ConfigError as error:
        log.critical(str(error))
        raise SystemExit(1) from None


def on_reload(server):
    """Keep serving the last good config where the new one is broken."""
    try:
        _remember_good()
    except ConfigError as error:
        log.error('the config is not reloaded: %s', str(error))
