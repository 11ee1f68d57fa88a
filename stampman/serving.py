"""gunicorn's settings: `gunicorn --config python:stampman.serving …`.

gthread: a request waits for a provider most of its time, so one process
serves many at a time. gunicorn below 26: later ones let one client that
lingers stall the whole process for 2 s.
"""

import logging
import os

from stampman import logs
from stampman.gateway import load_config
from stampman.helpers import environment as environments
from stampman.helpers.exceptions import ConfigError

log = logging.getLogger(__name__)

last_good = None    # (Environment, Config): inherited by each worker's fork


def pidfile_of(environment):
    """Return where a server keeps its process id: beside its config."""
    return environment.config_path.with_suffix('.pid')


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


def _pidfile():
    """Where `stampman reload` finds us, if that place can be written."""
    path = _found and pidfile_of(_found)
    return str(path) if path and os.access(path.parent, os.W_OK) else None


_found = _environment()
bind = ('0.0.0.0' if 'PORT' in os.environ else '127.0.0.1') + \
    f':{_found.port if _found else 8000}'
workers = _found.processes if _found else 1
worker_class = 'gthread'
threads = 32
timeout = 60            # seconds without a sign of life, then it is killed
graceful_timeout = 25   # seconds for requests in flight when it stops
logger_class = logs.gunicorn_logger()
control_socket_disable = True
keepalive = 5           # seconds
pidfile = _pidfile()


def on_starting(server):
    """Check the config before any process is started."""
    try:
        _remember_good()
    except ConfigError as error:
        log.critical(str(error))
        raise SystemExit(1) from None


def on_reload(server):
    """Keep serving the last good config where the new one is broken."""
    try:
        _remember_good()
    except ConfigError as error:
        log.error('the config is not reloaded: %s', str(error))
