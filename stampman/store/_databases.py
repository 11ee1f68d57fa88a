"""The databases that a store may stand on, by the kind of their URL."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection

from stampman.helpers.delivery import Clock
from stampman.helpers.exceptions import ConfigError
from stampman.store._lease_clock import LeaseClock

POSTGRES = ('postgres', 'postgresql', 'postgresql+psycopg')

Result = TypeVar('Result')
Work = Callable[[Connection], Result]


class Database(Protocol):
    """What a store needs of a database.

    `write` and `migrate` run a call in a transaction that is durable when
    they return; `read` is a block of one that sees one moment. What befalls
    them is raised as StoreUnavailable; as CommitUnknown, where a commit is
    not answered. `locks_rows`: who changes a message must lock its row first.
    `combines`: it changes several tables in one statement, and has `write_one`
    for a call that runs no more than one.
    """

    locks_rows: bool
    combines: bool

    def lease_clock(self, clock: Clock | None) -> LeaseClock: ...
    def write(self, work: Work) -> Result: ...
    def read(self) -> AbstractContextManager[Connection]: ...
    def migrate(self, work: Work) -> Result: ...
    def exists(self) -> bool: ...
    def create(self) -> bool: ...
    def check(self, connection: Connection) -> None: ...
    def drop_traces(self) -> bool: ...
    def shrink(self) -> bool: ...
    def close(self) -> None: ...


def database_at(url: str, **options: Any) -> Database:
    """Return the database of a URL; its driver is loaded only now.

    Raises ConfigError for a URL of no known kind, or one that cannot be
    used.
    """
    scheme, colon, _ = url.partition(':')
    if scheme == 'sqlite':
        from stampman.store._sqlite import SqliteDatabase
        return SqliteDatabase(_sqlite_path(url), **options)
    if colon and scheme in POSTGRES:
        from stampman.store._postgres import PostgresDatabase
        return PostgresDatabase(url, **options)
    kind = f'"{scheme}" is' if colon and scheme.isalnum() else 'this form is'
    raise ConfigError(errors=[(
        'DATABASE_URL', f'{kind} not supported; use '
                        'sqlite:////absolute/path.db or '
                        'postgres://user:password@host/database')])


def _sqlite_path(url) -> Path:
    """A database in memory would be lost."""
    start, _, path = url.partition(':///')
    if start != 'sqlite' or not path or path == ':memory:' or '?' in path:
        raise ConfigError(errors=[(
            'DATABASE_URL', 'must name a file, without options: '
                            'sqlite:////absolute/path.db')])
    return Path(path)
