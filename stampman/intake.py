"""Taking messages in: from here on they are ours to deliver."""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from stampman.helpers.commits import is_done_now
from stampman.helpers.config import DAY, PoolConfig
from stampman.helpers.delivery import (
    Attempt, Claim, Clock, IdempotencyKey, Message, Recipient, State, Timing)
from stampman.helpers.exceptions import (
    CommitUnknown, Forbidden, InvalidFields, KeyTaken, NotFound,
    RequestError, StoreUnavailable)
from stampman.helpers.mail import Email, Submission

log = logging.getLogger(__name__)

LONGEST_LIFE = 30 * DAY     # seconds that a message may ask to be tried
FARTHEST = 30 * DAY         # seconds ahead for which one may be scheduled
LATE = 300.0                # seconds by which `send_at` may have passed
# A commit whose answer is lost: seconds from one question to the next, at
# first and at most, and the part of a request's time that the last may take.
SOON, LATER = 0.05, 1.0
LAST = 0.2


def idempotency_key(text: str, submission: Submission | Mapping[
        int, Submission], unread: Mapping[int, Any] = {}) -> IdempotencyKey:
    """Return what a client calls one submission, or a batch: also those of
    its emails that cannot be read, as their JSON was, tell it from others.
    """
    prints = submission.fingerprint if isinstance(
        submission, Submission) else json.dumps(
        [[*unread.items()], [(position, one.fingerprint) for position, one
                             in submission.items()]], sort_keys=True)
    return IdempotencyKey(_sha256(text), _sha256(prints))


def is_due(submission: Submission, now: float) -> bool:
    """Say whether a submission is to be sent at once."""
    return (submission.send_at is None
            or submission.send_at.timestamp() <= now)


def _sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


class Acceptance:
    """Stores a claimed message when its first attempt begins: both are one
    commit. `is_done` says whether it is stored."""

    def __init__(self, message: Message, email: Email, claim: Claim,
                 add: Callable[[Claim, Attempt | None], None]):
        self.message = message
        self.email = email
        self.claim = claim
        self.is_done = False
        self._add = add

    def store(self, attempt: Attempt | None = None,
              lease_until: float | None = None) -> Claim:
        """Store it, its lease to last until a time if one is given; return
        its claim. Raises what `Intake.submit` does, and KeyTaken."""
        if lease_until is not None:
            self.claim = self.claim._replace(lease_until=lease_until)
        self._add(self.claim, attempt)
        self.is_done = True
        return self.claim


class Taken(NamedTuple):
    """A message that is stored; `replayed`: it was before, under the same
    Idempotency-Key."""

    message: Message
    replayed: bool = False


