"""The WSGI application: `create_app()`, and `app` for gunicorn.

`gunicorn stampman.main:app` is a whole Stampman: the embedded worker runs in
each process that serves, unless STAMPMAN_WORKER is `off`.
"""

import atexit
import logging
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path

import uuid_utils

import stampman
from stampman import logs, sentry, serving
from stampman.api import create_api
from stampman.gateway import Gateway, Surroundings, load_config
from stampman.helpers import environment as environments
from stampman.helpers.delivery import Clock
from stampman.helpers.exceptions import ConfigError, StoreUnavailable
from stampman.worker import Worker

log = logging.getLogger(__name__)

_STEADY = getattr(time, 'CLOCK_BOOTTIME', time.CLOCK_MONOTONIC)


def new_id(now: float) -> str:
    """Return a UUID v7 of the time `now`: ids sort by time."""
    return str(uuid_utils.uuid7(nanoseconds=int(now * 1e9)))


def surroundings() -> Surroundings:
    """Return the real world: clocks, chance, and who we are."""
    chance = random.SystemRandom()
    return Surroundings(
        clock=Clock(time.time, _monotonic, _boot()), chance=chance.random,
        pause=time.sleep, new_id=new_id,
        owner=f'{socket.gethostname()}:{os.getpid()}')


def _monotonic():
    """Return seconds that all processes of this machine count alike, also
    while it sleeps, where the system tells them."""
    return time.clock_gettime(_STEADY)


def _boot():
    """Return what names this start of the machine, or ''."""
    try:
        return Path('/proc/sys/kernel/random/boot_id').read_text().strip()
    except OSError:
        return ''


def open_gateway(**log_settings) -> Gateway:
    """Return the gateway of this process's environment and config.

    From here on it is logged to standard error, as `log_settings` say.

    Raises ConfigError with every problem, unless an earlier config of this
    server was good: then that one is served, and /readyz says so.
    """
    try:
        environment = environments.read(os.environ)
        config, problem = load_config(environment), ''
    except ConfigError as error:
        if serving.last_good is None:
            raise
        environment, config = serving.last_good
        problem = str(error)
    gateway = Gateway(config, environment, surroundings(),
                      config_problem=problem and (
                          'broken: the last good one is served'))
    logs.setup(sys.stderr, gateway.secrets(), **log_settings)
    logs.log_uncaught()
    if problem:
        log.error('the last good config is served: %s', problem)
    return gateway


def create_app(gateway: Gateway | None = None):
    """Return the Flask app, its worker running.

    `gateway` is by default that of this process's environment. Raises
    ConfigError where the config, the environment or the schema of the store
    cannot be used.
    """
    gateway = gateway or open_gateway()
    sentry.start(gateway.environment.sentry_dsn, stampman.__version__,
                 'production' if gateway.environment.production
                 else 'development', gateway.secrets())
    _check_schema(gateway)
    api = create_api(gateway)
    loader = _gunicorn_worker()
    gateway.deliver_at_most(lambda: _threads(loader) - 2)
    if gateway.environment.worker == 'embedded':
        _embed_worker(gateway)
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
    gunicorn's master, which loads it under --preload, nothing has.
    """
    handler = signal.getsignal(signal.SIGTERM)
    worker = getattr(handler, '__self__', None)
    return worker if hasattr(worker, 'cfg') else None


def _embed_worker(gateway):
    """Run the worker in the process that serves: here, or in its forks."""
    if _gunicorn_worker() is None and 'gunicorn.arbiter' in sys.modules:
        os.register_at_fork(after_in_child=lambda: _start_worker(gateway))
    else:
        _start_worker(gateway)


def _start_worker(gateway):
    worker = Worker(gateway)
    worker.start()
    atexit.register(worker.join, gateway.timing.drain)
    atexit.register(worker.stop)        # runs before the one above
    before = signal.getsignal(signal.SIGTERM)

    def stop(signum, frame):
        worker.stop()
        before(signum, frame)

    if _gunicorn_worker() is not None:
        signal.signal(signal.SIGTERM, stop)


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
