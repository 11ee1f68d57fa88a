"""A process that only works: what `stampman worker` runs.

SIGTERM and SIGINT: it claims nothing more, and ends with 0 when what is in
flight is done, or the time for that is over; a second SIGINT ends it at
once. SIGHUP: it reads the config anew, and keeps the one it has if the new
one is broken. Where a thread of it dies it ends too, with 1.
"""

import logging
import os
import queue
import signal
from collections.abc import Callable

from stampman import logs, running
from stampman.gateway import Gateway
from stampman.helpers.exceptions import StampmanError
from stampman.opening import keep_loaded, open_gateway, start_sentry
from stampman.worker import THREADS, Worker

log = logging.getLogger(__name__)

LOOKS = 0.5     # seconds between looks for signals, at the latest


def work(gateway: Gateway, threads: int = THREADS,
         reopen: Callable[[], Gateway] = open_gateway) -> int:
    """Deliver what is due until a signal ends it; return the exit code.

    `reopen` returns the gateway of a config that was read anew, or raises
    ConfigError. Does not return where a delivery still hangs: then it ends
    the process.
    """
    return _Process(gateway, threads, reopen).run()


class _Process:
    """The main thread: it hears of signals and of threads that end.

    A signal may interrupt it anywhere, so its handlers but note them.
    """

    def __init__(self, gateway, threads, reopen):
        self._threads = threads
        self._reopen = reopen
        self._news = queue.SimpleQueue()    # signals, and workers that end
        self._retired = []                  # workers of earlier configs
        self._worker = self._new_worker(gateway)

    def _new_worker(self, gateway):
        return Worker(gateway, self._threads, self._news.put)

    def run(self):
        self._find_us_by(self._worker.gateway)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, frame:
                          self._news.put(number))
        start_sentry(self._worker.gateway)
        self._worker.start()
        keep_loaded()
        while True:
            news = self._next_news()
            if news in (signal.SIGTERM, signal.SIGINT):
                return self._end(0, interrupted=news == signal.SIGINT)
            if news == signal.SIGHUP:
                self._read_anew()
            elif news and news.broken:
                return self._end(1)
            self._put_away()

    def _next_news(self, patience=LOOKS):
        """Return what there is to know, or None after `patience` seconds.

        A signal that comes just before it waits does not wake it.
        """
        try:
            return self._news.get(timeout=patience)
        except queue.Empty:
            return None

    def _find_us_by(self, gateway):
        config = gateway.environment.config_path
        try:
            running.hold_of_worker(config)
        except OSError as error:
            log.warning('"stampman reload" will not find this worker: '
                        '%s: %s', config.parent, error.strerror)

    def _read_anew(self):
        """Go on with a fresh worker; the old one but ends what it began."""
        old, known = self._worker, self._worker.gateway.secrets()
        try:
            gateway = self._reopen()
            logs.set_secrets(known | gateway.secrets())
            gateway.store.migrate()
        except StampmanError as error:
            log.error('the config is not reloaded: %s', error.told())
            return
        start_sentry(gateway, known)
        old.stop()
        self._retired.append(old)
        self._worker = self._new_worker(gateway)
        self._worker.start()
        log.info('the config is reloaded')

    def _put_away(self):
        """Close the stores of earlier configs that nobody works with."""
        for worker in [*self._retired]:
            if worker.done:
                worker.gateway.store.close()
                self._retired.remove(worker)

    def _end(self, code, interrupted=False):
        """Wait for what is in flight, as long as there is time; return the
        exit code."""
        workers = [self._worker, *self._retired]
        self._worker.stop()
        log.info('the worker stops: %s deliveries are in flight',
                 sum(worker.left for worker in workers))
        clock = self._worker.gateway.clock
        until = clock.monotonic() + self._worker.gateway.timing.drain
        while not all(worker.done for worker in workers):
            news = self._next_news(
                min(LOOKS, max(0.0, until - clock.monotonic())))
            if clock.monotonic() >= until or (
                    news == signal.SIGINT and interrupted):
                break
            interrupted = interrupted or news == signal.SIGINT
        else:
            for worker in workers:
                worker.gateway.store.close()
            log.info('the worker has stopped')
            # Python takes our handlers away before it is at its end.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            return code
        log.warning('the worker ends, and leaves %s deliveries to a rescue',
                    sum(worker.left for worker in workers))
        # What hangs would go on, and break, while Python takes all apart.
        logging.shutdown()
        os._exit(code)
