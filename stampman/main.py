"""The WSGI application: `create_app()`, and `app` for gunicorn.

`gunicorn stampman.main:app` is a whole Stampman: the embedded worker runs in
each process that serves, unless STAMPMAN_WORKER is `off`.
"""

import logging
import os
import signal
import sys

from stampman import logs
from stampman.api import create_api
from stampman.gateway import Gateway
from stampman.helpers.exceptions import ConfigError, StoreUnavailable
from stampman.opening import open_gateway, start_sentry
from stampman.stopping import Stopping
from stampman.worker import Worker

log = logging.getLogger(__name__)


def create_app(gateway: Gateway | None = None):
    """Return the Flask app, its worker running.

    `gateway` is by default that of this process's environment. Raises
    ConfigError where the config, the environment or the schema of the store
    cannot be used.
    """
    gateway = gateway or open_gateway()
    start_sentry(gateway)
    _check_schema(gateway)
    api = create_api(gateway)
    loader = _gunicorn_worker()
    gateway.deliver_at_most(lambda: _threads(loader) - 2)
    if loader is None and _under_gunicorn():
        os.register_at_fork(after_in_child=lambda: _be_a_process(gateway))
    else:
        _be_a_process(gateway, loader)
    return api


def _check_schema(gateway):
    """A store that is away may come back; a schema does not mend itself."""
    try:
        problem = gateway.store.schema_problem()
    except StoreUnavailable as error:
        log.error('the store is not available: %s', error.detail)
        return
    if problem:
        raise ConfigError(errors=[('DATABASE_URL', problem)])


def _threads(loader):
    """Return how many requests this process serves at a time: known when
    the first one comes, since a fork of --preload knows it no earlier."""
    worker = loader or _gunicorn_worker()
    return worker.cfg.threads if worker else 1


def _gunicorn_worker():
    """Return the gunicorn worker that loads us, or None.

    It has set itself as the handler of SIGTERM before it loads the app. In
    gunicorn's master, which loads it under --preload, nothing has; a fork
    of that begins with the master's handler.
    """
    handler = signal.getsignal(signal.SIGTERM)
    worker = getattr(handler, '__self__', None)
    return worker if hasattr(worker, 'alive') else None


def _under_gunicorn():
    return 'gunicorn.arbiter' in sys.modules


def _be_a_process(gateway, loader=None):
    """Start what each process that serves has: here, or in its forks."""
    worker = None
    if gateway.environment.worker == 'embedded':
        worker = Worker(gateway, on_end=_end_if_broken)
        worker.start()
    stopping = Stopping(gateway, worker)
    if loader is not None:
        stopping.heed_signals(loader)
    elif _under_gunicorn():
        stopping.heed(_gunicorn_worker)


def _end_if_broken(worker):
    """Without its worker a process does half its work: gunicorn starts
    another."""
    if worker.broken and _under_gunicorn():
        os.kill(os.getpid(), signal.SIGTERM)


def __getattr__(name):
    """Make `app` when a server asks for it, not when a test imports us."""
    if name != 'app':
        raise AttributeError(name)
    logs.setup(sys.stderr, ())
    try:
        globals()['app'] = create_app()
    except ConfigError as error:
        log.critical(str(error))
        # gunicorn's own code for a worker that cannot start: it gives up.
        raise SystemExit(3) from None
    return globals()['app']
