"""Turns: of the threads of a process, one at a time computes.

Python runs no more than one anyway. But where a hundred want to run, that
right goes from hand to hand at each call of the system, several dozen times
for each email, and the handing over takes more than the work. So who has a
turn keeps it until there is something to wait for: a network, a sync, another
thread.

A turn is a courtesy and no lock, and nothing is made safe by it: who keeps it
too long loses it, so that what blocks without a word stops nobody for long.
"""

import os
import threading
from collections import deque

LONGEST = 0.2       # seconds for which one keeps a turn while others wait


class _Seat:
    """One thread that takes turns."""

    def __init__(self):
        self.away = 0       # how many blocks it is in, one within the other
        self._called = threading.Lock()
        self._called.acquire()

    def wait(self, seconds):
        return self._called.acquire(timeout=seconds)

    def call(self):
        self._called.release()


class _Block:
    """A block of code with something to do before it and after it."""

    def __init__(self, enter, leave):
        self._enter = enter
        self._leave = leave

    def __enter__(self):
        self._enter()

    def __exit__(self, *_):
        self._leave()


class Turns:
    """Blocks for `with`, each of which may be entered by many threads:

    `held`: its thread takes turns with the others that are in it; `away`:
    within it, the thread waits for something, and others may go on; `aside`:
    as `away`, and others wait for this one, so that it is the next at the
    end. Outside of `held` these do nothing.
    """

    def __init__(self, longest: float = LONGEST):
        """`longest` is in seconds."""
        self._longest = longest
        self._mine = threading.local()
        self.held = _Block(self._sit_down, self._stand_up)
        self.away = _Block(self._leave, self._come_back)
        self.aside = _Block(self._leave, self._come_back_first)
        self.start_anew()

    def start_anew(self) -> None:
        """Nobody is there: in a fork only one thread goes on."""
        self._lock = threading.Lock()
        self._holder = None
        self._given = 0         # turns, until now
        self._queue = deque()
        self._mine.seat = None

    @property
    def waiting(self) -> int:
        """How many threads wait for their turn."""
        return len(self._queue)

    # -- of one thread -------------------------------------------------------

    def _seat(self):
        return getattr(self._mine, 'seat', None)

    def _sit_down(self):
        if self._seat() is not None:
            raise RuntimeError('this thread takes turns already')
        self._mine.seat = _Seat()
        self._take(self._mine.seat)

    def _stand_up(self):
        seat, self._mine.seat = self._seat(), None
        if seat is not None:
            self._give(seat)

    def _leave(self):
        if seat := self._seat():
            seat.away += 1
            if seat.away == 1:
                self._give(seat)

    def _come_back(self, first=False):
        if seat := self._seat():
            seat.away -= 1
            if not seat.away:
                self._take(seat, first)

    def _come_back_first(self):
        self._come_back(first=True)

    # -- among them ----------------------------------------------------------

    def _take(self, seat, first=False):
        with self._lock:
            if self._holder is None:
                self._hand_to(seat)
                return
            (self._queue.appendleft if first
             else self._queue.append)(seat)
        try:
            given = self._given
            while not seat.wait(self._longest):
                given = self._hurry(given)
        except BaseException:       # as a signal's, in the main thread
            self._give_up(seat)
            raise

    def _give(self, seat):
        with self._lock:
            if self._holder is seat:
                self._next()

    def _hurry(self, given):
        """Let the next one go on, where no turn was given since there were
        that many; return how many there are."""
        with self._lock:
            if self._given == given:
                self._next()
            return self._given

    def _give_up(self, seat):
        with self._lock:
            if self._holder is seat:
                self._next()
            elif seat in self._queue:
                self._queue.remove(seat)

    def _next(self):
        self._hand_to(self._queue.popleft() if self._queue else None)
        if self._holder is not None:
            self._holder.call()

    def _hand_to(self, seat):
        self._holder = seat
        self._given += 1


turns = Turns()
os.register_at_fork(after_in_child=turns.start_anew)
