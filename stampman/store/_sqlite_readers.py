"""The connections of a process by which SQLite reads."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, exc

from stampman.store._sqlite_troubles import driver


class Readers:
    """Some connections that read. They are held, as the one that writes is.

    Who finds all of them in use waits for one.
    """

    def __init__(self, engine: Engine, most: int, patience: float):
        """`patience` is in seconds; `engine` keeps no connections."""
        self._engine = engine
        self._patience = patience
        self._free = deque()
        self._places = threading.BoundedSemaphore(most)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Open a block that sees one moment of the database."""
        with self.borrowed() as connection:
            raw = connection.connection.driver_connection
            raw.execute('BEGIN')
            try:
                yield connection
            finally:
                raw.rollback()      # nothing was written

    @contextmanager
    def borrowed(self) -> Iterator[Connection]:
        """Open a block that has a connection to itself; one that something
        befalls is not used again.

        Raises SQLAlchemy's TimeoutError.
        """
        if not self._places.acquire(timeout=self._patience):
            raise exc.TimeoutError
        try:
            connection = (self._free.pop() if self._free
                          else self._engine.connect())
            is_sound = True
            try:
                yield connection
            except (exc.DBAPIError, driver.Error):
                is_sound = False
                raise
            finally:
                if is_sound:
                    self._free.append(connection)
                else:
                    connection.close()
        finally:
            self._places.release()

    def close(self) -> None:
        """Close all connections: none of them is in use."""
        while self._free:
            self._free.pop().close()
