"""How Alembic runs here: over the connection it is handed."""

from alembic import context

from stampman.store.schema import metadata

context.configure(
    connection=context.config.attributes['connection'],
    target_metadata=metadata, render_as_batch=True,
    transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
