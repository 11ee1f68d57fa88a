"""Attempts that are for some of a message's recipients alone."""

import sqlalchemy as sa
from alembic import op

revision = '0002'
down_revision = '0001'

# Compared by bytes, whatever the database's collation.
TEXT = sa.Text().with_variant(sa.Text(collation='C'), 'postgresql')


def upgrade():
    """A plain ADD COLUMN: it rewrites no row, however many there are."""
    op.add_column('attempts', sa.Column('envelope', TEXT))
