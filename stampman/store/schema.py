"""The tables. Portable SQL: every backend has these, and only these.

Times are seconds since the epoch, UTC. An id is a UUID v7 as text, so the
order of ids is the order of time. What lists and claims read is in
`messages`; bodies and attachments lie apart.
"""

from sqlalchemy import (
    Boolean, CheckConstraint, Column, Double, ForeignKey, Index, Integer,
    LargeBinary, MetaData, Table, text)
from sqlalchemy import Text as AnyText

# The revision in migrations/versions that makes these tables.
HEAD = '0003'

metadata = MetaData(naming_convention={
    'pk': 'pk_%(table_name)s',
    'ck': 'ck_%(table_name)s_%(constraint_name)s',
    'fk': 'fk_%(table_name)s_%(column_0_name)s'})

# Rows are small, and found by their key: SQLite keeps them in its B-tree.
_SMALL = {'sqlite_with_rowid': False}

# Compared by bytes, as SQLite does: a server's collations change with its
# system, and with them the order that an index was made in.
Text = AnyText().with_variant(AnyText(collation='C'), 'postgresql')

# Two invariants that claims rest on: only what waits is due, and exactly
# what is being sent has a lease.
WAITS = "next_attempt_at IS NULL OR state IN ('deferred', 'queued', " \
        "'uncertain')"
LEASED = "(state = 'sending') = (lease_until IS NOT NULL)"
UNSETTLED = text("state IN ('deferred', 'queued', 'sending', 'uncertain')")


def _of_message(**options):
    return Column('message_id', Text, ForeignKey(
        'messages.id', ondelete='CASCADE'), nullable=False, **options)


messages = Table(
    'messages', metadata,
    Column('id', Text, primary_key=True),
    Column('pool', Text, nullable=False),
    Column('state', Text, nullable=False),
    Column('created_at', Double, nullable=False),
    Column('expires_at', Double, nullable=False),
    Column('on_uncertain', Text, nullable=False),
    Column('round', Integer, nullable=False),
    Column('next_attempt_at', Double),
    Column('restarted_after', Integer, nullable=False),
    Column('crashes', Integer, nullable=False),
    Column('possible_duplicate', Boolean, nullable=False),
    Column('reason', Text, nullable=False),
    Column('leased_by', Text),
    Column('lease_until', Double),
    Column('fence', Integer, nullable=False),
    Column('send_at', Double),
    Column('erased_at', Double),
    CheckConstraint(WAITS, name='waits'),
    CheckConstraint(LEASED, name='leased'),
    **_SMALL)

Index('ix_messages_due', messages.c.next_attempt_at,
      sqlite_where=messages.c.next_attempt_at.is_not(None),
      postgresql_where=messages.c.next_attempt_at.is_not(None))
Index('ix_messages_run_out', messages.c.lease_until,
      sqlite_where=messages.c.lease_until.is_not(None),
      postgresql_where=messages.c.lease_until.is_not(None))
Index('ix_messages_unsettled', messages.c.pool, messages.c.state,
      sqlite_where=UNSETTLED, postgresql_where=UNSETTLED)
Index('ix_messages_pool_state', messages.c.pool, messages.c.state,
      messages.c.id)
Index('ix_messages_pool', messages.c.pool, messages.c.id)

# The content but its attachments' bytes, as JSON.
emails = Table(
    'emails', metadata, _of_message(primary_key=True),
    Column('content', Text, nullable=False))

attachments = Table(
    'attachments', metadata, _of_message(primary_key=True),
    Column('position', Integer, primary_key=True),
    Column('content', LargeBinary, nullable=False))

# `mailbox` is the address in lower case, by which people look for it.
recipients = Table(
    'recipients', metadata, _of_message(primary_key=True),
    Column('position', Integer, primary_key=True),
    Column('kind', Text, nullable=False),
    Column('email', Text, nullable=False),
    Column('mailbox', Text, nullable=False),
    Column('status', Text, nullable=False),
    Column('reason', Text, nullable=False),
    Column('provider_message_id', Text),
    **_SMALL)

Index('ix_recipients_mailbox', recipients.c.mailbox,
      recipients.c.message_id, unique=True)

# `number` counts a message's attempts as they begin; `kind` is None while
# one runs, `outcome` is the rest of the outcome as JSON. `envelope` is whom
# it is for, as a JSON list, where it is not for all.
attempts = Table(
    'attempts', metadata, _of_message(primary_key=True),
    Column('id', Text, primary_key=True),
    Column('number', Integer, nullable=False),
    Column('service', Text, nullable=False),
    Column('provider', Text, nullable=False),
    Column('round', Integer, nullable=False),
    Column('started_at', Double, nullable=False),
    Column('ended_at', Double),
    Column('kind', Text),
    Column('outcome', Text),
    Column('resolved', Text),
    Column('envelope', Text),
    Column('replays', Text),
    **_SMALL)

# `key` is the SHA-256 of a client's key, `message_ids` what it stored, as a
# JSON object by position in a batch.
idempotency = Table(
    'idempotency', metadata,
    Column('pool', Text, primary_key=True),
    Column('key', Text, primary_key=True),
    Column('fingerprint', Text, nullable=False),
    Column('message_ids', Text, nullable=False),
    Column('created_at', Double, nullable=False),
    **_SMALL)

Index('ix_idempotency_created_at', idempotency.c.created_at)

health = Table(
    'health', metadata,
    Column('key', Text, primary_key=True),
    Column('version', Integer, nullable=False),
    Column('state', Text, nullable=False),
    Column('updated_at', Double, nullable=False),
    **_SMALL)

workers = Table(
    'workers', metadata,
    Column('owner', Text, primary_key=True),
    Column('beaten_at', Double, nullable=False),
    **_SMALL)

# A bucket for each pool that has a rate: how many messages it may still
# store as of `counted_at`.
rates = Table(
    'rates', metadata,
    Column('pool', Text, primary_key=True),
    Column('free', Double, nullable=False),
    Column('counted_at', Double, nullable=False),
    **_SMALL)

# One row: see _lease_clock.py.
lease_clock = Table(
    'lease_clock', metadata,
    Column('boot', Text, primary_key=True),
    Column('ahead', Double, nullable=False),
    **_SMALL)

# Written only to see that it can be.
checks = Table(
    'checks', metadata,
    Column('name', Text, primary_key=True),
    Column('checked_at', Double, nullable=False),
    **_SMALL)
