"""A SQLite database as `stampman migrate` leaves it, made once and copied."""

import functools
import tempfile
import threading
from pathlib import Path

from stampman.store import open_store

_one_at_a_time = threading.Lock()


def put_fresh(path: Path) -> None:
    """Put an empty database with the schema at `path`, if nothing is there.
    """
    if path.exists():
        return
    with _one_at_a_time:    # alembic has but one context in a process
        whole = _migrated()
    path.touch(0o600)
    path.write_bytes(whole)


@functools.cache
def _migrated():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'fresh.db'
        store = open_store(f'sqlite:///{path}')
        store.migrate()
        store.close()
        return path.read_bytes()
