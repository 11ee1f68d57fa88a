"""How recipients and messages follow what happened to their attempts.

All of it is done in the transaction that writes the event itself.
"""

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, Update

from stampman.helpers import recipients
from stampman.helpers.delivery import (
    Attempt, Kind, Message, Outcome, Recipient, State)
from stampman.store import _reading as reading
from stampman.store import _rows as rows
from stampman.store import _statements as sql
from stampman.store.base import ORPHANED


_GUESS = rows.rest_of(Outcome(kind=Kind.uncertain, reason=ORPHANED))


def orphan(connection: Connection, message_id: str, at: float) -> bool:
    """End an attempt that nobody waits for any more; say if there was one.
    Its own end, if that comes, replaces this one."""
    return bool(connection.execute(sql.ORPHAN, {
        'of': message_id, 'at': at, 'guess': _GUESS}).rowcount)


def answered(connection: Connection, attempt: Attempt,
             message_id: str) -> None:
    """Settle what an accepted attempt replays, and what replays it."""
    connection.execute(sql.REPLAYED, {
        'of': message_id, 'root': attempt.root})


def close(connection: Connection, attempt: Attempt, message_id: str) -> bool:
    """End what has begun since the attempt that proves to be accepted; say
    if there was anything."""
    if not orphan(connection, message_id, attempt.ended_at):
        return False
    answered(connection, attempt, message_id)
    return True


def ended(connection: Connection, attempt: Attempt, message_id: str,
          before: str | None = None) -> None:
    """Write what follows from the end of an attempt, which is written; and
    which had been ended as `before`, where it had been."""
    outcome = attempt.outcome
    if outcome.kind is Kind.accepted and (attempt.replays or before):
        answered(connection, attempt, message_id)
    if recipients.tells_apart(attempt):
        settle(connection, attempt, message_id)
    elif outcome.kind is Kind.accepted:
        if before not in (None, Kind.accepted):
            close(connection, attempt, message_id)
        sql.ACCEPTED.run(connection, {'of': message_id})
        sql.ALL_ACCEPTED.run(connection, {
            'of': message_id, 'theirs': outcome.provider_message_id})
    elif outcome.kind is Kind.uncertain:
        settle(connection, attempt, message_id)
    else:
        connection.execute(sql.RECONSIDER, {
            'of': message_id, 'at': attempt.ended_at})


def follow(connection: Connection, all_others: Update, message_id: str,
           status: State, reason: str,
           whom: Sequence[str] | None = None) -> None:
    """Set the status of the recipients `whom`, or of those that the
    statement `all_others` is for."""
    changes = {'of': message_id, 'becomes': status.value, 'why': reason}
    if whom is None:
        connection.execute(all_others, changes)
    elif whom:
        connection.execute(sql.FOLLOW_ONE, [
            {**changes, 'whom': one.lower()} for one in whom])


def settle(connection: Connection, attempt: Attempt,
           message_id: str) -> None:
    """Write what the end of an attempt settles that tells recipients apart.
    """
    before = _read(connection, message_id)
    after = recipients.settle(before)
    if after.state is State.accepted \
            and close(connection, attempt, message_id):
        after = recipients.settle(_read(connection, message_id))
    _write_changes(connection, before, after)
    if after.state is State.accepted:
        connection.execute(sql.SETTLED, {
            'of': message_id, 'twice': after.possible_duplicate})
    elif attempt.outcome.kind is not Kind.uncertain:
        connection.execute(sql.RECONSIDER, {
            'of': message_id, 'at': attempt.ended_at})


def _read(connection, message_id):
    [row] = sql.CLAIMED.read(connection, {'of': message_id})
    return reading.whole(connection, row)


def conclude(connection: Connection, message: Message, state: State,
             reason: str, others_at: float | None) -> None:
    """Write what a person's word, already on the message and its attempts,
    makes of one whose recipients fared differently."""
    settled = recipients.settle(message)
    _write_changes(connection, message, settled)
    left, status, due = recipients.left(settled), state, None
    if state is State.accepted and left:
        state = status = State.deferred
        due = others_at
    elif state in recipients.ENDED and message.accepted_by:
        state = State.accepted
    else:
        due = message.next_attempt_at
    connection.execute(sql.CONCLUDE, {
        'of': message.id, 'becomes': state.value, 'next': due})
    follow(connection, sql.FOLLOW, message.id, status, reason, left)


def write(connection: Connection, message_id: str,
          fared: Iterable[Recipient]) -> None:
    """Write recipients as they are."""
    connection.execute(sql.SETTLE_ONE, [
        {'of': message_id, 'whom': one.email.lower(),
         'becomes': str(one.status), 'why': one.reason,
         'theirs': one.provider_message_id} for one in fared])


def _write_changes(connection, before, after):
    changed = [is_now for was, is_now
               in zip(before.recipients, after.recipients) if was != is_now]
    if changed:
        write(connection, before.id, changed)
