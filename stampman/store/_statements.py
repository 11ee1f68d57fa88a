"""The SQL of a store, built once: built for each call it costs double.

What runs for each message is `Hot`.
"""

from typing import NamedTuple

from sqlalchemy import (
    Select, and_, bindparam, case, delete, func, insert, or_, select, text,
    true, update)
from sqlalchemy.types import Boolean, Double

from stampman.helpers.delivery import Kind, Message, State
from stampman.store._hot import Hot
from stampman.store.schema import (
    UNSETTLED, attachments, attempts, checks, emails, health, idempotency,
    lease_clock, messages, rates, recipients, workers)

_M, _A, _R, _K = messages.c, attempts.c, recipients.c, idempotency.c
_ID = _M.id == bindparam('of')
_HELD = and_(_ID, _M.state == State.sending.value,
             _M.fence == bindparam('held_fence'))
_NO_LEASE = {'leased_by': None, 'lease_until': None}
# As equality of one column each: IN is rendered anew for each call.
_NOT_ACCEPTED = _R.status != State.accepted.value
_NOT_SETTLED = and_(_NOT_ACCEPTED, _R.status != State.rejected.value)


def _unless_there(table):
    """Insert a row that others may be inserting, too."""
    names = [column.name for column in table.columns]
    return text(f'INSERT INTO {table.name} ({", ".join(names)}) '
                f'VALUES (:{", :".join(names)}) ON CONFLICT DO NOTHING')


# -- reading a message -------------------------------------------------------

_MESSAGE = [messages.c[name] for name in Message.model_fields
            if name in messages.c]

MESSAGE = select(*_MESSAGE).where(_ID, _M.pool == bindparam('in_pool'))
CLAIMED = Hot(select(*_MESSAGE, _M.fence).where(_ID))
ATTEMPTS = Hot(select(attempts).where(_A.message_id == bindparam('of')))
RECIPIENTS = Hot(select(recipients).where(
    _R.message_id == bindparam('of')).order_by(_R.position))
CONTENT = Hot(select(emails.c.content).where(
    emails.c.message_id == bindparam('of')))
PARTS = Hot(select(attachments.c.content).where(
    attachments.c.message_id == bindparam('of')).order_by(
    attachments.c.position))

# Where several change rows at once, who changes a message locks it first: what
# is read of it before that may be old.
LOCK = select(_M.id).where(_ID).with_for_update()

# -- taking in ---------------------------------------------------------------

ADD_MESSAGE = Hot(insert(messages))
ADD_EMAIL = Hot(insert(emails))
ADD_RECIPIENT = Hot(insert(recipients))
ADD_ATTACHMENT = Hot(insert(attachments))

RATE = select(rates.c.free, rates.c.counted_at).where(
    rates.c.pool == bindparam('in_pool')).with_for_update()
ADD_RATE = _unless_there(rates)
SET_RATE = update(rates).where(rates.c.pool == bindparam('in_pool')).values(
    free=bindparam('free'), counted_at=bindparam('counted_at'))

_KEY = and_(_K.pool == bindparam('in_pool'), _K.key == bindparam('digest'))
KNOWN_KEY = select(
    _K.fingerprint, _K.message_ids, _K.created_at).where(_KEY)
ADD_KEY = insert(idempotency)
# A twin may have stored it meanwhile: that is not old.
FORGET_KEY = delete(idempotency).where(
    _KEY, _K.created_at <= bindparam('before'))

# -- claiming ----------------------------------------------------------------

_DUE = [
    select(_M.id, due.label('due')).where(due <= bindparam('now')).order_by(
        due).limit(bindparam('most'))
    for due in (_M.next_attempt_at, _M.lease_until)]
WAITING_DUE, RUN_OUT = map(Hot, _DUE)
TAKE_WAITING_DUE, TAKE_RUN_OUT = (
    Hot(due.with_for_update(skip_locked=True)) for due in _DUE)

