"""Group commit: what several threads write at a time shares one sync.

A sync costs more than all the statements of a message. Who comes while
nobody writes leads: it runs what waits, one call after the other, in one
transaction, and commits for all. Who comes meanwhile waits, and the first of
them leads next. So one client alone waits for nobody, no thread is needed,
and the more there are, the fewer syncs each one costs.
"""

import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from sqlalchemy import Connection

from stampman.helpers.exceptions import StoreUnavailable
from stampman.helpers.turns import turns
from stampman.store._databases import Result, Work
from stampman.store.base import RETRY_AFTER

MOST = 64       # calls in a transaction: others may want to write, too

Block = Callable[[], AbstractContextManager[Connection]]


class Undone(Exception):
    """The whole transaction is, not a part alone; the cause says why."""


class _Call:
    """What one thread wants written, and what came of it."""

    def __init__(self, work):
        self.work = work
        self.result = self.error = None
        self.leads = self.done = False
        self._news = threading.Lock()
        self._news.acquire()

    def wait(self, seconds):
        """Wait until something is told; say if it was."""
        with turns.away:
            return self._news.acquire(timeout=seconds)

    def tell(self):
        self._news.release()

    def fail(self, error):
        """Take the error of the whole group: what a member found, and failed
        by, may have been another's that is undone now."""
        self.error = error


class GroupCommit:
    """Runs calls in transactions of one connection, several in each.

    `transaction` is a block that begins one, and commits it at its end, or
    undoes it and raises; `part` is a block within it that can be undone
    alone. A call waits for at most `patience` seconds for its turn.
    """

    def __init__(self, transaction: Block,
                 part: Callable[[Connection], AbstractContextManager],
                 patience: float):
        self._transaction = transaction
        self._part = part
        self._patience = patience
        self._waiting = deque()
        self._lock = threading.Lock()
        self._is_led = False

    def run(self, work: Work) -> Result:
        """Return what `work` returns, when it is committed.

        Raises what it raises; then nothing of it is written. Raises what
        befell the transaction of the group, too, and StoreUnavailable where
        its turn does not come.
        """
        call = _Call(work)
        with self._lock:
            self._waiting.append(call)
            call.leads, self._is_led = not self._is_led, True
        if not call.leads:
            self._wait(call)
        if call.leads:
            self._lead()
        if call.error is not None:
            raise call.error
        return call.result

    def _wait(self, call):
        """Until it is done, or leads."""
        try:
            if call.wait(self._patience):
                return
            with self._lock:
                late = not call.leads and call in self._waiting
                if late:
                    self._waiting.remove(call)
            if late:
                raise StoreUnavailable('the database is busy: too many wait '
                                       'for their turn to write',
                                       retry_after=RETRY_AFTER)
            call.wait(-1)       # it is being done: that is known soon
        except BaseException:   # as a signal's: nobody waits any more
            self._give_up(call)
            raise

    def _give_up(self, call):
        with self._lock:
            if call in self._waiting:
                self._waiting.remove(call)
        if call.leads and not call.done:
            self._pass_on()

    def _lead(self):
        group = []
        try:
            with self._transaction() as connection:
                group = self._take()
                self._run(group, connection)
        except BaseException as error:
            for call in group or (group := self._take()):
                call.fail(_for_others(error))
            if not isinstance(error, Exception):
                raise
        finally:
            self._pass_on()
            for call in group:
                call.done = True
                if not call.leads:
                    call.tell()

    def _take(self):
        with self._lock:
            return [self._waiting.popleft()
                    for _ in range(min(MOST, len(self._waiting)))]

    def _run(self, group, connection):
        if len(group) == 1:         # the whole transaction is its own
            group[0].result = group[0].work(connection)
            return
        for call in group:
            try:
                with self._part(connection):
                    call.result = call.work(connection)
            except Undone as undone:
                raise undone.__cause__
            except Exception as error:
                call.error = error

    def _pass_on(self):
        """Let the first of those who wait lead, if there is one."""
        with self._lock:
            self._is_led = bool(self._waiting)
            if self._is_led:
                self._waiting[0].leads = True
                self._waiting[0].tell()


def _for_others(error: BaseException) -> Any:
    """What ends one thread is not the others' to end by."""
    return error if isinstance(error, Exception) else StoreUnavailable(
        'the transaction was given up', retry_after=RETRY_AFTER)
