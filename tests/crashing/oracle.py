"""The judge of every crash test: was anything lost, or doubled unseen?

It compares three books that know nothing of one another: what the simulated
providers took (the ledger), what the store says, and what the clients were
told. The invariants are those of the design, by their numbers.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from stampman.helpers.delivery import Message, State, must_hold
from stampman.helpers.exceptions import NotFound
from stampman.helpers.mail import Email
from stampman.simulator.ledger import Entry
from stampman.store.base import Filter

ENDS = {State.accepted, State.rejected, State.failed, State.cancelled}
NOT_TAKEN = {State.rejected, State.failed, State.cancelled}
UNKNOWN = 504       # the status of an answer that tells nothing
PAGE = 100


class Told(NamedTuple):
    """What a client was told of one request to send.

    `subject` belongs to one email alone, however often a client tries to
    send it. `status` is None where no answer came. `valid` says whether a
    provider would take it; a `canary` was sent when all was well again.
    """

    pool: str
    subject: str
    status: int | None = None
    id: str | None = None
    state: str | None = None
    key: str | None = None
    valid: bool = True
    canary: bool = False

    @property
    def refused(self) -> bool:
        """Whether the client was told that nothing was stored."""
        return self.status not in (None, UNKNOWN) and self.id is None


class Stored(NamedTuple):
    """A message as the store has it; `email` is None where it has none."""

    message: Message
    email: Email | None

    @property
    def held(self) -> bool:
        """Whether it visibly waits for a person or for evidence."""
        message = self.message
        return (message.state is State.uncertain
                and message.next_attempt_at is None
                and bool(message.reason) and bool(must_hold(message)))


class History(NamedTuple):
    """The three books at the end of a test."""

    told: Sequence[Told]
    ledger: Sequence[Entry]
    stored: Sequence[Stored]

    @property
    def by_id(self) -> dict[str, Stored]:
        return {one.message.id: one for one in self.stored}

    @property
    def by_subject(self) -> dict[str, list[Stored]]:
        return _grouped(self.stored, lambda one: (
            one.email.subject if one.email else ''))

    @property
    def taken(self) -> Counter:
        """How often each message was taken, by all providers together."""
        return Counter(entry.stampman_id for entry in self.ledger)

    def figures(self) -> dict[str, int]:
        """Return what a person wants to know of a long test."""
        messages = [one.message for one in self.stored]
        twice = [message for message in messages
                 if self.taken[message.id] > 1]
        return {
            'sent': len({told.subject for told in self.told}),
            'acknowledged': len({told.id for told in self.told} - {None}),
            'stored': len(messages), 'taken': len(self.ledger),
            'doubled and marked': sum(
                message.possible_duplicate for message in twice),
            'held': sum(one.held for one in self.stored)}


def read(store, pools: Iterable[str]) -> list[Stored]:
    """Return all messages of the pools, whole."""
    found = []
    for pool in pools:
        ids, more = [], True
        while more:
            page, more = store.page(
                pool, Filter(after=ids[-1] if ids else None), PAGE)
            ids += [message.id for message in page]
        found += [Stored(store.message(pool, id), _email(store, id))
                  for id in ids]
    return found


def _email(store, id):
    try:
        return store.email(id)
    except NotFound:
        return None


def _grouped(items, key):
    groups = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def violations(history: History) -> list[str]:
    """Return what is broken, each with the number of its invariant."""
    return [f'{number}: {told}' for number, rule in RULES
            for told in rule(history)]


def _acknowledged_is_there(history):
    by_id = history.by_id
    for told in history.told:
        if told.id is None:
            if told.status is not None and not 400 <= told.status < 500 \
                    and told.status not in (503, UNKNOWN):
                yield f'{told.subject} was answered {told.status}'
            continue
        stored = by_id.get(told.id)
        if stored is None or stored.message.pool != told.pool:
            yield f'a client was told of {told.id}, which is not there'
        elif told.state == State.accepted != stored.message.state:
            yield f'{told.id} was accepted, and is {stored.message.state}'


def _all_ends(history):
    for one in history.stored:
        if one.message.state not in ENDS and not one.held:
            yield (f'{one.message.id} is left {one.message.state}, next at '
                   f'{one.message.next_attempt_at}: {one.message.reason!r}')


def _refused_is_not_stored(history):
    by_subject = history.by_subject
    for subject, tries in _grouped(
            history.told, lambda told: told.subject).items():
        if all(told.refused for told in tries):
            for one in by_subject.get(subject, ()):
                yield f'{subject} was refused, and stored as {one.message.id}'


def _hold_at_most_once(history):
    for one in history.stored:
        times = history.taken[one.message.id]
        if one.message.on_uncertain == 'hold' and times > 1:
            yield f'{one.message.id} is to be held, and was taken {times} x'


def _end_is_true(history):
    for one in history.stored:
        message, times = one.message, history.taken[one.message.id]
        if message.state in NOT_TAKEN and times:
            yield f'{message.id} is {message.state}, but was taken'
        if message.state is State.accepted:
            by = message.accepted_by
            if by is None or not any(
                    entry.stampman_attempt == by.id
                    and entry.provider == by.provider
                    for entry in history.ledger):
                yield f'{message.id} is accepted, but nobody took it'


def _one_for_a_key(history):
    for subject, found in history.by_subject.items():
        if subject and len(found) > 1:
            yield f'{subject} is stored {len(found)} times'
    keyed = [told for told in history.told if told.key and told.id]
    for (pool, key), tries in _grouped(
            keyed, lambda told: (told.pool, told.key)).items():
        if len({told.id for told in tries}) > 1:
            yield f'the key {key} of {pool} stands for several messages'


def _canaries_live(history):
    by_id = history.by_id
    for told in history.told:
        if told.canary:
            stored = by_id.get(told.id)
            if stored is None or stored.message.state is not State.accepted:
                yield f'{told.subject} is not sent, though all is well'


def _journal_came_first(history):
    by_id = history.by_id
    seen = Counter(entry.stampman_attempt for entry in history.ledger)
    for entry in history.ledger:
        stored = by_id.get(entry.stampman_id)
        attempts = stored.message.attempts if stored else ()
        attempt = next((one for one in attempts
                        if one.id == entry.stampman_attempt), None)
        if attempt is None:
            yield (f'{entry.provider} took {entry.stampman_id}/'
                   f'{entry.stampman_attempt}, which no journal has')
        elif attempt.started_at > entry.time:
            yield f'{attempt.id} was taken before the journal had it'
        if seen[entry.stampman_attempt] > 1:
            yield f'{entry.stampman_attempt} was called more than once'


def _failover_delivers(history):
    invalid = {told.subject for told in history.told if not told.valid}
    for one in history.stored:
        message = one.message
        if message.on_uncertain == 'failover' and one.email \
                and one.email.subject not in invalid \
                and message.state is not State.accepted and not one.held:
            yield f'{message.id} fails over, and is {message.state}'


def _doubles_are_marked(history):
    for one in history.stored:
        times = history.taken[one.message.id]
        if times > 1 and not one.message.possible_duplicate:
            yield f'{one.message.id} was taken {times} times, unmarked'


def _no_attempt_beside_another(history):
    """One that began while another had no end knew of it: it is marked."""
    for one in history.stored:
        message = one.message
        for attempt in message.attempts:
            if attempt.outcome is None or attempt.ended_at is None:
                yield f'the attempt {attempt.id} is open'
        for first, then in zip(message.attempts, message.attempts[1:]):
            open_then = first.ended_at is None \
                or then.started_at < first.ended_at
            if open_then and not (message.possible_duplicate
                                  and message.on_uncertain == 'failover'):
                yield f'{then.id} began while {first.id} was open'


def _nothing_is_half(history):
    for one in history.stored:
        message, email = one.message, one.email
        if email is None:
            yield f'{message.id} has no email'
        elif Counter(to.email for to in message.recipients) != Counter(
                to.email for to in email.everyone):
            yield f'{message.id} has not the recipients of its email'
        if message.state in ENDS and any(
                to.status not in ENDS for to in message.recipients):
            yield f'{message.id} is {message.state}, some recipients are not'
    known = history.by_id
    for entry in history.ledger:
        stored = known.get(entry.stampman_id)
        if stored and {to.email for to in entry.recipients} != {
                to.email for to in stored.message.recipients}:
            yield f'{entry.stampman_id} was taken for other recipients'


RULES = (
    ('I1', _acknowledged_is_there), ('I1', _all_ends),
    ('I1', _refused_is_not_stored), ('I2', _hold_at_most_once),
    ('I3', _end_is_true), ('I4', _one_for_a_key), ('I5', _canaries_live),
    ('I6', _journal_came_first), ('I7', _failover_delivers),
    ('I7', _doubles_are_marked), ('I8', _no_attempt_beside_another),
    ('whole', _nothing_is_half))
