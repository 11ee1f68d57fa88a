"""The connections of one process to a server: few, and none is shared.

Who gives one back hands it to whoever waits longest. No connection may cross
a fork: two would speak at once in one conversation. So all are closed before
a fork, and opened after it.
"""

import threading
from collections import deque
from typing import Any

from stampman.helpers.exceptions import StoreUnavailable
from stampman.helpers.turns import turns
from stampman.store import _forks
from stampman.store.base import RETRY_AFTER


class Pool:
    """At most `most` connections; who wants one waits for `patience`
    seconds at most."""

    def __init__(self, most: int, patience: float):
        self._most = most
        self._patience = patience
        self._start()
        _forks.tell(self)

    def _start(self):
        self._lock = threading.Lock()
        self._nobody_inside = threading.Condition(self._lock)
        self._idle: list[Any] = []
        self._waiting: deque[threading.Lock] = deque()
        self._inside = 0
        self.age = 0            # connections of another one are given up
        self._forking = False

    def take(self) -> Any:
        """Return an idle connection, or None where the caller may open one,
        which is then of this pool's `age`.

        Raises StoreUnavailable where all stay in use.
        """
        with self._lock:
            if self._is_free():
                self._inside += 1
                return self._next()
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        with turns.away:
            in_time = turn.acquire(timeout=self._patience)
        with self._lock:
            if in_time or turn not in self._waiting:
                return self._next()
            self._waiting.remove(turn)
        raise StoreUnavailable(
            'the database is busy: too many wait for a connection',
            retry_after=RETRY_AFTER)

    def give_back(self, connection: Any) -> None:
        """Give back a connection that is as good as new, or None."""
        with self._lock:
            self._inside -= 1
            if connection is not None and connection.age == self.age:
                self._idle.append(connection)
                connection = None
            self._let_in()
            self._nobody_inside.notify_all()
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """Close what is idle now, and the others when they come back."""
        with self._lock:
            closed, self._idle = self._idle, []
            self.age += 1
        for one in closed:
            one.close()

    def _is_free(self):
        return self._inside < self._most and not self._forking \
            and not self._waiting

    def _next(self):
        return self._idle.pop() if self._idle else None

    def _let_in(self):
        """Whoever is let in is inside from now on."""
        while self._waiting and self._inside < self._most \
                and not self._forking:
            self._inside += 1
            self._waiting.popleft().release()

    # -- forks ---------------------------------------------------------------

    def before_fork(self):
        with self._lock:
            self._forking = True
            self._nobody_inside.wait_for(
                lambda: not self._inside, self._patience)
        self.close()

    def after_fork(self):
        with self._lock:
            self._forking = False
            self._let_in()

    def in_child(self):
        """Only the thread that forked lives on. What was in use at the fork
        is neither used nor closed: the parent speaks over it."""
        self._inherited = self._idle
        self._start()
