"""What is done most often, each in one statement that changes several tables.

Where the database is another process, each statement is a journey there and
back, and costs more than what it does: a statement that is a transaction by
itself is one journey, where the same as a transaction of several is six.
"""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    Double, bindparam, cast, column, extract, func, insert, select, update)
from sqlalchemy.dialects.postgresql import JSON

from stampman.helpers.delivery import Attempt, Claim, Kind
from stampman.helpers.recipients import tells_apart
from stampman.store import _statements as sql
from stampman.store._adding import Prepared
from stampman.store._hot import Hot
from stampman.store._lease_clock import ServerClock
from stampman.store._rows import begun_row
from stampman.store.schema import (
    Text, attempts, emails, messages, recipients)

_M, _A = messages.c, attempts.c
# By the server's time, unless the caller brings it.
LEASE_END = func.coalesce(
    bindparam('until', type_=Double),
    cast(extract('epoch', func.clock_timestamp()), Double)
    + bindparam('lasts', type_=Double))

# -- taking in ---------------------------------------------------------------

_MESSAGE = insert(messages).values(
    {one.name: bindparam(one.name) for one in messages.columns}
    | {'lease_until': LEASE_END}).cte('message')
_EMAIL = insert(emails).values(
    message_id=bindparam('id'), content=bindparam('content')).cte('email')
_ATTEMPT = insert(attempts).values(
    {name: bindparam(f'begun_{name}') for name in sql.BEGUN}
    | {'message_id': bindparam('id'), 'number': 1}).cte('attempt')
_THEIRS = [one for one in recipients.columns if one.name != 'message_id']
_ROW = func.json_to_recordset(
    cast(bindparam('recipients', type_=Text), JSON)).table_valued(
    *(column(one.name, one.type) for one in _THEIRS)).render_derived(
    with_types=True)
_RECIPIENTS = insert(recipients).from_select(
    ['message_id', *(one.name for one in _THEIRS)],
    select(bindparam('id', type_=Text), *(
        _ROW.c[one.name] for one in _THEIRS)))

# A message without attachments; one that is attempted at once.
ADD = Hot(_RECIPIENTS.add_cte(_MESSAGE, _EMAIL))
ADD_BEGUN = Hot(_RECIPIENTS.add_cte(_MESSAGE, _EMAIL, _ATTEMPT))

# -- on its way --------------------------------------------------------------

_HELD = sql.EXTEND.statement.values(
    lease_until=LEASE_END).returning(_M.id).cte(
    'held')
# Nobody but its holder begins an attempt: the number is the next one.
BEGIN = Hot(insert(attempts).from_select(
    ['message_id', 'number', *sql.BEGUN],
    select(_HELD.c.id, sql.NEXT, *(
        bindparam(name, type_=attempts.c[name].type) for name in sql.BEGUN))))

# The message's row is locked before the attempt's, as everywhere. While an
# attempt is open nobody begins another, and the first has none before it: so
# nothing else of the message need be read, and what is read cannot be old.
_LOCKED = select(_M.id).where(
    _M.id == bindparam('of'), _M.erased_at.is_(None)).with_for_update().cte(
    'locked')
_ENDED = update(attempts).where(
    sql.THE_ATTEMPT, _A.message_id == _LOCKED.c.id, _A.kind.is_(None),
    _A.number == 1).values(sql.ENDS).returning(_A.message_id).cte('ended')
_ACCEPTED = sql.ALL_ACCEPTED.statement.where(
    recipients.c.message_id == _ENDED.c.message_id).cte('everybody')
# The first attempt of a message is accepted, for all its recipients.
END_ACCEPTED = Hot(update(messages).where(
    _M.id == _ENDED.c.message_id).values(**sql.IS_ACCEPTED).add_cte(
    _ACCEPTED))


class Combined:
    """A store's hot methods, each as one statement, on a `database` that
    runs one by `write_one`.

    `clock` says what a lease's end is counted on.
    """

    def __init__(self, database: Any, clock: ServerClock):
        self._database = database
        self._clock = clock

    def add(self, prepared: Prepared) -> None:
        """Store one message that has no attachments."""
        [message], [email] = prepared.messages, prepared.emails
        lasts = message['lease_until'] and (
            message['lease_until'] - prepared.told_at[0])
        values = {
            **message, **self._clock.ends(prepared.told_at[0], lasts),
            'content': email['content'],
            'recipients': json.dumps(prepared.recipients)}
        for attempt in prepared.attempts:
            values |= {f'begun_{name}': attempt[name] for name in sql.BEGUN}
        self._run(ADD_BEGUN if prepared.attempts else ADD, values)

    def begin(self, claim: Claim, attempt: Attempt, lease_until: float,
              possible_duplicate: bool) -> bool:
        """Write that an attempt begins; say if the claim holds."""
        now = attempt.started_at
        return self._run(BEGIN, {
            **begun_row(attempt, claim.message_id),
            **self._clock.ends(now, lease_until - now),
            'of': claim.message_id, 'held_fence': claim.fence,
            'twice': possible_duplicate})

    def end(self, end: Mapping[str, Any], attempt: Attempt) -> bool:
        """Write how an attempt ended, and what follows from it, by the
        values of its end; say if this was the way to do it."""
        return (attempt.outcome.kind is Kind.accepted
                and not attempt.replays and not tells_apart(attempt)
                and self._run(END_ACCEPTED, {
                    **end, 'theirs': attempt.outcome.provider_message_id}))

    def _run(self, statement, values):
        return bool(self._database.write_one(
            lambda connection: statement.run(connection, values).rowcount))
