"""How a process that serves stops: in time, whatever hangs in it.

gunicorn waits for requests, and only then Python for the worker; both, and
what hangs in them, share the time of one drain here.
"""

import atexit
import contextlib
import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from stampman.gateway import Gateway
from stampman.worker import Worker

log = logging.getLogger(__name__)

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
LOOKS = 0.05    # seconds between looks whether gunicorn was told to stop


class Stopping:
    """Ends this process when it is told, with 0, in the time of a drain.

    `served_by` is the gunicorn worker that we are. SIGTERM, SIGINT and
    SIGQUIT all do the same; a second SIGINT ends it at once.
    """

    def __init__(self, gateway: Gateway, worker: Worker | None):
        self._gateway = gateway
        self._worker = worker
        self._told = queue.SimpleQueue()    # the numbers of signals
        atexit.register(self._finish)

    def heed_signals(self, served_by: Any) -> None:
        """Listen to signals ourselves; called by the main thread.

        That may be in a call which no signal interrupts, and hear of it late
        (a sync worker's delivers): the bytes of a pipe are read at once.
        """
        for number in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, served_by.handle_exit)
        ours, told_by = os.pipe()
        os.set_blocking(told_by, False)
        theirs = signal.set_wakeup_fd(told_by, warn_on_full_buffer=False)
        self._begin(self._listen, ours, theirs)
        if not served_by.alive:         # it was told while it began
            self._told.put(signal.SIGTERM)
        self._begin(self._end_in_time)
        log.info('the process %s serves', os.getpid())

    def _listen(self, ours, theirs):
        while True:
            numbers = os.read(ours, 256)
            with contextlib.suppress(BlockingIOError):
                os.write(theirs, numbers)
            for number in numbers:
                if number in STOPS:
                    self._told.put(number)

    def heed(self, find: Callable[[], Any]) -> None:
        """Watch the gunicorn worker that `find` returns, or None as yet: in
        a fork of --preload nothing of ours is called when it has begun."""
        def watch():
            while (served_by := find()) is None or served_by.alive:
                time.sleep(LOOKS)
            self._told.put(signal.SIGTERM)
            self._end_in_time()

        self._begin(watch)
        log.info('the process %s serves', os.getpid())

    def _begin(self, target, *args):
        threading.Thread(target=target, args=args, daemon=True,
                         name='stopping').start()

    def _end_in_time(self):
        interrupts = self._told.get() == signal.SIGINT
        self._stop()
        log.info('the process %s stops, and begins nothing that takes longer '
                 'than %s s', os.getpid(), self._gateway.timing.drain)
        clock = self._gateway.clock
        until = clock.monotonic() + self._gateway.timing.drain
        while interrupts < 2:
            try:
                interrupts += signal.SIGINT == self._told.get(
                    timeout=max(0.0, until - clock.monotonic()))
            except queue.Empty:
                break
        self._leave()

    def _stop(self):
        self._gateway.stop()
        if self._worker:
            self._worker.stop()

    def _finish(self):
        """No request is left; the worker may still deliver."""
        self._stop()
        if self._worker:    # the other thread ends us before this has passed
            self._worker.join(self._gateway.timing.drain + 1)
        self._gateway.store.close()     # the last one puts its log away

    def _leave(self):
        log.warning('the time to stop is over: what requests do is left to '
                    'a rescue, and %s deliveries of the worker',
                    self._worker.left if self._worker else 0)
        # What hangs would go on, and break, while Python takes all apart.
        logging.shutdown()
        os._exit(0)
