"""Which services may be tried now: a circuit breaker for each account.

An account rests after failures in a row or too many of them, a long time
where the provider refuses us, and until its time where it throttles us. When
the rest is over one real message at a time tries it, and two successes close
the matter. What is known is shared through the store; a process learns of
it within a second, and writes only when something changes.

The rules are pure functions of a `Condition`; `Health` keeps them.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import NamedTuple

from stampman import backoff
from stampman.helpers.delivery import Clock, Kind, Outcome
from stampman.helpers.exceptions import StoreUnavailable

log = logging.getLogger(__name__)

FAILURES_IN_ROW = 5
WINDOW = 60.0               # seconds over which the share of failures counts
LEAST_CALLS, SHARE = 10, 0.5
# Successes in trial after which it is well; a refusal was probed before.
RECOVERED_AFTER = {'failing': 2, 'refused': 1}
REST = {'failing': (30.0, 600.0), 'refused': (300.0, 3600.0)}   # seconds
LONGEST_PAUSE = 60.0     # seconds, where the provider names no time
LONGEST_WAIT = 3600.0       # seconds, where it names one
TRIAL_LEASE = 120.0         # seconds that one message may take to try
TRIES = 20                  # at a change, against others who change it
FRESH = 1.0                 # seconds for which what was read is believed
FAR = 7200.0                # seconds: no rest and no trial lasts as long


class Condition(NamedTuple):
    """What is known of one account. `why` is '' while it is well."""

    why: str = ''               # `failing`, `refused`, `throttled`
    reason: str = ''
    until: float = 0.0          # rests until this time
    trips: int = 0              # rests since it was last well
    in_row: int = 0
    window: float = 0.0         # when the counts below began
    good: int = 0
    bad: int = 0
    throttles: int = 0
    trial_until: float = 0.0    # a message or a probe tries it until then
    passed: int = 0             # successes in trial
    probed: bool = False        # a refusal's probe has passed

    def rests(self, now: float) -> bool:
        return bool(self.why) and now < self.until

    def on_trial(self, now: float) -> bool:
        """Whether its rest is over, and it must prove itself."""
        return self.why in REST and now >= self.until


_BUT_SUCCESSES = attrgetter(*(
    name for name in Condition._fields if name not in ('good', 'window')))


def with_success(was: Condition, now: float) -> Condition:
    """The condition after a provider took a message."""
    if was.rests(now):
        return was              # begun before the rest: proves nothing
    if was.on_trial(now):
        if was.passed + 1 >= RECOVERED_AFTER[was.why]:
            return Condition()
        return was._replace(passed=was.passed + 1, trial_until=0.0)
    counted = _in_window(was, now)
    return counted._replace(why='', reason='', in_row=0, throttles=0,
                            good=counted.good + 1)


def with_failure(was: Condition, now: float, chance: float,
                 reason: str) -> Condition:
    """The condition after a call that failed."""
    if was.rests(now):
        return was              # begun before the rest: counted already
    if was.on_trial(now):
        return _rested(was, 'failing', now, chance, reason)
    counted = _in_window(was, now)
    counted = counted._replace(in_row=counted.in_row + 1,
                               bad=counted.bad + 1, reason=reason)
    calls = counted.good + counted.bad
    if counted.in_row >= FAILURES_IN_ROW or (
            calls >= LEAST_CALLS and counted.bad >= SHARE * calls):
        return _rested(counted, 'failing', now, chance, reason)
    return counted


def with_refusal(was: Condition, now: float, chance: float,
                 reason: str) -> Condition:
    """The condition after the provider would not serve us."""
    if was.why == 'refused' and was.rests(now):
        return was
    return _rested(was, 'refused', now, chance, reason)


def with_throttle(was: Condition, now: float, wait: float | None,
                  reason: str) -> Condition:
    """The condition after the provider asked for a slower pace."""
    throttles = was.throttles + 1
    wait = min(wait or min(2.0 ** throttles, LONGEST_PAUSE), LONGEST_WAIT)
    return was._replace(
        why=was.why or 'throttled', reason=reason,
        until=max(was.until, now + wait), throttles=throttles,
        trial_until=0.0)


def with_nothing_learnt(was: Condition) -> Condition:
    """The condition after an answer that says nothing of the account."""
    return was._replace(trial_until=0.0)


def within_reach(was: Condition, now: float) -> Condition:
    """The condition without times that a clock which was set back has far
    ahead of it: what lies beyond every rest is over."""
    if max(was.until, was.trial_until) <= now + FAR:
        return was
    return was._replace(**{
        name: 0.0 for name in ('until', 'trial_until')
        if getattr(was, name) > now + FAR})


def _in_window(was, now):
    if abs(now - was.window) < WINDOW:
        return was
    return was._replace(window=now, good=0, bad=0)


def _rested(was, why, now, chance, reason):
    trips = was.trips + 1
    seconds = backoff.rest(trips, *REST[why], chance)
    return Condition(why=why, reason=reason, until=now + seconds,
                     trips=trips)


def keys_of(service) -> tuple[str, str]:
    """Return what a service's health is kept under: its account, and what
    a refusal of its sender's domain rests alone."""
    return service.account, f'{service.account}@{service.domain}'