class Intake(NamedTuple):
    """What taking in needs: a store, and a maker of ids from a time.

    `entry` makes a store's Entry, `pause` waits for so many seconds.
    Where a commit is not answered, it is found out `until` a time (monotonic
    seconds) whether it has happened, or for as long as a request may take.
    """

    store: object
    new_id: Callable[[float], str]
    owner: str              # by whom a message is claimed at once
    entry: Callable
    clock: Clock
    pause: Callable[[float], None]
    timing: Timing = Timing()

    def begin(self, pool: PoolConfig, submission: Submission, now: float,
              key: IdempotencyKey | None = None, until: float = math.inf
              ) -> Acceptance | Taken:
        """Return what stores a message that is the caller's to deliver now;
        or the message that is stored under the key. Raises as `submit`."""
        if earlier := self.stored(pool, now, key):
            return earlier
        message = self._message(pool, submission, now, State.sending)
        email = submission.email()
        return Acceptance(
            message, email, Claim(message.id, self.owner, 1,
                                  now + self.timing.lease),
            lambda claim, attempt: self._add(pool, [self.entry(
                0, message, email, claim, attempt)], key, until))

    def stored(self, pool: PoolConfig, now: float,
               key: IdempotencyKey | None) -> Taken | None:
        """Return the message that is stored under the key of one, if one
        is; raises KeyReused."""
        return self._replayed(pool, key, now).get(0)

    def twin(self, pool: PoolConfig, now: float,
             key: IdempotencyKey) -> Taken:
        """Return what was stored under the key while we tried to."""
        return self._twins(pool, key, now)[0]

    def _twins(self, pool, key, now):
        if earlier := self._replayed(pool, key, now):
            return earlier
        raise StoreUnavailable('a request with the same Idempotency-Key '
                               'failed at the same time', retry_after=1)

    def submit(self, pool: PoolConfig, submission: Submission, now: float,
               key: IdempotencyKey | None = None, until: float = math.inf
               ) -> Taken:
        """Store a message, for a worker, and return it.

        Raises Forbidden for a sender that the pool does not allow,
        InvalidFields for options it cannot have, KeyReused for a key that
        came with something else, TooManyRequests over the pool's rate, and
        StoreUnavailable: then nothing is stored, unless it is CommitUnknown.
        """
        [taken] = self.submit_all(
            pool, {0: submission}, now, key, until).values()
        if isinstance(taken, RequestError):
            raise taken
        return taken

    def submit_all(self, pool: PoolConfig,
                   submissions: Mapping[int, Submission], now: float,
                   key: IdempotencyKey | None = None, until: float = math.inf
                   ) -> Mapping[int, Taken | RequestError]:
        """Store all that can be in one transaction; return by position what
        became of each. Raises as `submit` what is about all of them."""
        earlier = self._replayed(pool, key, now)
        found = {position: self._checked(pool, submission, now)
                 for position, submission in submissions.items()}
        if earlier:
            return _as_then(found, earlier)
        entries = [
            self.entry(position, one.message, submissions[position].email())
            for position, one in found.items() if isinstance(one, Taken)]
        if entries:
            try:
                self._add(pool, entries, key, until)
            except KeyTaken:
                return _as_then(found, self._twins(pool, key, now))
        return found

    def _add(self, pool, entries, key, until):
        """A commit that failed may have happened: then they are ours."""
        latest = self.clock.monotonic() + self.timing.request
        try:
            self.store.add_all(entries, pool.rate, key)
        except CommitUnknown as unknown:
            self._find_out(pool, entries, key, min(until, latest), unknown)
        except StoreUnavailable:
            if not self._is_there(pool.domain, entries[0].message.id):
                raise

    def _find_out(self, pool, entries, key, until, unknown):
        """Store what may be stored until it is known to be.

        The ids stay the same: whichever try succeeds, it is the only one.
        Raises what refuses them, and CommitUnknown at the end of the time.
        """
        ours = pool.domain, entries[0].message.id
        pause = SOON
        last = until - LAST * self.timing.request
        while self.clock.monotonic() + pause < last:
            self.pause(pause)
            pause = min(2 * pause, LATER)
            if is_done_now(
                    lambda: self._is_there(*ours),
                    lambda: self.store.add_all(entries, pool.rate, key)):
                log.warning('a commit was not answered; it is known now')
                return
        raise CommitUnknown(
            f'{unknown.detail}. {_advice(pool, entries, key)}',
            retry_after=key and unknown.retry_after) from unknown

    def _is_there(self, domain, message_id):
        """Whether it is stored; None where nobody can say."""
        try:
            return bool(self.store.message(domain, message_id))
        except NotFound:
            return False
        except StoreUnavailable:
            return None

    def _replayed(self, pool, key, now):
        if key is None:
            return {}
        return {position: Taken(self.store.message(pool.domain, id),
                                replayed=True)
                for position, id in self.store.known(
                    pool.domain, key, now).items()}

    def _checked(self, pool, submission, now):
        try:
            return Taken(self._message(pool, submission, now, State.queued))
        except RequestError as error:
            return error

    def _message(self, pool, submission, now, state):
        if not pool.allows(submission.from_email):
            raise Forbidden(
                f'{submission.from_email} is not an allowed sender of '
                f'{pool.domain}',
                errors=[('from_email', 'is not an allowed sender')])
        errors = []
        send_at = _send_at(submission, now, errors)
        expires_at = _expiry(pool, submission, max(now, send_at or now),
                             errors)
        on_uncertain = _on_uncertain(pool, submission, errors)
        if errors:
            raise InvalidFields(errors=errors)
        claimed = state is State.sending
        return Message(
            id=self.new_id(now), pool=pool.domain, state=state,
            created_at=now, send_at=send_at,
            expires_at=expires_at, on_uncertain=on_uncertain,
            next_attempt_at=None if claimed else max(now, send_at or now),
            recipients=_recipients(submission, state))


def _advice(pool, entries, key):
    """How a client finds out by itself."""
    if key is not None:
        return 'Repeat it with the same Idempotency-Key: it is stored once.'
    return 'Before you repeat it, look for it at ' \
        f'/{pool.domain}/messages/{entries[0].message.id}, in a minute or ' \
        'two. With an Idempotency-Key you could repeat it at once.'


def _as_then(found, earlier):
    """What was refused then is not stored now."""
    refused = InvalidFields(
        'It was refused when it came first under this key.')
    return {position: earlier.get(
        position, one if isinstance(one, RequestError) else refused)
        for position, one in found.items()}


def _recipients(email, status):
    return tuple(
        Recipient(email=address.email, kind=kind, status=status)
        for kind, addresses in (('to', email.recipients), ('cc', email.cc),
                                ('bcc', email.bcc))
        for address in addresses)


def _send_at(submission, now, errors):
    """A client's clock may be a little late, not by a day."""
    if submission.send_at is None:
        return None
    send_at = submission.send_at.timestamp()
    if not now - LATE <= send_at <= now + FARTHEST:
        errors.append((
            'send_at', f'must lie ahead, by {FARTHEST / DAY:.0f} days at '
            'most'))
        return None
    return send_at


def _expiry(pool, submission, due, errors):
    if submission.expires_at is None:
        return due + pool.expires_after
    expires_at = submission.expires_at.timestamp()
    if not due < expires_at <= due + LONGEST_LIFE:
        errors.append((
            'expires_at', 'must lie ahead, also of send_at, by '
            f'{LONGEST_LIFE / DAY:.0f} days at most'))
    return expires_at


def _on_uncertain(pool, submission, errors):
    """A message may be stricter than its pool, not the reverse."""
    wanted = submission.on_uncertain or pool.on_uncertain
    if wanted == 'failover' and pool.on_uncertain == 'hold':
        errors.append((
            'on_uncertain', 'this pool holds: a message cannot ask for '
            '"failover"'))
    return wanted
