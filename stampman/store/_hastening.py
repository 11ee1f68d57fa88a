"""Making due at once what would wait: however much that is, in steps.

One transaction for all would last longer than a statement may, and keep from
its work whoever wants to change one of them.
"""

from typing import Any

from stampman.store import _statements as sql
from stampman.store._databases import Database

FOUND = 20_000      # messages that are looked up at a time
STEP = 500          # messages that one transaction makes due


def make_due(database: Database, later: sql.Later, now: float,
             **of: Any) -> int:
    """Make due at `now` what waits as `later` says, with the values `of`;
    say how many that were. Who is just being changed is left out."""
    count, made, of = 0, -1, {**of, 'now': now}

    def make_some(connection):
        ids = connection.execute(
            later.taken, {**of, 'ids': some}).scalars().all()
        if ids:
            connection.execute(sql.MAKE_DUE, {'now': now, 'ids': ids})
        return len(ids)

    while made:
        with database.read() as connection:
            found = connection.execute(
                later.found, {**of, 'most': FOUND}).scalars().all()
        made = 0
        for start in range(0, len(found), STEP):
            some = found[start:start + STEP]
            made += database.write(make_some)
        count += made
    return count
