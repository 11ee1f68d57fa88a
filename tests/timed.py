"""Stampman's processes with another Timing, for tests that cannot wait.

`gunicorn timed:app` serves, `python -m timed worker` works. The environment
variable TIMED holds the fields of a Timing, as JSON. DIES may name a file:
the thread of a worker that can remove it dies.
"""

import json
import os
import sys

from stampman import logs
from stampman.gateway import Gateway, load_config
from stampman.helpers import environment as environments
from stampman.helpers.delivery import Timing
from stampman.opening import surroundings
from stampman.working import work


class Deadly(Gateway):
    """A gateway at which one thread dies, of what nobody catches."""

    def deliver_due(self, owner):
        try:
            os.unlink(os.environ['DIES'])
        except FileNotFoundError:
            return super().deliver_due(owner)
        raise SystemExit('the file is there no more, and nor am I')


def open_timed():
    """Return the gateway of this process; raises ConfigError."""
    environment = environments.read(os.environ)
    kind = Deadly if 'DIES' in os.environ else Gateway
    gateway = kind(load_config(environment), environment,
                   surroundings()._replace(
                       timing=Timing(**json.loads(os.environ['TIMED']))))
    logs.setup(sys.stderr, gateway.secrets())
    logs.log_uncaught()
    return gateway


def __getattr__(name):
    """Make `app` when gunicorn asks for it, in the process that serves."""
    if name != 'app':
        raise AttributeError(name)
    from stampman.main import create_app    # a worker runs without it
    app = globals()['app'] = create_app(open_timed())
    return app


if __name__ == '__main__':
    first = open_timed()
    first.store.migrate()
    sys.exit(work(first, threads=2, reopen=open_timed))
