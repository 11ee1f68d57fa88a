"""gunicorn's settings: `gunicorn --config python:stampman.serving …`.

gthread: a request waits for a provider most of its time, so one process
serves many at a time; those that compute take turns (helpers/turns.py), so
that it does not matter how many they are. gunicorn below 26: later ones let
one client that lingers stall the whole process for 2 s.
"""

import logging
import os
import signal

from gunicorn.workers import gthread

from stampman import logs, opening, running
from stampman.helpers import environment as environments
from stampman.helpers.exceptions import ConfigError

log = logging.getLogger(__name__)


def _write_pid(environment):
    """Let `stampman reload` find us, if there is nobody else to find."""
    path = running.of_server(environment.config_path)
    try:
        if not running.hold(path):
            log.warning('another server serves by this config already: '
                        '"stampman reload" reaches that one')
    except OSError as error:
        log.warning('"stampman reload" will not find this server: %s: %s',
                    path, error.strerror)


class ThreadWorker(gthread.ThreadWorker):
    """gunicorn's, but told to stop it looks each second for clients that do
    nothing but keep their connection; else one holds it until the end."""

    def wait_for_and_dispatch_events(self, timeout):
        super().wait_for_and_dispatch_events(min(timeout, 1.0))

    def set_accept_enabled(self, enabled):
        """Who connects while we stop is turned away at once, by a server
        that is not there any more; else the system would let them wait."""
        super().set_accept_enabled(enabled)
        if not self.alive:
            for listener in self.sockets:
                listener.close()


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
worker_class = ThreadWorker
threads = 128           # requests at a time, while a provider takes long
timeout = 60            # seconds without a sign of life, then it is killed
graceful_timeout = 25   # seconds; each process ends itself after 20 s
logger_class = logs.gunicorn_logger()
control_socket_disable = True
# A client may send SCRIPT_NAME too, through a proxy that passes it on, such as
# Heroku's: gunicorn would answer 500. STAMPMAN_PUBLIC_URL may have a path.
forwarder_headers = ''
# Seconds. Whoever is in front must hang up first, else a request may meet a
# connection that we just close: Heroku's router does after 90.
keepalive = 100 if _found and _found.dyno else 5


def on_starting(server):
    """Check the config before any process is started."""
    try:
        _write_pid(opening.remember_good())
    except ConfigError as error:
        log.critical(str(error))
        raise SystemExit(1) from None


def on_reload(server):
    """Keep serving the last good config where the new one is broken."""
    try:
        opening.remember_good()
    except ConfigError as error:
        log.error('the config is not reloaded: %s', str(error))


def post_worker_init(worker):
    """Called in each process that serves, when the app is loaded."""
    opening.keep_loaded()


def on_exit(server):
    """Exit with 0 though told again, as Heroku may: Python takes gunicorn's
    handlers away before it is at its end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
