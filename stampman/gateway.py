"""The gateway: the store, the pools, their health, built from the config.

One object that the doors hold: the API, the worker and the command line.
"""

import logging
import math
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from stampman import services
from stampman.dispatch import Dispatch
from stampman.health import Health, Standing, keys_of
from stampman.helpers import config as configuration
from stampman.helpers.config import Config, PoolConfig
from stampman.helpers.delivery import Clock, Message, Outcome, State, Timing
from stampman.helpers.environment import Environment, passwords
from stampman.helpers.exceptions import (
    ConfigError, InvalidFields, KeyTaken, NotFound, RequestError,
    StoreUnavailable)
from stampman.helpers.mail import Email, Submission
from stampman.intake import Intake, Taken, idempotency_key, is_due
from stampman.services.base import AbstractEmailService, ProbeResult
from stampman.store import open_store
from stampman.store.base import AbstractStore, Entry, Filter, HealthRow
from stampman.upkeep import Upkeep

log = logging.getLogger(__name__)

WORKER_SILENT = 60.0    # seconds without a beat, then /readyz says so

# A person's acts: from which states, to which, and what else they change.
RETRIED = frozenset({State.rejected, State.failed, State.cancelled})
CANCELLED = frozenset({State.queued, State.deferred})
RESOLVED = frozenset({State.uncertain})


class Pool(NamedTuple):
    """One sending domain with its enabled services, first priority first."""

    domain: str
    config: PoolConfig
    services: tuple[AbstractEmailService, ...]


class Surroundings(NamedTuple):
    """What the outside world is to the gateway: handed in by `main`.

    `chance` returns a number from 0 to 1, `pause` waits for so many
    seconds, `new_id` makes a UUID v7 of a time, `owner` names this process,
    `timing` says how long things may take.
    """

    clock: Clock
    chance: Callable[[], float]
    pause: Callable[[float], None]
    new_id: Callable[[float], str]
    owner: str
    timing: Timing = Timing()


def load_config(environment: Environment) -> Config:
    """Return the config with every service's settings checked.

    Raises ConfigError that names every problem.
    """
    config = configuration.load(
        environment.config_path, environment.variables, _settings_of)
    if environment.production:
        errors = [(f'pools[{number}].services',
                   'in production "capture" alone would send nothing')
                  for number, pool in enumerate(config.pools)
                  if all(service.provider == 'capture'
                         for service in pool.services.values()
                         if service.enabled)]
        if errors:
            raise ConfigError(f'{environment.config_path} is not valid:',
                              errors=errors)
    return config


def _settings_of(provider):
    return services.service_class(provider).Settings


