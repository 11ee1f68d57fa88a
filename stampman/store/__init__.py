"""Where messages live: one contract (`base`), one file for each backend."""

from stampman.helpers.delivery import Clock
from stampman.store.base import AbstractStore


def open_store(url: str, clock: Clock | None = None) -> AbstractStore:
    """Return the store of a database URL; connects when it is first used.

    It counts leases on the clock of a database server, where there is one;
    else on `clock`, if that can name its boot, or on the time that callers
    bring.

    Raises ConfigError for a URL of no known kind.
    """
    from stampman.store.sql import SqlStore
    return SqlStore.at(url, clock)
