"""The worker: delivers what is due, by the code that requests use.

It runs inside every serving process, or beside them. Time knocks at this
door, instead of HTTP.
"""

import logging
import math
import threading
from collections.abc import Callable

from stampman.gateway import Gateway
from stampman.helpers.exceptions import StoreUnavailable
from stampman.helpers.turns import turns

log = logging.getLogger(__name__)

THREADS = 4


class Worker:
    """Some threads that claim due messages and deliver them."""

    def __init__(self, gateway: Gateway, threads: int = THREADS,
                 on_end: Callable[['Worker'], None] = lambda worker: None):
        """`on_end` is called by each thread as its last act."""
        self.gateway = gateway
        self.broken = False     # whether a thread was ended by what it did
        self.left = 0           # deliveries that are in flight
        self._on_end = on_end
        self._stops_at = math.inf       # monotonic seconds
        self._stopping = threading.Event()
        self._bell = threading.Condition()
        self._rings = 0         # how many threads should look at once
        # The rounds wait for no delivery, and for no probe: each may hang.
        works = [(self.make_rounds, self._rest),
                 (gateway.probe_refused, self._rest),
                 *[(self._counted_step, self._wait_for_ring)] * threads]
        self._threads = [
            threading.Thread(target=self._run, args=work, daemon=True,
                             name=f'worker-{number}')
            for number, work in enumerate(works)]
        self._running = len(works)
        self._steps = threads

    def start(self) -> None:
        """Begin to work, in threads of its own."""
        self.gateway.on_queued = self.wake
        for thread in self._threads:
            thread.start()
        log.info('the worker %s has started', self.gateway.owner)

    def stop(self) -> None:
        """Claim nothing more; returns at once. For the time of a drain what
        is in flight may go on."""
        clock, drain = self.gateway.clock, self.gateway.timing.drain
        self._stops_at = min(self._stops_at, clock.monotonic() + drain)
        self._stopping.set()
        self.gateway.stop()
        with self._bell:
            self._bell.notify_all()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for what is in flight, for so many seconds, or until the
        drain is over; say if it is done."""
        clock = self.gateway.clock
        until = (self._stops_at if timeout is None
                 else clock.monotonic() + timeout)
        for thread in self._threads:
            thread.join(max(0.0, until - clock.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def done(self) -> bool:
        """Whether all its threads have come to their end."""
        return not self._running

    def wake(self, messages: int = 1) -> None:
        """Look at once: so many messages have become due."""
        with self._bell:
            self._rings = min(self._rings + messages, self._steps)
            self._bell.notify(messages)

    def step(self) -> bool:
        """Deliver one due message; say if there was one."""
        return self.gateway.deliver_due(self.gateway.owner)

    def make_rounds(self) -> None:
        """Say that we are alive, bring back what a clock that was set back
        would keep waiting, and give up what need not be kept."""
        gateway = self.gateway
        gateway.store.beat(gateway.owner, gateway.clock.now())
        gateway.upkeep.bring_back()
        gateway.upkeep.prune()

    def _run(self, work, wait):
        """Work until stopped; nothing that breaks ends the thread, but what
        would end the process."""
        try:
            while not self._stopping.is_set():
                if not self._works(work):
                    wait()
        except BaseException:
            self.broken = True
            log.critical('a thread of the worker ends', exc_info=True)
        finally:
            with self._bell:
                self._running -= 1
            self._on_end(self)

    def _counted_step(self):
        with self._bell:
            self.left += 1
        try:
            return self.step()
        finally:
            with self._bell:
                self.left -= 1

    def _works(self, work):
        try:
            with turns.held:
                return work()
        except StoreUnavailable as error:
            log.warning('the worker waits: %s', error.detail)
        except Exception:       # a bug of ours: report it, go on
            log.exception('the worker broke')
        return False

    def _rest(self):
        self._stopping.wait(self.gateway.timing.rounds)

    def _wait_for_ring(self):
        with self._bell:
            self._bell.wait_for(
                lambda: self._rings or self._stopping.is_set(),
                self.gateway.timing.idle)
            self._rings = max(0, self._rings - 1)
