"""Methods of a store that are one transaction."""

from collections.abc import Callable
from functools import wraps


def written(method: Callable) -> Callable:
    """Run a method in a transaction that may write; it is given the
    connection, and may be run again from its start where that was undone."""
    @wraps(method)
    def call(self, *args, **options):
        return self._database.write(
            lambda connection: method(self, connection, *args, **options))
    return call
