"""Ways to break the program, each a change of its text.

The old text must stand exactly once in its file, so that this list cannot
rot; `seeds` is within how many each must be found.
"""

from typing import NamedTuple


class Change(NamedTuple):
    """One text of a file of the package, and what is put in its place."""

    path: str
    old: str
    new: str


class Mutant(NamedTuple):
    """One way to break the program, that some seeds in so many show, on a
    kind of store. What fewer would show is held by a test of its own."""

    name: str
    changes: tuple[Change, ...]
    seeds: int = 150
    store: str = 'sqlite'


def _mutant(name, path, old, new, seeds=150, store='sqlite'):
    return Mutant(name, (Change(path, old, new),), seeds, store)


_DISPATCH, _DELIVERY = 'dispatch.py', 'helpers/delivery.py'
_SQL, _STATEMENTS = 'store/sql.py', 'store/_statements.py'

PROTOCOL = (
    _mutant('no journal: the call comes without an attempt', _DISPATCH, '''\
        self.claim = self._begun(
            attempt, now + seconds + self._timing.recording
            + self._timing.grace, again)
''', '''\
        self.be_stored()
'''),
    _mutant('blind rescue: an open attempt is not looked at',
            'store/_following.py', '''\
    return bool(connection.execute(sql.ORPHAN, {
        'of': message_id, 'at': at, 'guess': _GUESS}).rowcount)
''', '''\
    return False
'''),
    _mutant('no fence', _STATEMENTS, '''\
             _M.fence == bindparam('held_fence'))
''', '''\
             bindparam('held_fence') > -1)
''', 400),
    _mutant('a claim does not raise the fence', _STATEMENTS, '''\
    leased_by=bindparam('owner'), lease_until=bindparam('until'),
    fence=_M.fence + 1))
''', '''\
    leased_by=bindparam('owner'), lease_until=bindparam('until')))
''', 400),
    _mutant('answer before commit', 'intake.py', '''\
            if not self._is_there(pool.domain, entries[0].message.id):
                raise
''', '''\
            self._is_there(pool.domain, entries[0].message.id)
'''),
    _mutant('no guard just before the first byte', 'services/_wire.py', '''\
        if seconds <= 0:
            raise TimeoutError
        return min(seconds, LONGEST_WAIT)
''', '''\
        return min(max(seconds, 0.1), LONGEST_WAIT)
''', 400),
    _mutant('a deadline that comes too late', _DISPATCH, '''\
        deadline = self._clock.monotonic() + seconds
''', '''\
        deadline = self._clock.monotonic() + seconds + 600
''', 400),
    _mutant('a lease shorter than the call', _DISPATCH, '''\
            attempt, now + seconds + self._timing.recording
            + self._timing.grace, again)
''', '''\
            attempt, now + seconds / 4, again)
''', 400),
    _mutant('leases on the wall clock', 'store/_lease_clock.py', '''\
        self._clock = clock if clock and clock.boot else None
''', '''\
        self._clock = None
''', 600),
    _mutant('no rescue', _SQL, '''\
        connection, {'now': leases_now, 'most': limit})
''', '''\
        connection, {'now': -1.0, 'most': limit})
'''),
    _mutant('recording is not tried again', _DISPATCH, '''\
                if self._clock.monotonic() >= give_up_at:
''', '''\
                if True:
'''),
)

UNCERTAIN = (
    _mutant('uncertain is taken for a failure under hold', _DELIVERY, '''\
    if uncertain and message.on_uncertain == 'hold':
''', '''\
    if uncertain > 9 and message.on_uncertain == 'hold':
'''),
    _mutant('no limit of uncertain attempts', _DELIVERY, '''\
    if uncertain >= MAX_UNCERTAIN:
''', '''\
    if uncertain >= 99:
'''),
    _mutant('expiry lies: failed while an attempt is uncertain', _DISPATCH,
            '''\
    if message.is_uncertain:
        return End(State.uncertain, must_hold(message)
''', '''\
    if message.is_uncertain and now < message.expires_at:
        return End(State.uncertain, must_hold(message)
'''),
    _mutant('accepted does not win late', _STATEMENTS, '''\
ACCEPTED = Hot(update(messages).where(_ID).values(
''', '''\
ACCEPTED = Hot(update(messages).where(
    _ID, _M.state == State.sending.value).values(
'''),
    _mutant('what is known is overwritten by a time-out', _SQL, '''\
        if _is_known_better(row.kind, attempt.outcome.kind):
            return False
''', ''),
    _mutant('a late end brings nothing back', _STATEMENTS, '''\
RECONSIDER = update(messages).where(
    _ID, _M.state == State.uncertain.value).values(
''', '''\
RECONSIDER = update(messages).where(
    _ID, _M.state == State.cancelled.value).values(
'''),
    _mutant('possible_duplicate is not marked', _SQL, '''\
                      + lease_until - now), 'twice': twice}).rowcount
''', '''\
                      + lease_until - now), 'twice': False}).rowcount
''', 400),
    Mutant('any answer to a replay is believed', (
        Change('store/_following.py', '''\
    if outcome.kind is Kind.accepted and (attempt.replays or before):
''', '''\
    if outcome.kind is not Kind.uncertain and attempt.replays:
'''),
        Change(_DISPATCH, '''\
    if not ended.replays or ended.outcome.kind is not Kind.accepted:
''', '''\
    if not ended.replays or ended.outcome.kind is Kind.uncertain:
''')), 400),
    _mutant('a clock that is set back lets anybody replay',
            'services/_evidence.py', '''\
                and 0 <= at - attempt.started_at < self.replay)
''', '''\
                and at < attempt.started_at + self.replay)
''', 1000),
    _mutant('a broken call is taken for one not made', 'services/base.py',
            '''\
        taken = fault.stage is not Stage.nothing
''', '''\
        taken = fault.stage is Stage.answered
'''),
    _mutant('a success without its proof was not taken',
            'services/_rules.py', '''\
    Rule(Kind.uncertain, tuple(range(200, 300)), flags=ALERT,
''', '''\
    Rule(Kind.deferred, tuple(range(200, 300)), flags=ALERT,
'''),
    _mutant('a gateway time-out was not taken', 'services/_rules.py', '''\
    Rule(Kind.uncertain, (408, 502, 504)),
''', '''\
    Rule(Kind.deferred, (408, 502, 504)),
'''),
)