ORPHAN = update(attempts).where(
    _A.message_id == bindparam('of'), _A.kind.is_(None)).values(
    ended_at=bindparam('at'), kind=Kind.uncertain.value,
    outcome=bindparam('guess'))
CRASHED = update(messages).where(_ID).values(crashes=_M.crashes + 1)
PUT_ASIDE = update(messages).where(_ID).values(
    next_attempt_at=case((_M.next_attempt_at.is_not(None),
                          bindparam('later', type_=Double))),
    lease_until=case((_M.lease_until.is_not(None),
                      bindparam('run_out', type_=Double))))
CLAIM = Hot(update(messages).where(_ID).values(
    state=State.sending.value, next_attempt_at=None,
    leased_by=bindparam('owner'), lease_until=bindparam('until'),
    fence=_M.fence + 1))

# -- on its way --------------------------------------------------------------

EXTEND = Hot(update(messages).where(_HELD).values(
    lease_until=bindparam('until'),
    possible_duplicate=or_(_M.possible_duplicate,
                           bindparam('twice', type_=Boolean))))
NEXT = select(func.coalesce(func.max(_A.number), 0) + 1).where(
    _A.message_id == bindparam('message_id')).scalar_subquery()
BEGUN = ('id', 'service', 'provider', 'round', 'started_at', 'envelope',
         'replays')
BEGIN = Hot(insert(attempts).values(number=NEXT, **{
    name: bindparam(name) for name in ('message_id', *BEGUN)}))
ENDS = {'ended_at': bindparam('at'), 'kind': bindparam('how'),
        'outcome': bindparam('rest')}
THE_ATTEMPT = and_(
    _A.message_id == bindparam('of'), _A.id == bindparam('ended'))
# The end of one that nobody has ended for it: so it nearly always is.
END_OPEN = Hot(update(attempts).where(
    THE_ATTEMPT, _A.kind.is_(None), select(_M.id).where(
        _ID, _M.erased_at.is_(None)).exists()).values(ENDS))
# A person's word on an attempt yields to the proof that it was accepted.
END = update(attempts).where(THE_ATTEMPT).values(**ENDS, resolved=case(
    (bindparam('how') == Kind.accepted.value, None), else_=_A.resolved))
_TAKEN_TWICE = select(func.count() > 1).where(
    _A.message_id == _M.id, or_(
        _A.kind == Kind.accepted.value,
        and_(_A.kind == Kind.uncertain.value, _A.resolved.is_(None)))
).scalar_subquery()
IS_ACCEPTED = {'state': State.accepted.value, 'next_attempt_at': None,
               'reason': '', **_NO_LEASE}
ACCEPTED = Hot(update(messages).where(_ID).values(
    possible_duplicate=or_(_M.possible_duplicate, _TAKEN_TWICE),
    **IS_ACCEPTED))
ALL_ACCEPTED = Hot(update(recipients).where(
    _R.message_id == bindparam('of')).values(
    status=State.accepted.value, reason='',
    provider_message_id=bindparam('theirs')))
SETTLED = update(messages).where(_ID).values(
    possible_duplicate=bindparam('twice'), **IS_ACCEPTED)
SETTLE_ONE = update(recipients).where(
    _R.message_id == bindparam('of'), _R.mailbox == bindparam('whom')
).values(status=bindparam('becomes'), reason=bindparam('why'),
         provider_message_id=bindparam('theirs'))
# Locks the message's row, and then the attempt's: they are locked, and what is
# new of them is read, in the order of this FROM.
ENDED = select(_A.kind, _A.outcome, _M.erased_at).join_from(
    messages, attempts, _A.message_id == _M.id).where(
    THE_ATTEMPT).with_for_update()
TURN_AWAY = update(messages).where(
    _ID, _M.fence != bindparam('but')).values(fence=_M.fence + 1)
# What is held for the sake of an attempt is concluded anew.
RECONSIDER = update(messages).where(
    _ID, _M.state == State.uncertain.value).values(
    next_attempt_at=bindparam('at'))
