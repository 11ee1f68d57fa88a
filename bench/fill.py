"""Fill a store with messages, through its own tables.

`python -m bench.fill DATABASE_URL --messages 1000000` writes messages that
were accepted over the last days; with `--queued` such as are due now. The
tables must be there (`stampman migrate`). Durability is not waited for: a
store that was being filled when the power went is thrown away.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence

from sqlalchemy import (
    Engine, MetaData, bindparam, create_engine, delete, event, select)

from bench import mail
from stampman.helpers.delivery import (
    Attempt, Kind, Message, Outcome, Recipient, State)
from stampman.helpers.mail import submission
from stampman.store import _rows as rows
from stampman.store import schema
from stampman.store._sqlite import driver

AT_ONCE = 5000          # messages in a transaction
MAILBOXES = 50_000      # recipients that come again and again
DAY = 86400.0
ACCEPTED = Outcome(kind=Kind.accepted, http_status=202,
                   provider_message_id='filled')


def engine_for(url: str) -> Engine:
    """Return an engine for the database of a store."""
    if not url.startswith('sqlite:///'):
        _, _, rest = url.partition('://')
        return create_engine(f'postgresql+psycopg://{rest}')
    engine = create_engine(url, module=driver)

    @event.listens_for(engine, 'connect')
    def hurry(connection, _):
        connection.execute('PRAGMA synchronous=OFF')
        connection.execute('PRAGMA cache_size=-262144')     # KiB
    return engine


class Template:
    """The rows of a message, to be made anew under other ids."""

    def __init__(self, state: State, size: int):
        accepted = state is State.accepted
        fields = dict(mail.EMAIL)
        if size:
            del fields['html']
            fields['content'] = ('Hello. ' * (size // 7 + 1))[:size]
        begun = Attempt(
            id='', service='sendgrid', provider='sendgrid', round=0,
            started_at=0.0)
        message = Message(
            id='', pool=mail.DOMAIN, state=state, created_at=0.0,
            expires_at=0.0, on_uncertain='failover', round=int(accepted),
            recipients=[Recipient(
                email=mail.RECIPIENT, kind='to', status=state.value,
                provider_message_id='filled' if accepted else None)])
        self.state = state
        self.message = rows.message_row(message, None)
        [self.recipient] = rows.recipient_rows(message)
        self.content = rows.content_of(submission(fields).email())
        self.attempt = rows.begun_row(begun, '') | {
            'number': 1, 'kind': Kind.accepted.value, 'resolved': None,
            'outcome': rows.rest_of(ACCEPTED)}

    def of(self, number: int, at: float) -> dict[str, dict]:
        """Return the rows of one message of a time, by table."""
        message_id = new_id(at, 2 * number)
        mailbox = f'someone{number * 7919 % MAILBOXES}@example.org'
        made = {
            'messages': {
                **self.message, 'id': message_id, 'created_at': at,
                'expires_at': at + DAY, 'next_attempt_at':
                at if self.state is State.queued else None},
            'emails': {'message_id': message_id, 'content': self.content},
            'recipients': {**self.recipient, 'message_id': message_id,
                           'email': mailbox, 'mailbox': mailbox}}
        if self.state is State.accepted:
            made['attempts'] = {
                **self.attempt, 'message_id': message_id,
                'id': new_id(at, 2 * number + 1), 'started_at': at,
                'ended_at': at + 0.1}
        return made


def new_id(at: float, number: int) -> str:
    """Return a UUID v7 of a time; numbers tell those of one time apart."""
    digits = f'{int(at * 1000):012x}70008{number:015x}'
    return '-'.join((digits[:8], digits[8:12], digits[12:16], digits[16:20],
                     digits[20:]))


def fill(engine: Engine, messages: int, *, state: State = State.accepted,
         size: int = 0, days: float = 20.0, until: float | None = None
         ) -> Iterator[int]:
    """Write messages of the last `days`, oldest first; give after each
    transaction how many there are.

    `size` is that of their text in bytes; 0 is the bench's own message.
    Those that are queued are all due.
    """
    template = Template(state, size)
    tables = MetaData()
    tables.reflect(engine)      # of an older release, perhaps
    until = time.time() - 3600 if until is None else until
    start = until - days * DAY
    for first in range(0, messages, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, messages))
        made = [template.of(number, start + number * days * DAY / messages)
                for number in numbers]
        with engine.begin() as connection:
            for name, row in made[0].items():
                table = tables.tables[name]
                known = [column for column in row if column in table.c]
                connection.execute(table.insert(), [
                    {column: one[name][column] for column in known}
                    for one in made])
        yield numbers.stop
    if engine.dialect.name == 'postgresql':     # as its autovacuum would
        with engine.begin() as connection:
            connection.exec_driver_sql('ANALYZE')


def forget_waiting(engine: Engine) -> None:
    """Delete what an earlier load has left to be sent."""
    with engine.begin() as connection:
        waiting = schema.messages.select().with_only_columns(
            schema.messages.c.id).where(schema.UNSETTLED)
        ids = connection.execute(waiting).scalars().all()
        for start in range(0, len(ids), 500):
            some = ids[start:start + 500]
            for table in (schema.attachments, schema.emails,
                          schema.recipients, schema.attempts):
                connection.execute(
                    delete(table).where(table.c.message_id.in_(some)))
            connection.execute(delete(schema.messages).where(
                schema.messages.c.id.in_(some)))


def forget_half(engine: Engine) -> None:
    """Delete the content of every other message, in id's order."""
    ids = select(schema.emails.c.message_id).order_by(
        schema.emails.c.message_id)
    with engine.begin() as connection:
        found = connection.execute(ids).scalars().all()[::2]
    for start in range(0, len(found), AT_ONCE):
        with engine.begin() as connection:
            connection.execute(delete(schema.emails).where(
                schema.emails.c.message_id == bindparam('of')),
                [{'of': one} for one in found[start:start + AT_ONCE]])


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('url')
    parser.add_argument('--messages', type=int, default=1_000_000)
    parser.add_argument('--size', type=int, default=0, help='of the text')
    parser.add_argument('--days', type=float, default=20.0)
    parser.add_argument('--queued', action='store_true')
    asked = parser.parse_args(words)
    began = time.monotonic()
    for count in fill(
            engine_for(asked.url), asked.messages, size=asked.size,
            days=asked.days,
            state=State.queued if asked.queued else State.accepted):
        if count % (20 * AT_ONCE) == 0 or count == asked.messages:
            print(f'{count:,} messages, {time.monotonic() - began:.0f} s',
                  flush=True)


if __name__ == '__main__':
    main(sys.argv[1:])
