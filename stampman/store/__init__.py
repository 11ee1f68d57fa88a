"""Where messages live: one contract (`base`), one file for each backend."""

from stampman.helpers.delivery import Clock
from stampman.helpers.exceptions import ConfigError
from stampman.store.base import AbstractStore


def open_store(url: str, clock: Clock | None = None) -> AbstractStore:
    """Return the store of a database URL; connects when it is first used.

    It counts leases on `clock`, if that can name its boot; else on the time
    that callers bring.

    Raises ConfigError for a URL of no known kind.
    """
    if url.startswith('sqlite:'):
        from stampman.store.sql import SqlStore
        return SqlStore.at(url, clock)
    scheme = url.partition(':')[0]
    raise ConfigError(errors=[(
        'DATABASE_URL', f'"{scheme}" is not supported; '
                        'use sqlite:///absolute/path.db')])
