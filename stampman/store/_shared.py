"""What processes share beside messages: health, signs of life, one check."""

import json

from stampman.store import _statements as sql
from stampman.store._written import written
from stampman.store.base import AbstractStore, HealthRow

FORGET_AFTER = 86400.0      # seconds without a beat: the worker is no more
APART = 60.0                # seconds ahead: else the clock was set back


class SharedTables(AbstractStore):
    """The half of an SQL store that is about no message."""

    @written
    def check_writable(self, connection, now):
        if not connection.execute(
                sql.CHECK, {'of': 'writable', 'now': now}).rowcount:
            connection.execute(
                sql.ADD_CHECK, {'name': 'writable', 'checked_at': now})

    def health(self):
        with self._database.read() as connection:
            return {key: HealthRow(key, version, json.loads(state))
                    for key, version, state in connection.execute(sql.HEALTH)}

    def put_health(self, row, now):
        return self._put_health(row, json.dumps(dict(row.state)), now)

    @written
    def _put_health(self, connection, row, state, now):
        if row.version == 1:        # somebody else may write it, too
            return bool(connection.execute(sql.ADD_HEALTH, {
                'key': row.key, 'version': 1, 'state': state,
                'updated_at': now}).rowcount)
        return bool(connection.execute(sql.SET_HEALTH, {
            'of': row.key, 'before': row.version - 1,
            'becomes': state, 'now': now}).rowcount)

    @written
    def beat(self, connection, owner, now):
        connection.execute(sql.FORGET_WORKERS, {
            'silent_since': now - FORGET_AFTER,
            'not_yet': now + APART})
        if not connection.execute(
                sql.BEAT, {'of': owner, 'now': now}).rowcount:
            connection.execute(
                sql.ADD_WORKER, {'owner': owner, 'beaten_at': now})

    def last_beat(self):
        with self._database.read() as connection:
            return connection.execute(sql.LAST_BEAT).scalar()
