"""The schema's history, by Alembic; loaded only to bring it up to date."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection


def config(connection: Connection | None = None) -> Config:
    """Return Alembic's settings, for migrations over `connection`."""
    settings = Config(attributes={'connection': connection})
    place = str(Path(__file__).parent).replace('%', '%%')
    settings.set_main_option('script_location', place)
    settings.set_main_option('path_separator', 'newline')
    return settings


def upgrade(connection: Connection) -> None:
    """Bring the schema to its head, in the transaction that is open."""
    command.upgrade(config(connection), 'head')
