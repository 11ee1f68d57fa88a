"""The contract of a store: where messages live, and the queue they are.

Every method is one transaction, but for `hasten` and `bring_back`, which are
several. It is durable when it returns: what was written survives a power cut.
Where the store cannot be read or written a method raises StoreUnavailable,
and then nothing of it has happened: or CommitUnknown, where the answer to
its commit is lost. Then it may have happened, or may yet.

Times are seconds since the epoch, UTC; the caller brings them. A lease is
told as a time too, and counted from the caller's `now` (of an attempt that
begins: its `started_at`, of a new message without one: its `created_at`) on a
clock of the store's own, which no jump of a machine's wall clock moves.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from stampman.helpers.delivery import (
    Attempt, Claim, IdempotencyKey, Message, Recipient, State)
from stampman.helpers.mail import Email

RETRY_AFTER = 2         # seconds a client is told to wait for the store
ORPHANED = 'the process ended before the answer was recorded'
UNSETTLED = frozenset({
    State.queued, State.sending, State.deferred, State.uncertain})


class Entry(NamedTuple):
    """A message to be stored, by its position in a batch.

    With an `attempt` that one has begun under the `claim`, when it is stored.
    """

    position: int
    message: Message
    email: Email
    claim: Claim | None = None
    attempt: Attempt | None = None


class Claimed(NamedTuple):
    """A message that is ours to deliver, with all its attempts."""

    claim: Claim
    message: Message


class Filter(NamedTuple):
    """Which messages of a pool to list; None does not filter.

    `recipient` is an address, compared without regard to case. `since`
    (inclusive) and `until` (exclusive) are times of creation, `after` is the
    id of the last message of the page before.
    """

    state: State | None = None
    recipient: str | None = None
    since: float | None = None
    until: float | None = None
    after: str | None = None


class HealthRow(NamedTuple):
    """One account's health as stored; what `state` means is health.py's."""

    key: str
    version: int
    state: Mapping[str, Any]


class AbstractStore(ABC):
    """One store, shared by any number of threads and processes.

    It is opened after a fork: no connection is made before the first call.
    """

    # -- its own state ---------------------------------------------------

    @abstractmethod
    def migrate(self) -> bool:
        """Bring the schema up to date, under a lock; say if it was behind.

        Makes the database where there is none; nothing else does. Raises
        StoreUnavailable, and changes nothing, where the database is
        damaged, another program's, or of a newer Stampman.
        """

    @abstractmethod
    def schema_problem(self) -> str:
        """Return why this program cannot use the schema, or ''.

        The text says what to do.
        """

    @abstractmethod
    def check_writable(self, now: float) -> None:
        """Write something; raises StoreUnavailable where that fails."""

    @abstractmethod
    def close(self) -> None:
        """Give up all connections; the store opens again when it is used."""

    # -- the message's way -------------------------------------------------

    @abstractmethod
    def add(self, message: Message, email: Email,
            claim: Claim | None = None, rate: float | None = None,
            key: IdempotencyKey | None = None) -> None:
        """Store a message, its recipients (from `message`) and its email.

        Its id is a UUID v7 made of its `created_at`: the order of ids is the
        order of time. With a `claim` it is stored as claimed by it:
        `message.state` is then `sending`, and else it is not. With a `rate`,
        in messages per second, TooManyRequests is raised with `retry_after`
        where the pool has stored more than that; a pool may store one
        second's worth (at least one message) at once. With a `key`, KeyTaken
        is raised where something is stored under it, KeyReused where that
        was something else, and KeyBusy where it is just being stored and
        was waited for.
        """

    @abstractmethod
    def add_all(self, entries: Sequence[Entry], rate: float | None = None,
                key: IdempotencyKey | None = None) -> None:
        """Store messages of one pool together, at least one, or none.

        As `add`; several may be more than the rate allows at once: those
        that come later then wait the longer.
        """

    @abstractmethod
    def known(self, pool: str, key: IdempotencyKey,
              now: float) -> Mapping[int, str]:
        """Return the ids of the messages stored under `key` in the last 24
        hours, by position; {} where there are none. Raises KeyReused."""

    @abstractmethod
    def claim_due(self, owner: str, now: float, lease_until: float,
                  limit: int = 1) -> Sequence[Claimed]:
        """Claim what is due at `now`, the longest due first.

        Due is a waiting message (`queued`, `deferred`, `uncertain`) whose
        `next_attempt_at` has come, and a `sending` one whose lease has run
        out: that one is rescued. An attempt it had begun is ended as
        `uncertain` with the reason ORPHANED, and `crashes` is one more. A
        claimed message is `sending`, has no `next_attempt_at`, and its fence
        is one more than before. No two callers get the same message. One
        that this program cannot read is put aside for an hour, and logged.
        """

    @abstractmethod
    def begin(self, claim: Claim, attempt: Attempt, lease_until: float,
              possible_duplicate: bool = False) -> Claim:
        """Write that `attempt` begins, and extend the lease to that time.

        Returns the extended claim. `possible_duplicate` is set on the
        message where True. Raises LeaseLost, and writes nothing, where the
        message is not `sending` under this claim's fence any more.
        """

    @abstractmethod
    def end(self, attempt: Attempt, message_id: str,
            claim: Claim | None = None) -> bool:
        """Write how `attempt` ended (`ended_at` and `outcome`).

        The attempt is its writer's, whoever holds the lease now; an outcome
        written by a rescue gives way to it. Evidence does not: returns
        False, and writes nothing, where the attempt is known to be accepted
        and would not be any more, or known to have ended otherwise and
        would be `uncertain`. Where it is `accepted`, the
        message is `accepted` from whatever state, with no lease and no
        `next_attempt_at`, and so are all its recipients, with the
        provider's message id; a person's word on the attempt falls. Where
        the attempt tells recipients apart, they and the message become what
        `helpers.recipients.settle` says. Where the message is not
        `accepted` by that and the outcome not `uncertain`, a message that
        is `uncertain` is due, so that it is concluded anew. Where an attempt
        that tells recipients apart had an end (by a rescue), who holds the
        lease now knows too little: the fence turns it away, unless it holds
        the `claim` of the writer. A replay that is accepted settles what it
        replays. Raises NotFound where the attempt never began.
        """

    @abstractmethod
    def finish(self, claim: Claim, state: State, *, round: int,
               next_attempt_at: float | None = None, reason: str = '',
               recipients: Sequence[Recipient] | None = None,
               uncertain: int | None = None) -> bool:
        """Give the message back in `state`, with no lease.

        `recipients` are written as they are; where they are None, those
        that are neither `accepted` nor `rejected` take the state as their
        status, and the reason. Raises LeaseLost, and writes
        nothing, where the claim does not hold any more; so it is after the
        end of an accepted attempt, which leaves nothing to finish. Returns
        False, and writes nothing, where the conclusion rests on so many
        `uncertain` attempts, and they are not as many any more.
        """

    @abstractmethod
    def change(self, pool: str, message_id: str, expected: Iterable[State],
               state: State, *, reason: str = '',
               resolved: str | None = None,
               next_attempt_at: float | None = None,
               restart: bool = False,
               expires_at: float | None = None,
               others_at: float | None = None) -> Message:
        """Apply a person's act: move a message from `expected` to `state`.

        What is None stays, but `next_attempt_at`, which is set as given.
        `resolved` is written on every uncertain attempt without one; a
        `restart` leaves all attempts so far behind (`restarted_after`) and
        sets `crashes` to 0. Recipients follow as in `finish`; those that
        were `rejected` too where an ended message is restarted. A message
        that a provider took for some of its recipients is `accepted` where
        it would have ended otherwise; where the word `accepted` leaves
        somebody, it is `deferred` to the time `others_at`. Returns the
        message as it is then. Raises NotFound where the pool has no such
        message, and Conflict where its state is another one, or where it
        is to be restarted and its content is not kept any more.
        """

    @abstractmethod
    def hasten(self, pools: Iterable[str], now: float) -> int:
        """Make due now the messages of `pools` that are `deferred`, or
        `uncertain` and to be tried again; say how many."""

    @abstractmethod
    def bring_back(self, now: float, ahead: float) -> int:
        """Make due now the messages that would wait for more than `ahead`
        seconds, and not for their `send_at`; say how many.

        None does, unless the clock was set back.
        """

    # -- giving up -------------------------------------------------------

    @abstractmethod
    def forget_bodies(self, now: float, age: float, after: str = '') -> str:
        """Erase the content of a few settled messages that were due `age`
        seconds ago or earlier.

        It looks at the next few behind the id `after`. Returns the last id
        it looked at, to go on from, or '' at the end. An age is that by
        both clocks: a jump of the wall's makes nothing older.
        """

    @abstractmethod
    def forget_messages(self, now: float, age: float,
                        after: str = '') -> str:
        """Delete a few such messages, with all that belongs to them."""

    @abstractmethod
    def forget_keys(self, now: float) -> None:
        """Forget the Idempotency-Keys that are older than 24 hours."""

    @abstractmethod
    def erase(self, pool: str, message_id: str, now: float) -> Message:
        """Erase the content and the addresses of a settled message.

        Its recipients are then called `erased-1` and so on. Returns the
        message as it is then. Raises NotFound, and Conflict where the
        message is not settled.
        """

    @abstractmethod
    def drop_traces(self) -> bool:
        """Drop what the storage still holds of what was erased; say if
        nobody was in the way. Nobody waits for it: call it again."""

    @abstractmethod
    def shrink(self) -> bool:
        """Give some of the room back that deleted messages took, where that
        is much; say if there was so much, and call it again."""

    # -- what is known ---------------------------------------------------

    @abstractmethod
    def message(self, pool: str, message_id: str) -> Message:
        """Return a message with attempts (oldest first) and recipients.

        Raises NotFound where the pool has none such.
        """

    @abstractmethod
    def email(self, message_id: str) -> Email:
        """Return the content of a message; raises NotFound."""

    @abstractmethod
    def page(self, pool: str, filter: Filter = Filter(),
             limit: int = 50) -> tuple[Sequence[Message], bool]:
        """Return messages of a pool, newest first, and if there are more.

        They come without attempts and recipients. A page is exact as of the
        moment it is read; messages made later never shift the pages after.
        """

    @abstractmethod
    def waiting(self) -> Mapping[tuple[str, State], int]:
        """Return how many messages of each pool are in each state that is
        not settled."""

    # -- what processes share --------------------------------------------

    @abstractmethod
    def health(self) -> Mapping[str, HealthRow]:
        """Return the health of every account that ever had trouble."""

    @abstractmethod
    def put_health(self, row: HealthRow, now: float) -> bool:
        """Write `row` if the stored version is one less than `row.version`
        (a first version is 1); say if it was."""

    @abstractmethod
    def beat(self, owner: str, now: float) -> None:
        """Note that the worker `owner` was alive at `now`."""

    @abstractmethod
    def last_beat(self) -> float | None:
        """Return when a worker was last known to be alive."""
