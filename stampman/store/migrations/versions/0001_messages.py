"""Messages, their way, and what processes share."""

import sqlalchemy as sa
from alembic import op

revision = '0001'
down_revision = None

# Compared by bytes, whatever the database's collation.
TEXT = sa.Text().with_variant(sa.Text(collation='C'), 'postgresql')

UNSETTLED = "state IN ('deferred', 'queued', 'sending', 'uncertain')"


def upgrade():
    _messages()
    _parts()
    _attempts()
    _shared()


def _table(name, *columns, key, small=True):
    op.create_table(
        name, *columns, sa.PrimaryKeyConstraint(*key, name=op.f(f'pk_{name}')),
        **({'sqlite_with_rowid': False} if small else {}))


def _text(name, nullable=False):
    return sa.Column(name, TEXT, nullable=nullable)


def _time(name, nullable=False):
    return sa.Column(name, sa.Double, nullable=nullable)


def _number(name):
    return sa.Column(name, sa.Integer, nullable=False)


def _of_message(table):
    return _text('message_id'), sa.ForeignKeyConstraint(
        ['message_id'], ['messages.id'], ondelete='CASCADE',
        name=op.f(f'fk_{table}_message_id'))


def _messages():
    _table(
        'messages', _text('id'), _text('pool'), _text('state'),
        _time('created_at'), _time('expires_at'), _text('on_uncertain'),
        _number('round'), _time('next_attempt_at', nullable=True),
        _number('restarted_after'), _number('crashes'),
        sa.Column('possible_duplicate', sa.Boolean, nullable=False),
        _text('reason'), _text('leased_by', nullable=True),
        _time('lease_until', nullable=True), _number('fence'),
        sa.CheckConstraint(
            "next_attempt_at IS NULL OR state IN ('deferred', 'queued', "
            "'uncertain')", name=op.f('ck_messages_waits')),
        sa.CheckConstraint(
            "(state = 'sending') = (lease_until IS NOT NULL)",
            name=op.f('ck_messages_leased')),
        key=['id'])
    # Of two that seem equal to it, SQLite takes the one that was made first:
    # by pool and state before by pool.
    for name, columns, where in (
            ('due', ['next_attempt_at'], 'next_attempt_at IS NOT NULL'),
            ('run_out', ['lease_until'], 'lease_until IS NOT NULL'),
            ('unsettled', ['pool', 'state'], UNSETTLED),
            ('pool_state', ['pool', 'state', 'id'], None),
            ('pool', ['pool', 'id'], None)):
        partial = where and {'sqlite_where': sa.text(where),
                             'postgresql_where': sa.text(where)}
        op.create_index(
            f'ix_messages_{name}', 'messages', columns, **partial or {})


def _parts():
    _table('emails', *_of_message('emails'), _text('content'),
           key=['message_id'], small=False)
    _table('attachments', *_of_message('attachments'), _number('position'),
           sa.Column('content', sa.LargeBinary, nullable=False),
           key=['message_id', 'position'], small=False)
    _table('recipients', *_of_message('recipients'), _number('position'),
           _text('kind'), _text('email'), _text('mailbox'), _text('status'),
           _text('reason'), _text('provider_message_id', nullable=True),
           key=['message_id', 'position'])
    op.create_index('ix_recipients_mailbox', 'recipients',
                    ['mailbox', 'message_id'], unique=True)


def _attempts():
    _table('attempts', *_of_message('attempts'), _text('id'),
           _number('number'), _text('service'), _text('provider'),
           _number('round'), _time('started_at'),
           _time('ended_at', nullable=True), _text('kind', nullable=True),
           _text('outcome', nullable=True), _text('resolved', nullable=True),
           key=['message_id', 'id'])


def _shared():
    _table('health', _text('key'), _number('version'), _text('state'),
           _time('updated_at'), key=['key'])
    _table('workers', _text('owner'), _time('beaten_at'), key=['owner'])
    _table('rates', _text('pool'), _time('free'), _time('counted_at'),
           key=['pool'])
    _table('checks', _text('name'), _time('checked_at'), key=['name'])