_UNCERTAIN = select(func.count()).where(
    _A.message_id == _M.id, _A.kind == Kind.uncertain.value,
    _A.resolved.is_(None)).scalar_subquery()
STILL_HELD = select(_M.id).where(_HELD)
FINISH = update(messages).where(_HELD, or_(
    bindparam('uncertain') == -1,
    bindparam('uncertain') == _UNCERTAIN)).values(
    state=bindparam('becomes'), round=bindparam('rounds'),
    next_attempt_at=bindparam('next'), reason=bindparam('why'), **_NO_LEASE)
_FOLLOW = update(recipients).where(_R.message_id == bindparam('of')).values(
    status=bindparam('becomes'), reason=bindparam('why'))
FOLLOW = _FOLLOW.where(_NOT_SETTLED)
FOLLOW_ANEW = _FOLLOW.where(_NOT_ACCEPTED)
FOLLOW_ONE = _FOLLOW.where(
    _R.mailbox == bindparam('whom'), _NOT_ACCEPTED)

# What a replay was answered holds for those that it asked about.
REPLAYED = update(attempts).where(
    _A.message_id == bindparam('of'), _A.kind == Kind.uncertain.value,
    _A.resolved.is_(None), or_(_A.id == bindparam('root'),
                               _A.replays == bindparam('root'))).values(
    resolved='replayed')

# -- a person's acts ---------------------------------------------------------

CHANGE = update(messages).where(
    _ID, _M.pool == bindparam('in_pool'),
    _M.state.in_(bindparam('expected', expanding=True))).values(
    state=bindparam('becomes'), reason=bindparam('why'),
    next_attempt_at=bindparam('next'),
    restarted_after=case(
        (bindparam('restarts', type_=Boolean) == true(), select(
            func.count()).where(_A.message_id == _M.id).scalar_subquery()),
        else_=_M.restarted_after),
    expires_at=func.coalesce(
        bindparam('expires', type_=Double), _M.expires_at),
    crashes=case((bindparam('restarts', type_=Boolean) == true(), 0),
                 else_=_M.crashes), **_NO_LEASE)
# A person's word, on a message that a provider took for some.
CONCLUDE = update(messages).where(_ID).values(
    state=bindparam('becomes'), next_attempt_at=bindparam('next'))
RESOLVE = update(attempts).where(
    _A.message_id == bindparam('of'), _A.kind == Kind.uncertain.value,
    _A.resolved.is_(None)).values(resolved=bindparam('word'))


class Later(NamedTuple):
    """What waits beyond a time: to find some, and to take of those which
    nobody else is changing, and which still do."""

    found: Select
    taken: Select


def _later(*which):
    # No other index than that of ids is of use: so none is taken.
    still = case((and_(*which), 1), else_=0) == 1
    return Later(
        select(_M.id).where(*which).limit(bindparam('most')),
        select(_M.id).where(_AMONG, still).with_for_update(
            skip_locked=True))


_AMONG = _M.id.in_(bindparam('ids', expanding=True))
TO_HASTEN = _later(
    _M.pool.in_(bindparam('pools', expanding=True)),
    _M.state.in_([State.deferred.value, State.uncertain.value]),
    _M.next_attempt_at > bindparam('now'))
TO_BRING_BACK = _later(
    _M.next_attempt_at > bindparam('far'),
    _M.next_attempt_at.is_distinct_from(_M.send_at))
MAKE_DUE = update(messages).where(_AMONG).values(
    next_attempt_at=bindparam('now'))

HAS_CONTENT = select(emails.c.message_id).where(
    emails.c.message_id == bindparam('of'))

# -- giving up ---------------------------------------------------------------

_IS_SETTLED = case((UNSETTLED, False), else_=True).label('is_settled')
_WAS_DUE = func.coalesce(_M.send_at, _M.created_at).label('due')


