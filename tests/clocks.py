"""A machine's two clocks, and stores that count leases on the steady one."""

import pytest

from stampman.helpers.delivery import Clock

from backends import NOW

HOUR, DAY, YEAR = 3600.0, 86400.0, 365.25 * 86400


class Machine:
    """A wall clock that may jump, and one that counts from the boot on."""

    def __init__(self):
        self.now = NOW
        self.steady = 5000.0
        self.boot = 'the first boot'

    @property
    def clock(self):
        """The clock of a process that is started now."""
        return Clock(lambda: self.now, lambda: self.steady, self.boot)

    def pass_by(self, seconds):
        self.now += seconds
        self.steady += seconds

    def jump(self, seconds):
        self.now += seconds

    def start_anew(self):
        self.steady = 3.0
        self.boot = 'another boot'


@pytest.fixture
def machine():
    return Machine()


@pytest.fixture
def process(migrated, tmp_path):
    """Return a function that opens the store of each backend as another
    process does, with a clock or without."""
    open_store, opened = migrated(tmp_path), []

    def open_one(clock=None):
        opened.append(open_store(clock=clock))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()
