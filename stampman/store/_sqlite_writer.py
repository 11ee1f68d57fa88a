"""The connection of a process by which SQLite writes."""

from contextlib import contextmanager, suppress

from sqlalchemy import Engine

from stampman.helpers.turns import turns
from stampman.store._group_commit import Undone
from stampman.store._sqlite_commits import Unanswered, may_have_happened
from stampman.store._sqlite_troubles import driver, primary_code


class Writer:
    """The one connection that writes. It is held: to borrow one from a pool,
    and to have SQLAlchemy count its transactions, costs as much as to write.
    """

    def __init__(self, engine: Engine, tries: int):
        """`tries` to get the write lock, each of which may wait."""
        self._engine = engine
        self._tries = tries
        self._connection = None
        self._driver = None

    @contextmanager
    def transaction(self):
        """Open a block that holds the write lock; durable at its end.

        Raises Unanswered where it cannot be known whether it is.
        """
        if self._connection is None:
            self._connection = self._engine.connect()
            self._driver = self._connection.connection.driver_connection
        try:
            self._begin()
            yield self._connection
            with turns.aside:       # it waits for the disk
                self._commit()
        except BaseException:
            self._undo()
            raise

    def _commit(self):
        try:
            self._driver.commit()
        except driver.Error as error:
            if may_have_happened(self._driver, error):
                raise Unanswered from error
            raise

    def _undo(self):
        self._connection.info.clear()   # what it remembers may be undone
        with suppress(driver.Error):    # some errors undo it by themselves
            self._driver.rollback()
        if self._driver.in_transaction:
            self.close()

    @contextmanager
    def part(self, connection):
        """Open a block within a transaction that is undone alone."""
        self._driver.execute('SAVEPOINT part')
        try:
            yield
        except BaseException as error:
            try:
                self._driver.execute('ROLLBACK TO part')
                self._driver.execute('RELEASE part')
            except driver.Error:    # SQLite has undone the whole transaction
                raise Undone from error
            raise
        try:
            self._driver.execute('RELEASE part')
        except driver.Error as error:
            raise Undone from error

    def _begin(self):
        """Whoever waits for the lock lets others of this process go on."""
        if not self._tries_once(self._tries == 1):
            with turns.aside:
                left = self._tries - 1
                while not self._tries_once(left == 1):
                    left -= 1

    def _tries_once(self, is_last):
        """Say if the lock is ours; raises where it is not, for good."""
        try:
            self._driver.execute('BEGIN IMMEDIATE')
            return True
        except driver.OperationalError as error:
            if is_last or primary_code(error) != 'BUSY':
                raise
            return False

    def close(self):
        """Give the connection up; the next transaction makes another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._engine.dispose()
