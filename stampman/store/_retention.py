"""Giving up what need not be kept, in a transaction that is open.

What is still to be sent is never touched. Ids are in the order of time: a
step looks at the next few that are old enough, whatever becomes of them, so
that no step is long.
"""

from sqlalchemy import Connection, Select

from stampman.helpers.delivery import Attempt, Message
from stampman.store import _rows as rows
from stampman.store import _statements as sql

STEP = 10       # messages; each may have 20 MB of attachments


def forget_bodies(connection: Connection, before: float, after: str) -> str:
    """Erase the content of settled messages that were due before a time.

    Looks at those behind the id `after`; returns the last id it looked at,
    or '' where there are no more.
    """
    settled, last = _step(connection, sql.OLD_EMAILS, before, after)
    for statement in (sql.FORGET_ATTACHMENTS, sql.FORGET_EMAIL):
        if settled:
            connection.execute(statement, settled)
    return last


def forget_messages(connection: Connection, before: float,
                    after: str) -> str:
    """Delete settled messages, with all that belongs to them; as above."""
    settled, last = _step(connection, sql.OLD_MESSAGES, before, after)
    if settled:
        connection.execute(sql.FORGET_MESSAGE, settled)
    return last


def _step(connection, old: Select, before, after):
    found = connection.execute(old, {
        'after': after, 'high': rows.first_id(int(before * 1000)),
        'most': STEP}).all()
    settled = [{'of': id} for id, is_settled, due in found
               if is_settled and due < before]
    return settled, found[-1].id if len(found) == STEP else ''


def erase(connection: Connection, message: Message, at: float) -> None:
    """Erase the content and the addresses of a message; its story stays."""
    of = {'of': message.id}
    for statement in (sql.FORGET_ATTACHMENTS, sql.FORGET_EMAIL):
        connection.execute(statement, of)
    instead = {one.email: f'erased-{number}' for number, one
               in enumerate(message.recipients, 1)}
    connection.execute(sql.ERASE_RECIPIENT, [
        {**of, 'whom': old.lower(), 'instead': new}
        for old, new in instead.items()])
    for attempt in message.attempts:
        connection.execute(sql.ERASE_ATTEMPT, {
            **of, 'one': attempt.id,
            **_without_addresses(attempt, instead)})
    connection.execute(sql.ERASED, {**of, 'at': at})


def _without_addresses(attempt, instead):
    outcome, whom = attempt.outcome, attempt.envelope
    return {
        'rest': outcome and rows.rest_of(_renamed(outcome, instead)),
        'whom': whom and rows.envelope_of(
            [instead.get(one, 'erased') for one in whom])}


def unnamed(attempt: Attempt) -> Attempt:
    """Return an attempt without the addresses of its recipients: they
    fared differently still, but who fared how is not known."""
    return attempt.model_copy(update={
        'outcome': _renamed(attempt.outcome, {})})


def _renamed(outcome, instead):
    return outcome.model_copy(update={'recipients': tuple(
        one.model_copy(update={'email': instead.get(one.email, 'erased')})
        for one in outcome.recipients)})