def _old(table, id):
    return select(id.label('id'), _IS_SETTLED, _WAS_DUE).select_from(
        table).where(id > bindparam('after'), id < bindparam('high')
                     ).order_by(id).limit(bindparam('most')).with_for_update(
        of=messages, skip_locked=True)


OLD_MESSAGES = _old(messages, _M.id)
OLD_EMAILS = _old(emails.join(messages, emails.c.message_id == _M.id),
                  emails.c.message_id)
FORGET_MESSAGE = delete(messages).where(_ID)
FORGET_EMAIL = delete(emails).where(emails.c.message_id == bindparam('of'))
FORGET_ATTACHMENTS = delete(attachments).where(
    attachments.c.message_id == bindparam('of'))
FORGET_KEYS = delete(idempotency).where(
    _K.created_at <= bindparam('before'))
ERASE_RECIPIENT = update(recipients).where(
    _R.message_id == bindparam('of'), _R.mailbox == bindparam('whom')
).values(email=bindparam('instead'), mailbox=bindparam('instead'))
ERASE_ATTEMPT = update(attempts).where(
    _A.message_id == bindparam('of'), _A.id == bindparam('one')).values(
    outcome=bindparam('rest'), envelope=bindparam('whom'))
ERASED = update(messages).where(_ID).values(erased_at=bindparam('at'))

# -- listing -----------------------------------------------------------------

# By whether a state and a recipient are asked for. The bounds of the id let
# an index serve the times; created_at makes them exact.
_LISTED = select(*_MESSAGE).where(
    _M.pool == bindparam('in_pool'),
    _M.created_at >= bindparam('since'),
    _M.created_at < bindparam('until'))
_BY_ID = _LISTED.where(
    _M.id >= bindparam('low'), _M.id < bindparam('high')).order_by(
    _M.id.desc()).limit(bindparam('most'))
_BY_RECIPIENT = _LISTED.join_from(
    recipients, messages, _R.message_id == _M.id).where(
    _R.mailbox == bindparam('mailbox'),
    _R.message_id >= bindparam('low'),
    _R.message_id < bindparam('high')).order_by(
    _R.message_id.desc()).limit(bindparam('most'))
_IN_STATE = _M.state == bindparam('in_state')
PAGES = {
    (False, False): _BY_ID,
    (True, False): _BY_ID.where(_IN_STATE),
    (False, True): _BY_RECIPIENT,
    (True, True): _BY_RECIPIENT.where(_IN_STATE)}

UNSETTLED_COUNTS = select(_M.pool, _M.state, func.count()).where(
    UNSETTLED).group_by(_M.pool, _M.state)

# -- what processes share ----------------------------------------------------

LEASE_CLOCK = select(lease_clock.c.boot, lease_clock.c.ahead)
FORGET_LEASE_CLOCK = delete(lease_clock)
SET_LEASE_CLOCK = insert(lease_clock)
END_ALL_LEASES = update(messages).where(
    _M.lease_until.is_not(None)).values(lease_until=0.0)

HEALTH = select(health.c.key, health.c.version, health.c.state)
ADD_HEALTH = _unless_there(health)
SET_HEALTH = update(health).where(
    health.c.key == bindparam('of'),
    health.c.version == bindparam('before')).values(
    version=bindparam('before') + 1, state=bindparam('becomes'),
    updated_at=bindparam('now'))
BEAT = update(workers).where(workers.c.owner == bindparam('of')).values(
    beaten_at=bindparam('now'))
ADD_WORKER = _unless_there(workers)
FORGET_WORKERS = delete(workers).where(or_(
    workers.c.beaten_at < bindparam('silent_since'),
    workers.c.beaten_at > bindparam('not_yet')))
LAST_BEAT = select(func.max(workers.c.beaten_at))
CHECK = update(checks).where(checks.c.name == bindparam('of')).values(
    checked_at=bindparam('now'))
ADD_CHECK = _unless_there(checks)
