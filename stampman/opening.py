"""Opening the gateway of a process: the real world, and the config.

Every program begins here: the servers, the workers, the command line.
"""

import gc
import logging
import os
import random
import socket
import sys
import time
from pathlib import Path

import uuid_utils

import stampman
from stampman import logs, sentry
from stampman.gateway import Gateway, Surroundings, load_config
from stampman.helpers import environment as environments
from stampman.helpers.delivery import Clock
from stampman.helpers.environment import Environment
from stampman.helpers.exceptions import ConfigError
from stampman.helpers.turns import turns

log = logging.getLogger(__name__)

_STEADY = getattr(time, 'CLOCK_BOOTTIME', time.CLOCK_MONOTONIC)

last_good = None    # (Environment, Config): a server's forks inherit it


def new_id(now: float) -> str:
    """Return a UUID v7 of the time `now`: ids sort by time."""
    return str(uuid_utils.uuid7(nanoseconds=int(now * 1e9)))


def surroundings() -> Surroundings:
    """Return the real world: clocks, chance, and who we are."""
    chance = random.SystemRandom()
    return Surroundings(
        clock=Clock(time.time, _monotonic, _boot()), chance=chance.random,
        pause=_pause, new_id=new_id,
        owner=f'{socket.gethostname()}:{os.getpid()}')


def _pause(seconds):
    with turns.away:
        time.sleep(seconds)


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


def remember_good() -> Environment:
    """Keep the config if it can be used; raises ConfigError if not."""
    global last_good
    environment = environments.read(os.environ)
    last_good = (environment, load_config(environment))
    return environment


def open_gateway(**log_settings) -> Gateway:
    """Return the gateway of this process's environment and config.

    From here on it is logged to standard error, as `log_settings` say.

    Raises ConfigError with every problem, unless a config was remembered:
    then that one is served, and /readyz says so.
    """
    try:
        environment = environments.read(os.environ)
        config, problem = load_config(environment), ''
    except ConfigError as error:
        if last_good is None:
            raise
        environment, config = last_good
        problem = str(error)
    gateway = Gateway(config, environment, surroundings(),
                      config_problem=problem and (
                          'broken: the last good one is served'))
    logs.setup(sys.stderr, gateway.secrets(), **log_settings)
    logs.log_uncaught()
    if problem:
        log.error('the last good config is served: %s', problem)
    return gateway


def keep_loaded() -> None:
    """Take what is loaded out of the garbage collector's sight.

    It stays until the process ends. Each few hundred messages the collector
    looked through all of it, for some 70 ms in which nobody was served.
    """
    gc.collect()
    gc.freeze()


def start_sentry(gateway: Gateway,
                 earlier: frozenset[str] = frozenset()) -> None:
    """Report errors to where the environment says, if it says so.

    `earlier` are secrets of a config that was in use before.
    """
    sentry.start(gateway.environment.sentry_dsn, stampman.__version__,
                 'production' if gateway.environment.production
                 else 'development', gateway.secrets() | earlier)