class Slots:
    """Room for so many requests of a process that deliver at a time."""

    def __init__(self, count: Callable[[], int]):
        self._count = count
        self._taken = 0
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Take a place, if there is one; say so."""
        with self._lock:
            free = self._taken < max(1, self._count())
            self._taken += free
            return free

    def give_back(self) -> None:
        with self._lock:
            self._taken -= 1


class Gateway:
    """All of Stampman but its doors."""

    def __init__(self, config: Config, environment: Environment,
                 surroundings: Surroundings,
                 store: AbstractStore | None = None,
                 config_problem: str = ''):
        """`config_problem` says why an older config is still served."""
        self.config = config
        self.environment = environment
        self.config_problem = config_problem
        self.owner = surroundings.owner
        self.clock = surroundings.clock
        self.timing = surroundings.timing
        self._stops_at = math.inf
        self.store = store or open_store(
            environment.database_url, self.clock)
        self.pools: Mapping[str, Pool] = {
            pool.domain: self._pool(pool) for pool in config.pools}
        self.health = Health(
            self.store, self.clock, surroundings.chance, HealthRow,
            self._recovered)
        self._intake = Intake(
            self.store, surroundings.new_id, surroundings.owner, Entry,
            self.clock, surroundings.pause, self.timing)
        self._dispatch = Dispatch(
            self.store, self.health, self.clock, surroundings.chance,
            surroundings.pause, surroundings.new_id, self.timing,
            lambda: self._stops_at)
        self._slots = Slots(lambda: 1)
        # Called with how many messages are stored for the worker.
        self.on_queued: Callable[[int], None] = lambda messages: None
        self.upkeep = Upkeep(self.store, self.clock, config)

    def _pool(self, pool):
        enabled = [(name, settings) for name, settings
                   in pool.services.items() if settings.enabled]
        enabled.sort(key=lambda pair: pair[1].priority)
        return Pool(pool.domain, pool, tuple(
            services.service_class(settings.provider)(
                name, settings, pool.domain, self.clock)
            for name, settings in enabled))

    def deliver_at_most(self, requests: Callable[[], int]) -> None:
        """Let so many requests of a process deliver at a time, at least
        one. It is asked at each of them: a fork may know it late."""
        self._slots = Slots(requests)

    def stop(self) -> None:
        """Begin nothing more that might not be done when the time for what
        is in flight has passed. Returns at once, and may interrupt anything.
        """
        self._stops_at = min(self._stops_at, (
            self.clock.monotonic() + self.timing.drain))

    # -- messages ----------------------------------------------------------

    def send(self, domain: str, submission: Submission, arrived: float,
             key: str | None = None, at_once: bool = True) -> Taken:
        """Store a message, deliver it if it is due and there is room, and
        return it as it is then.

        `arrived` is when the request came, in monotonic seconds; `key` is
        the client's Idempotency-Key. Unless `at_once` it is the worker's.
        Raises what `Intake.submit` raises; once it is stored, nothing.
        """
        pool, slots, now = self.pools[domain], self._slots, self.clock.now()
        key = key and idempotency_key(key, submission)
        until = arrived + self.timing.request
        if at_once and is_due(submission, now) and slots.take():
            try:
                return self._send_now(pool, submission, now, key, until)
            finally:
                slots.give_back()
        taken = self._intake.submit(pool.config, submission, now, key, until)
        self.on_queued(int(not taken.replayed))
        return taken

    def _send_now(self, pool, submission, now, key, until):
        begun = self._intake.begin(pool.config, submission, now, key, until)
        if isinstance(begun, Taken):
            return begun
        try:
            return Taken(self._deliver(
                begun.claim, begun.message, lambda: begun.email, pool, until,
                begun))
        except KeyTaken:        # by a twin, between our look and our commit
            return self._intake.twin(pool.config, now, key)

    def send_batch(self, domain: str, submissions: Mapping[int, Submission],
                   key: str | None = None, unread: Mapping[int, Any] = {}
                   ) -> Mapping[int, Taken | RequestError]:
        """Store several messages in one transaction, for the worker.

        `unread` is the JSON of those of the batch that are no submissions:
        the key is for all of it. Returns what became of each, by its
        position in the batch. Raises what `Intake.submit` raises of all of
        them: then nothing is stored.
        """
        found = self._intake.submit_all(
            self.pools[domain].config, submissions, self.clock.now(),
            key=key and idempotency_key(key, submissions, unread))
        self.on_queued(sum(isinstance(one, Taken) and not one.replayed
                           for one in found.values()))
        return found

    def deliver_due(self, owner: str) -> bool:
        """Claim one due message and deliver it; say if there was one.

        Raises StoreUnavailable where nothing could be claimed.
        """
        now = self.clock.now()
        due = self.store.claim_due(owner, now, now + self.timing.lease)
        for claim, message in due:
            pool = self.pools.get(message.pool) or Pool(
                message.pool, None, ())
            self._deliver(claim, message,
                          lambda: self.store.email(claim.message_id), pool)
        return bool(due)

    def _deliver(self, claim, message, email, pool, until=math.inf,
                 acceptance=None):
        """Deliver, whatever breaks, once the message is stored: it stays so.
        """
        try:
            return self._dispatch.deliver(
                claim, message, email, pool.services, until,
                pool.config.uncertain_wait if pool.config else 0.0,
                acceptance)
        except Exception:       # a bug of ours; the lease runs out
            if acceptance and not acceptance.is_done:
                raise           # nothing was accepted
            log.exception('the delivery broke: left to a rescue',
                          extra={'message_id': message.id})
            return message

    def prove(self, message: Message, attempt_id: str,
              outcome: Outcome) -> None:
        """Take evidence of what became of an attempt, whoever brings it.

        A proof that it was accepted moves the message from any state.
        Raises NotFound where the message has no such attempt.
        """
        for attempt in message.attempts:
            if attempt.id == attempt_id:
                self.store.end(attempt.model_copy(update={
                    'ended_at': self.clock.now(), 'outcome': outcome}),
                    message.id)
                return
        raise NotFound(f'{message.id} has no attempt "{attempt_id}"')

    def message(self, domain: str, message_id: str) -> Message:
        """Return a message of a pool; raises NotFound."""
        return self.store.message(domain, message_id)

    def email(self, domain: str, message_id: str) -> Email:
        """Return the content of a message of a pool; raises NotFound."""
        self.store.message(domain, message_id)
        return self.store.email(message_id)

    def messages(self, domain: str, *, limit: int = 50,
                 **filter) -> tuple[list[Message], bool]:
        """Return messages, newest first, and whether there are more."""
        page, has_more = self.store.page(domain, Filter(**filter), limit)
        return list(page), has_more

    def waiting(self) -> Mapping[tuple[str, State], int]:
        """Return how many messages are not settled, by pool and state."""
        return self.store.waiting()

    # -- a person's acts ---------------------------------------------------

    def retry(self, domain: str, message_id: str) -> Message:
        """Set a rejected, failed or cancelled message going again; what is
        scheduled, at its time."""
        now = self.clock.now()
        due = max(now, self.store.message(domain, message_id).send_at or now)
        life = self.pools[domain].config.expires_after
        return self.store.change(
            domain, message_id, RETRIED, State.queued,
            reason='tried again by a person', next_attempt_at=due,
            restart=True, expires_at=due + life)

    def cancel(self, domain: str, message_id: str) -> Message:
        """Withdraw a message that waits; raises Conflict if it does not."""
        return self.store.change(
            domain, message_id, CANCELLED, State.cancelled,
            reason='cancelled by a person')

    def resolve(self, domain: str, message_id: str,
                verdict: str) -> Message:
        """Settle an uncertain message by a person's word.

        `accepted`: the provider took it; `not_sent`: it did not, the message
        fails; `send_again`: whatever happened, try again.
        """
        now = self.clock.now()
        life = self.pools[domain].config.expires_after
        changes = {
            'accepted': (State.accepted, {
                'resolved': 'accepted', 'others_at': now}),
            'not_sent': (State.failed, {'resolved': 'not_sent'}),
            'send_again': (State.queued, {
                'next_attempt_at': now, 'restart': True,
                'expires_at': now + life})}
        if verdict not in changes:
            raise InvalidFields(errors=[(
                'verdict', f'must be one of: {", ".join(changes)}')])
        state, more = changes[verdict]
        return self.store.change(
            domain, message_id, RESOLVED, state,
            reason=f'a person said: {verdict}', **more)

    def erase(self, domain: str, message_id: str) -> Message:
        """Erase the content and the addresses of a settled message."""
        erased = self.store.erase(domain, message_id, self.clock.now())
        try:
            self.store.drop_traces()
        except StoreUnavailable as error:   # it is erased; a worker goes on
            log.warning('traces are left for a while: %s', error.detail)
        return erased

    # -- health ------------------------------------------------------------

    def health_of(self, domain: str) -> Mapping[str, Standing]:
        """Return how each service of a pool stands."""
        return {service.name: self.health.standing(service)
                for service in self.pools[domain].services}

    def probe_refused(self) -> None:
        """Probe the accounts whose refusal has rested long enough."""
        for pool in self.pools.values():
            for service in pool.services:
                self.health.probe(service)

    def probe(self) -> list[tuple[str, str, ProbeResult]]:
        """Ask every provider about our credentials, without sending."""
        return [(pool.domain, service.name, service.probe())
                for pool in self.pools.values() for service in pool.services]

    def _recovered(self, key):
        """Messages that wait for the account of `key` are due at once."""
        pools = [pool.domain for pool in self.pools.values()
                 if any(key in keys_of(service)
                        for service in pool.services)]
        try:
            self.store.hasten(pools, self.clock.now())
        except StoreUnavailable as error:
            log.warning('messages are not hastened: %s', error.detail)

    def readiness(self) -> tuple[bool, dict]:
        """Say whether messages can be accepted, and what is wrong."""
        try:
            problem = self.store.schema_problem()
            if not problem:
                self.store.check_writable(self.clock.now())
            last_beat = self.store.last_beat()
        except StoreUnavailable as error:
            problem, last_beat = error.detail, None
        details = {'store': problem or 'ok',
                   'config': self.config_problem or 'ok'}
        if not problem:
            silent = last_beat is None or \
                abs(self.clock.now() - last_beat) > WORKER_SILENT
            details['worker'] = 'no worker has been seen for 60 s' \
                if silent else 'ok'
        return not problem, details

    def unserved(self) -> Mapping[tuple[str, State], int]:
        """Return the unsettled messages of pools that are configured no
        more."""
        return {key: count for key, count in self.waiting().items()
                if key[0] not in self.pools}

    def secrets(self) -> frozenset[str]:
        """Return what must never appear in any output."""
        holders = (*self.config.pools, *self.config.admins)
        configured = [service for pool in self.pools.values()
                      for service in pool.services]
        urls = [self.environment.database_url,
                *(service.settings.proxy for service in configured)]
        found = [
            *(key for holder in holders for key in holder.keys),
            *(secret for service in configured for secret in service.secrets),
            *(word for url in urls if url for word in passwords(url)),
            self.environment.secret_key, self.environment.sentry_dsn]
        return frozenset(filter(None, found))


def require_pool(gateway: Gateway, domain: str) -> Pool:
    """Return the pool of a domain; raises NotFound."""
    if domain not in gateway.pools:
        raise NotFound(f'there is no pool for "{domain}"')
    return gateway.pools[domain]
