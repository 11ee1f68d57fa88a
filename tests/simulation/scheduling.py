"""Virtual time, and who runs next: one at a time, by one seed.

A task is a greenlet. It runs until it waits; what runs then is what is due
first. All else that happens (a provider decides, a fault comes) is a plain
call at a time.
"""

import heapq
import itertools
import random
from collections.abc import Callable
from typing import Any

import greenlet

from stampman.helpers.delivery import Clock

START = 1_800_000_000.0     # seconds since the epoch
UPTIME = 5_000.0            # seconds by which the machine is older


class Killed(BaseException):
    """Raised in a task whose process is dead: it unwinds, and does nothing.

    No `except Exception` of shipped code catches it, and whatever its
    `finally` asks of the world raises it again.
    """


class Task:
    """One thread of a process, or one that belongs to nobody."""

    def __init__(self, name: str, process: Any, run: Callable[[], Any]):
        self.name = name
        self.process = process
        self.asks = ''              # what of the store
        self.greenlet = greenlet.greenlet(run)

    @property
    def is_dead(self) -> bool:
        return self.process is not None and not self.process.alive


class Scheduler:
    """The hub that all tasks switch to when they wait."""

    def __init__(self, seed: str):
        self.random = random.Random(seed)
        self.time = 0.0             # virtual seconds since the run began
        self.jumped = 0.0           # by how much the wall clock is wrong
        self._latest = START        # that the wall clock showed by a jump
        self.boot, self._booted_at = 1, -UPTIME
        self.current = None
        self._heap = []
        self._order = itertools.count()
        self._hub = greenlet.getcurrent()

    # -- clocks --------------------------------------------------------------

    def wall(self) -> float:
        return START + self.time + self.jumped

    def monotonic(self) -> float:
        return self.time - self._booted_at

    def clock(self) -> Clock:
        """Return the clock of a process that starts now."""
        return Clock(self.wall, self.monotonic, f'boot-{self.boot}')

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or back; the other does not move."""
        self._latest = self.latest_wall()
        self.jumped += seconds

    def latest_wall(self) -> float:
        """Return the latest time that the wall clock has ever shown."""
        return max(self._latest, self.wall())

    def reboot(self) -> None:
        """Start the monotonic clock anew; all processes must be dead."""
        self.boot += 1
        self._booted_at = self.time

    # -- tasks ---------------------------------------------------------------

    def spawn(self, name: str, process: Any, run: Callable[[], Any],
              after: float = 0.0) -> None:
        """Run a task from so many seconds on; its death is its end."""
        def until_killed():
            try:
                run()
            except Killed:
                return
        self._push(after, Task(name, process, until_killed))

    def call(self, after: float, what: Callable[[], Any]) -> None:
        """Call `what` in so many seconds, in no task: it must not wait."""
        self._push(after, what)

    def wait(self, seconds: float) -> None:
        """Let others run for so many seconds; raises Killed in the dead."""
        task = self.current
        self._push(seconds, task)
        self._hub.switch()
        if task.is_dead:
            raise Killed

    def _push(self, seconds, what):
        heapq.heappush(self._heap, (
            self.time + seconds, next(self._order), what))

    # -- the hub -------------------------------------------------------------

    def run(self, until: float, done: Callable[[], bool] = lambda: False
            ) -> bool:
        """Run to a time, or until `done` says so; say whether it did."""
        while self._heap and self._heap[0][0] <= until:
            self.time, _, what = heapq.heappop(self._heap)
            if not isinstance(what, Task):
                what()
            elif not what.is_dead and what.process is not None \
                    and what.process.frozen_until > self.time:
                self._push(what.process.frozen_until - self.time, what)
            else:
                self.current = what
                what.greenlet.switch()
                self.current = None
            if done():
                return True
        self.time = max(self.time, until)
        return done()

    def end(self) -> None:
        """Unwind every task that is left; all processes must be dead."""
        while self._heap:
            what = heapq.heappop(self._heap)[2]
            if isinstance(what, Task) and what.greenlet:
                self.current = what
                what.greenlet.throw(Killed)
                self.current = None
