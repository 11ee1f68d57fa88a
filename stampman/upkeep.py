"""What a worker does for messages beside delivering them."""

import logging
import math

from stampman.helpers.config import DAY, Config
from stampman.helpers.delivery import Clock

log = logging.getLogger(__name__)

# Small ones, between which others may write, for each look of a worker: what
# a busy service stores in ten seconds is given up in less.
PRUNE_STEPS = 500
SHRINK_STEPS = 50       # 20 MB of a file
LONGEST_WAIT = 7200.0   # seconds; a rest takes 72 min, a delay 15 at most
BETWEEN_LOOKS = 600.0   # seconds between looks for what waits longer


class Upkeep:
    """Gives up what need not be kept, and brings back what was mislaid."""

    def __init__(self, store, clock: Clock, config: Config):
        self._store = store
        self._clock = clock
        self._days = {'bodies': config.keep_bodies,
                      'messages': config.keep_messages}
        self._pruned = {}               # how far it has come, by what
        self._looks_at = -math.inf      # monotonic seconds

    def prune(self) -> None:
        """Give up what need not be kept, for one look of a worker."""
        now, store = self._clock.now(), self._store
        store.forget_keys(now)
        for what, forget in (('bodies', store.forget_bodies),
                             ('messages', store.forget_messages)):
            for _ in range(PRUNE_STEPS):
                self._pruned[what] = forget(
                    now, self._days[what] * DAY, self._pruned.get(what, ''))
                if not self._pruned[what]:
                    break
        store.drop_traces()
        for _ in range(SHRINK_STEPS):
            if not store.shrink():
                break

    def bring_back(self) -> None:
        """Make due what would wait longer than anything does.

        Looks once in ten minutes: it passes all that is scheduled.
        """
        if self._clock.monotonic() < self._looks_at:
            return
        found = self._store.bring_back(self._clock.now(), LONGEST_WAIT)
        self._looks_at = self._clock.monotonic() + BETWEEN_LOOKS
        if found:
            log.warning('the clock was set back: %s messages that would have '
                        'waited for hours or years are due', found)
