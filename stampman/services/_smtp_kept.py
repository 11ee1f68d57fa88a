"""Connections to one SMTP server that are kept between messages."""

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable

from stampman.services._smtp import Conversation, Server
from stampman.services._wire import Means

MAX_IDLE = 20       # connections that are kept


class Connections:
    """What the threads of one process share, each connection used by one of
    them at a time; a fork's child makes its own."""

    def __init__(self, server: Server, means: Callable[[], Means]):
        self._server = server
        self._means = means
        self._of_process = {}

    def fresh(self, until: float) -> Conversation:
        """Return a connection that is not open yet; it ends by `until`."""
        return Conversation(self._server, self._mine().means, until)

    def take(self, until: float) -> Conversation | None:
        """Return one that was used just now, or None."""
        mine = self._mine()
        oldest = mine.means.clock.monotonic() - mine.means.idle_limit
        while True:
            with mine.lock:
                kept = mine.idle.pop() if mine.idle else None
            if kept is None:
                return None
            if kept.idle_since > oldest:
                kept.begin(until)
                return kept
            kept.leave()

    def give_back(self, conversation: Conversation) -> None:
        """Keep a connection for the next message."""
        mine = self._mine()
        now = mine.means.clock.monotonic()
        conversation.idle_since = now
        with mine.lock:
            mine.idle.append(conversation)
            while mine.idle and (
                    len(mine.idle) > MAX_IDLE or mine.idle[0].idle_since
                    <= now - mine.means.idle_limit):
                mine.idle.popleft().leave()

    def close(self) -> None:
        """Close all connections that are idle."""
        idle = self._mine().idle
        while idle:
            idle.pop().leave()

    def _mine(self):
        """There is no lock: it could be held while another thread forks."""
        pid = os.getpid()
        if pid not in self._of_process:
            mine = _OfProcess(self._means())
            self._of_process = {pid: self._of_process.setdefault(pid, mine)}
        return self._of_process[pid]


class _OfProcess:
    """The connections of one process; closed when nobody has them more."""

    def __init__(self, means):
        self.means = means
        self.idle = deque()
        self.lock = threading.Lock()
        weakref.finalize(self, _drop_all, self.idle)


def _drop_all(idle):
    """Without a word: in a fork's child they are still the parent's."""
    while idle:
        idle.pop().drop()