class Permit(NamedTuple):
    """Leave to call a service once; what came of it goes to `record`."""

    account: str
    for_domain: str     # the key of a refusal of the sender's domain
    trials: tuple[str, ...] = ()    # those that it is the trial of


class Standing(NamedTuple):
    """An account's health, as people are told. `until` is a time."""

    state: str          # `available`, `trial` or `resting`
    until: float | None = None
    reason: str = ''


class Health:
    """The conditions of all accounts, kept in the store."""

    def __init__(self, store, clock: Clock, chance: Callable[[], float],
                 row: Callable, recovered: Callable[[str], None]):
        """`row` makes a HealthRow; `recovered` is told an account's key."""
        self._store = store
        self._clock = clock
        self._chance = chance
        self._row = row
        self._recovered = recovered
        self._lock = threading.Lock()
        self._known = {}            # key: (version, Condition)
        self._read_at = None        # monotonic
        self._good = {}     # key: (window, successes not yet written)

    def permit(self, service) -> Permit | None:
        """Return leave to call `service` once, or None: it rests."""
        keys = keys_of(service)
        now = self._clock.now()
        self._refresh()
        seen = {key: self._read(key) for key in keys}
        if not all(_may_try(condition, now) for _, condition in seen.values()):
            return None
        trials = []
        for key, (version, condition) in seen.items():
            if condition.on_trial(now):
                if not self._try_out(key, version, condition, now):
                    self.release(Permit(*keys, tuple(trials)))
                    return None
                trials.append(key)
        return Permit(*keys, tuple(trials))

    def release(self, permit: Permit) -> None:
        """Take back a permit for which nothing was called."""
        for key in permit.trials:
            self._change(key, with_nothing_learnt)

    def record(self, permit: Permit, outcome: Outcome) -> None:
        """Note what came of a call."""
        if outcome.kind is Kind.refused and outcome.domain_only:
            told = {permit.for_domain: outcome}
        elif outcome.kind is Kind.accepted and not (
                outcome.stalled or outcome.throttled):
            told = {permit.for_domain: outcome, permit.account: outcome}
        else:
            told = {permit.account: outcome}
        for key in (permit.account, permit.for_domain):
            effect = self._effect(told[key]) if key in told else None
            if effect:
                self._change(key, effect)
            elif key in permit.trials:
                self._change(key, with_nothing_learnt)

    def standing(self, service) -> Standing:
        """Return how a service's health is to be told to people."""
        now = self._clock.now()
        self._refresh()
        for key in keys_of(service):
            _, condition = self._read(key)
            if condition.rests(now):
                return Standing('resting', condition.until, condition.reason)
            if condition.on_trial(now):
                return Standing('trial', None, condition.reason)
        return Standing('available')

    def next_free(self, services: Iterable) -> float | None:
        """Return when the first of `services` may be tried; None: now."""
        now = self._clock.now()
        times = []
        for service in services:
            until = max(_free_at(self._read(key)[1])
                        for key in keys_of(service))
            if until <= now:
                return None
            times.append(until)
        return min(times, default=None)

    def probe(self, service) -> None:
        """Probe a service whose refusal has rested, if nobody else does."""
        now = self._clock.now()
        self._refresh()
        for key in keys_of(service):
            version, condition = self._read(key)
            if condition.why == 'refused' and not condition.probed \
                    and _free_at(condition) <= now \
                    and self._try_out(key, version, condition, now):
                self._change(key, self._of_probe(
                    service.probe(), key == service.account))

    def _try_out(self, key, version, condition, now):
        """Take the one place of a trial; say if we have it."""
        return self._put(key, version, condition._replace(
            trial_until=now + TRIAL_LEASE))

    def _effect(self, outcome):
        """Return how `outcome` changes a condition; None: it does not."""
        now, chance = self._clock.now(), self._chance()
        if outcome.kind in (Kind.rejected, Kind.unsupported) \
                or outcome.recipient_only:
            return None
        if outcome.kind is Kind.refused or outcome.stalled:
            return lambda was: with_refusal(was, now, chance, outcome.reason)
        if outcome.throttled:
            return lambda was: with_throttle(
                was, now, outcome.retry_after, outcome.reason)
        if outcome.kind is Kind.accepted:
            return lambda was: with_success(was, now)
        return lambda was: _not_before(
            with_failure(was, now, chance, outcome.reason),
            now, outcome.retry_after)

    def _of_probe(self, result, of_account):
        """The domain of one pool does not keep the account from others."""
        now, chance = self._clock.now(), self._chance()
        if result.ok is False and not (of_account and result.domain_only):
            return lambda was: _rested(
                was, 'refused', now, chance, result.detail)
        return lambda was: was._replace(probed=True, trial_until=0.0)

    def _change(self, key, effect):
        """Apply `effect`, over again where somebody else was faster."""
        for _ in range(TRIES):
            version, was = self._read(key)
            counted = self._with_unwritten(key, was)
            will_be = effect(counted)
            if not _differs(was, will_be):
                if will_be.good > counted.good \
                        or will_be.window != counted.window:
                    self._good[key] = will_be.window, (
                        self._unwritten(key, will_be.window) + 1)
                return
            if self._put(key, version, will_be):
                self._good.pop(key, None)
                self._tell(key, was, will_be)
                return
            self._refresh(at_once=True)
        log.warning('%s changes too fast: a call is not counted', key)

    def _tell(self, key, was, will_be):
        if was.why in REST and not will_be.why:
            log.warning('%s is well again', key)
            self._recovered(key)
        elif will_be.why and will_be.until != was.until:
            log.warning('%s rests: %s', key, will_be.why, extra={
                'reason': will_be.reason, 'seconds': round(
                    will_be.until - self._clock.now(), 1)})

    def _unwritten(self, key, window):
        since, count = self._good.get(key, (window, 0))
        return count if since == window else 0

    def _with_unwritten(self, key, was):
        """Add the successes that were no reason to write."""
        now = self._clock.now()
        since, count = self._good.get(key, (now, 0))
        if now - was.window >= WINDOW and now - since < WINDOW:
            return was._replace(window=since, good=count, bad=0)
        return was._replace(
            good=was.good + self._unwritten(key, was.window))

    def _read(self, key):
        """Return the version and the condition, which belong together."""
        version, condition = self._known.get(key, (0, Condition()))
        return version, within_reach(condition, self._clock.now())

    def _put(self, key, version, condition):
        """Write what follows from `version`, unless somebody else has.

        A store that fails is no reason to forget what this process saw.
        """
        row = self._row(key, version + 1, condition._asdict())
        try:
            written = self._store.put_health(row, self._clock.now())
        except StoreUnavailable as error:
            log.warning('health is not shared: %s', error.detail)
            return self._keep(key, version, version, condition)
        return written and self._keep(key, version, version + 1, condition)

    def _keep(self, key, before, version, condition):
        with self._lock:
            if self._read(key)[0] <= max(before, version - 1):
                self._known[key] = version, condition
        return True

    def _refresh(self, at_once=False):
        with self._lock:
            now = self._clock.monotonic()
            if not at_once and self._read_at is not None \
                    and now - self._read_at < FRESH:
                return
            self._read_at = now
        try:
            rows = self._store.health()
        except StoreUnavailable as error:
            log.warning('health is not read: %s', error.detail)
            return
        with self._lock:
            for key, row in rows.items():
                if row.version > self._read(key)[0]:
                    self._known[key] = row.version, Condition(**row.state)


def _may_try(condition, now):
    """Whether a message may go; who is on trial takes one at a time."""
    if condition.why == 'refused' and not condition.probed:
        return False            # the worker's probe goes first
    return not condition.rests(now) and (
        not condition.on_trial(now) or condition.trial_until <= now)


def _free_at(condition):
    """When it may be tried next; 0 where it may be at any time."""
    return max(condition.until if condition.why else 0.0,
               condition.trial_until)


def _not_before(condition, now, wait):
    """A 503 that names a time rests until then."""
    if not wait:
        return condition
    return condition._replace(
        why=condition.why or 'throttled',
        until=max(condition.until, now + min(wait, LONGEST_WAIT)))


def _differs(was, will_be):
    """Whether there is more to write than one success while well."""
    if was.why or will_be.why or was.in_row or was.throttles:
        return was != will_be
    return _BUT_SUCCESSES(was) != _BUT_SUCCESSES(will_be)
