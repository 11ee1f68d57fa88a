"""Idempotency keys, scheduled sends, erased messages, replayed attempts."""

import sqlalchemy as sa
from alembic import op

revision = '0003'
down_revision = '0002'

# Compared by bytes, whatever the database's collation.
TEXT = sa.Text().with_variant(sa.Text(collation='C'), 'postgresql')


def upgrade():
    """Plain ADD COLUMNs: they rewrite no row, however many there are."""
    op.add_column('messages', sa.Column('send_at', sa.Double))
    op.add_column('messages', sa.Column('erased_at', sa.Double))
    op.add_column('attempts', sa.Column('replays', TEXT))
    op.create_table(
        'idempotency',
        sa.Column('pool', TEXT, nullable=False),
        sa.Column('key', TEXT, nullable=False),
        sa.Column('fingerprint', TEXT, nullable=False),
        sa.Column('message_ids', TEXT, nullable=False),
        sa.Column('created_at', sa.Double, nullable=False),
        sa.PrimaryKeyConstraint(
            'pool', 'key', name=op.f('pk_idempotency')),
        sqlite_with_rowid=False)
    op.create_index('ix_idempotency_created_at', 'idempotency',
                    ['created_at'])
    op.create_table(
        'lease_clock',
        sa.Column('boot', TEXT, nullable=False),
        sa.Column('ahead', sa.Double, nullable=False),
        sa.PrimaryKeyConstraint('boot', name=op.f('pk_lease_clock')),
        sqlite_with_rowid=False)
