"""The clock that leases are counted on: no jump of the wall clock moves it.

The processes of one machine share its monotonic clock, which starts anew at
each boot. A row holds by how much it must be set ahead to give about the
wall's time. After another boot nobody holds a lease: all have run out. Where
there is no row yet, leases were counted on the wall's time, and go on.

Several machines have no such clock in common: they take the time of the
database server, as of the start of the transaction, which costs no question
of its own. So what is waited for in it makes a lease shorter, never longer.
"""

import math

from sqlalchemy import Connection

from stampman.helpers.delivery import Clock
from stampman.store import _statements as sql

_AHEAD = 'stampman_lease_clock'     # what a connection remembers
SERVER_TIME = 'stampman_server_time'    # what a server's database writes there


class LeaseClock:
    """Tells the store's time, in seconds.

    Without a `clock`, or with one that cannot name its boot, it is the time
    that callers bring.
    """

    def __init__(self, clock: Clock | None):
        self._clock = clock if clock and clock.boot else None

    def time(self, connection: Connection, now: float) -> float:
        """Return the time, in a transaction that may write."""
        if self._clock is None:
            return now
        ahead = self._ahead(connection)
        return self._clock.monotonic() + (
            self._start(connection, now) if ahead is None else ahead)

    def seen(self, connection: Connection, now: float) -> float:
        """Return the time, in one that only reads; it is infinite where no
        clock of this boot is known."""
        if self._clock is None:
            return now
        ahead = self._ahead(connection)
        return math.inf if ahead is None else self._clock.monotonic() + ahead

    def surely(self, connection: Connection, now: float) -> float:
        """Return the earlier of this time and the wall's: what is old by
        both clocks is old, whatever was done to one."""
        return min(now, self.seen(connection, now))

    def _ahead(self, connection):
        known = connection.info.get(_AHEAD)
        if known is None:
            row = connection.execute(sql.LEASE_CLOCK).one_or_none()
            if row is None or row.boot != self._clock.boot:
                return None
            known = connection.info[_AHEAD] = row.ahead
        return known

    def _start(self, connection, now):
        """Not remembered here: this transaction may yet be undone."""
        ahead = now - self._clock.monotonic()
        if connection.execute(sql.FORGET_LEASE_CLOCK).rowcount:
            connection.execute(sql.END_ALL_LEASES)
        connection.execute(sql.SET_LEASE_CLOCK, {
            'boot': self._clock.boot, 'ahead': ahead})
        return ahead


class ServerClock(LeaseClock):
    """Tells the time of the database server.

    Without a `clock` it is the time that callers bring.
    """

    def __init__(self, clock: Clock | None):
        self._asks = clock is not None

    def time(self, connection: Connection, now: float) -> float:
        return connection.info[SERVER_TIME] if self._asks else now

    seen = time

    def ends(self, now: float, lasts: float | None
             ) -> dict[str, float | None]:
        """Return the values of a statement that counts `lasts` seconds from
        its own time, or, where nothing is asked, from `now`."""
        if self._asks or lasts is None:
            return {'until': None, 'lasts': lasts}
        return {'until': now + lasts, 'lasts': None}
