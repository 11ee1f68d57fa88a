"""A PostgreSQL server that follows another, and takes over when it is gone."""

import time

from postgres import PASSWORD, PATIENCE, ROLE, PostgresServer, quote


class Standby(PostgresServer):
    """A copy of `primary`, for `with`, whose commits wait for it from then
    on: what the primary acknowledges the standby has."""

    def __init__(self, installation, primary):
        super().__init__(installation)
        self._primary = primary

    def __enter__(self):
        self.folder = self._installation.make(
            self._installation.folder / f'standby{self.port}')
        self._installation.run(
            'pg_basebackup', '--pgdata', self.folder, '--host', '127.0.0.1',
            '--port', str(self._primary.port), '--username', 'postgres',
            '--checkpoint', 'fast', '--write-recovery-conf', '--no-sync')
        self.start()
        try:
            # Set only now: until somebody follows no commit would end.
            self._primary.run(
                "ALTER SYSTEM SET synchronous_standby_names TO '*'")
            # Not just told: one of its processes may hear of it later.
            self._primary.restart('fast')
            self._until(self._is_waited_for)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _is_waited_for(self):
        return self._primary.run(
            'SELECT sync_state FROM pg_stat_replication') == [('sync',)]

    def promote(self):
        """Have it take over; return the seconds that took."""
        began = time.monotonic()
        [(done,)] = self.run(f'SELECT pg_promote(true, {PATIENCE:.0f})')
        assert done, self.log
        return time.monotonic() - began

    def url_of_both(self, database):
        """Return a URL that leads to whichever of the two can be written
        to."""
        hosts = f'127.0.0.1:{self._primary.port},127.0.0.1:{self.port}'
        return f'postgres://{ROLE}:{quote(PASSWORD, safe="")}@{hosts}/' \
               f'{database}?target_session_attrs=read-write'