REST = (
    _mutant('a crash is not counted', _STATEMENTS, '''\
CRASHED = update(messages).where(_ID).values(crashes=_M.crashes + 1)
''', '''\
CRASHED = update(messages).where(_ID).values(crashes=_M.crashes + 0)
''', 400),
    _mutant('poison is replayed for ever', 'services/_evidence.py', '''\
        return (message.crashes < MAX_CRASHES and at < message.expires_at
''', '''\
        return (at < message.expires_at
''', 400),
    _mutant('an account that rests is never tried', 'health.py', '''\
        return bool(self.why) and now < self.until
''', '''\
        return bool(self.why) and now < self.until + 1e9
'''),
    _mutant('a refused account is never probed', 'gateway.py', '''\
                self.health.probe(service)
''', '''\
                self.health.standing(service)
'''),
    _mutant('a trial that crashed keeps its place', 'health.py', '''\
        not condition.on_trial(now) or condition.trial_until <= now)
''', '''\
        not condition.on_trial(now) or condition.trial_until <= 0.0)
''', 400),
    _mutant('rejections count as failures', 'health.py', '''\
        if outcome.kind in (Kind.rejected, Kind.unsupported) \\
''', '''\
        if outcome.kind is Kind.unsupported \\
'''),
    _mutant('idempotency is ignored', _SQL, '''\
        if key is not None:
            adding.remember(connection, pool, key, prepared.ids,
''', '''\
        if key is not None and not key.digest:
            adding.remember(connection, pool, key, prepared.ids,
'''),
    _mutant('a key with another body is answered as the first',
            'store/_adding.py', '''\
    if row.fingerprint != key.fingerprint:
''', '''\
    if not row.fingerprint:
'''),
    _mutant('who is settled is sent to again', 'helpers/recipients.py', '''\
    return unsettled if len(unsettled) < len(message.recipients) else None
''', '''\
    return None
'''),
    _mutant('a message that is being sent can be cancelled', 'gateway.py',
            '''\
CANCELLED = frozenset({State.queued, State.deferred})
''', '''\
CANCELLED = frozenset({State.queued, State.deferred, State.sending})
''', 600),
    _mutant('hasten makes due what is scheduled', _STATEMENTS, '''\
    _M.state.in_([State.deferred.value, State.uncertain.value]),
''', '''\
    _M.state.in_([State.deferred.value, State.queued.value]),
''', 1000),
    _mutant('send_at is not waited for', 'intake.py', '''\
            next_attempt_at=None if claimed else max(now, send_at or now),
''', '''\
            next_attempt_at=None if claimed else now,
'''),
)

SERVER = (
    _mutant('who claims locks nothing', _STATEMENTS, '''\
    Hot(due.with_for_update(skip_locked=True)) for due in _DUE)
''', '''\
    Hot(due) for due in _DUE)
''', store='postgres'),
    _mutant('leases on the wall clock of a machine', 'store/_lease_clock.py',
            '''\
        return connection.info[SERVER_TIME] if self._asks else now
''', '''\
        return now
''', store='postgres'),
    _mutant('leases by the caller, where one statement begins',
            'store/_lease_clock.py', '''\
        if self._asks or lasts is None:
''', '''\
        if lasts is None:
''', store='postgres'),
    _mutant('one statement begins what somebody else holds',
            'store/_combined.py', '''\
_HELD = sql.EXTEND.statement.values(
''', '''\
_HELD = update(messages).where(_M.id == bindparam('of')).values(
''', store='postgres'),
)

MUTANTS = PROTOCOL + UNCERTAIN + REST + SERVER
