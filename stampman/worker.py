"""The worker: delivers what is due, by the code that requests use.

It runs inside every serving process, or beside them. Time knocks at this
door, instead of HTTP.
"""

import logging
import threading

from stampman.gateway import Gateway
from stampman.helpers.exceptions import StoreUnavailable

log = logging.getLogger(__name__)

THREADS = 4


class Worker:
    """Some threads that claim due messages and deliver them."""

    def __init__(self, gateway: Gateway, threads: int = THREADS):
        self.gateway = gateway
        # The rounds wait for no delivery: a large email may take minutes.
        timing = gateway.timing
        works = [(self.make_rounds, timing.rounds),
                 *[(self.step, timing.idle)] * threads]
        self._threads = [
            threading.Thread(target=self._run, args=work, daemon=True,
                             name=f'worker-{number}')
            for number, work in enumerate(works)]
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begin to work, in threads of its own."""
        for thread in self._threads:
            thread.start()
        log.info('the worker %s has started', self.gateway.owner)

    def stop(self) -> None:
        """Claim nothing more; returns at once, and may interrupt anything."""
        self._stopping.set()
        self.gateway.stop()

    def join(self, timeout: float) -> bool:
        """Wait for what is in flight, for so many seconds; say if it is
        done."""
        until = self.gateway.clock.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, until - self.gateway.clock.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def step(self) -> bool:
        """Deliver one due message; say if there was one."""
        return self.gateway.deliver_due(self.gateway.owner)

    def make_rounds(self) -> None:
        """Say that we are alive, probe whom a refusal has rested, and give
        up what need not be kept."""
        gateway = self.gateway
        gateway.store.beat(gateway.owner, gateway.clock.now())
        gateway.probe_refused()
        gateway.prune()

    def _run(self, work, idle):
        """Work until stopped; nothing that breaks ends the thread."""
        while not self._stopping.is_set():
            try:
                busy = work()
            except StoreUnavailable as error:
                log.warning('the worker waits: %s', error.detail)
                busy = False
            except Exception:       # a bug of ours: report it, go on
                log.exception('the worker broke')
                busy = False
            if not busy:
                self._stopping.wait(idle)
