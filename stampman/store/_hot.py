"""Statements that run for each message, on the shortest way to the driver.

They are built by SQLAlchemy and compiled once for each kind of database. Of
what one costs otherwise, seven parts of eight are spent between the call and
the driver: looking it up, checking its values, wrapping its result.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Executable, Select


class _Compiled(NamedTuple):
    """Its text; the order of its values, where they go by position; and
    those of them that are part of it."""

    text: str
    order: Sequence[str] | None
    constants: Mapping[str, Any]

    def arranged(self, values):
        every = {**self.constants, **values} if self.constants else values
        return every if self.order is None else [
            every[name] for name in self.order]


class Hot:
    """A statement whose values need no conversion, and whose result, if it
    has one, is read as the driver gives it: of SQLite a boolean is 0 or 1."""

    def __init__(self, statement: Executable):
        self.statement = statement
        self._compiled = {}     # by the name of a dialect
        self._names = [column.name for column in statement.selected_columns
                       ] if isinstance(statement, Select) else []

    def run(self, connection: Connection, values: Mapping[str, Any]) -> Any:
        """Run it in a transaction that is open; return the driver's cursor.

        Raises the driver's own errors.
        """
        compiled = self._for(connection.dialect)
        return connection.connection.driver_connection.execute(
            compiled.text, compiled.arranged(values))

    def read(self, connection: Connection,
             values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Run one that selects, as above; return its rows, by column."""
        return [dict(zip(self._names, row))
                for row in self.run(connection, values).fetchall()]

    def run_all(self, connection: Connection,
                rows: Sequence[Mapping[str, Any]]) -> None:
        """Run it for each of some rows."""
        if len(rows) == 1:
            self.run(connection, rows[0])
        elif rows:
            compiled = self._for(connection.dialect)
            connection.connection.driver_connection.cursor().executemany(
                compiled.text, [compiled.arranged(row) for row in rows])

    def _for(self, dialect):
        found = self._compiled.get(dialect.name)
        if found is None:
            compiled = self.statement.compile(dialect=dialect)
            found = self._compiled[dialect.name] = _Compiled(
                str(compiled), compiled.positiontup,
                {name: bind.value for name, bind in compiled.binds.items()
                 if not bind.required})
        return found
