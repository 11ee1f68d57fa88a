"""The contract of a store: what is given up, when, and what never is."""

import itertools

import pytest

from stampman.helpers.delivery import IdempotencyKey, State
from stampman.helpers.exceptions import Conflict, KeyReused, NotFound
from stampman.store._retention import STEP
from stampman.store.base import UNSETTLED
from stampman.store.schema import metadata

from backends import (
    NOW, POOL, add, add_claimed, attempt, email, ended, held, message,
    migrated, on_files, store)
from clocks import DAY, HOUR, YEAR, machine, process

__all__ = ['machine', 'migrated', 'process', 'store']   # the fixtures

MONTH = 30 * DAY
SETTLED = sorted(set(State) - UNSETTLED)
PARTS = [{'filename': 'a', 'content': 'AA=='},
         {'filename': 'b', 'content': 'AAAA'}]
KEY = IdempotencyKey('a' * 64, 'b' * 64)


def settled(store, at=NOW, state=State.accepted, **fields):
    """Store a message that is at its end, with everything it can have."""
    one = message(at, state=state, next_attempt_at=None,
                  recipients=['a@x.org', 'b@x.org'], **fields)
    store.add(one, email(attachments=PARTS))
    return one


def told(store, one):
    """Say what is left of a message: `all`, `story` or nothing."""
    try:
        store.message(POOL, one.id)
    except NotFound:
        return ''
    try:
        return 'all' if store.email(one.id) else ''
    except NotFound:
        return 'story'


def forget(step, now, age):
    """Go on until the end; return how many steps it took."""
    after = ''
    for steps in itertools.count(1):
        after = step(now, age, after)
        if not after:
            return steps


def rows(store):
    """Return how many rows each table has that is about messages."""
    with store._database.read() as connection:
        return {table.name: connection.exec_driver_sql(
            f'SELECT count(*) FROM {table.name}').scalar()
            for table in metadata.sorted_tables
            if table.name == 'messages' or 'message_id' in table.c}


# -- by age ------------------------------------------------------------------

@pytest.mark.parametrize('state', SETTLED)
def test_a_settled_message_gives_up_its_content_then_itself(store, state):
    one = settled(store, state=state)
    for age in (MONTH - 1, MONTH):
        forget(store.forget_bodies, NOW + age, MONTH)
        assert told(store, one) == 'all'
    forget(store.forget_bodies, NOW + MONTH + 1, MONTH)
    assert told(store, one) == 'story'
    assert store.message(POOL, one.id) == one       # nothing else is lost
    forget(store.forget_messages, NOW + MONTH, MONTH)
    assert told(store, one) == 'story'
    forget(store.forget_messages, NOW + MONTH + 1, MONTH)
    assert told(store, one) == ''


@pytest.mark.parametrize('state', [
    State.queued, State.deferred, State.uncertain])
def test_what_is_not_settled_is_never_given_up(store, state):
    _, claim = add_claimed(store)
    store.finish(claim, state, round=1, next_attempt_at=NOW + 9)
    stuck, _ = add_claimed(store)
    before = rows(store)
    for step in (store.forget_bodies, store.forget_messages):
        forget(step, NOW + 10 * YEAR, DAY)
    assert rows(store) == before
    assert store.message(POOL, stuck.id).state is State.sending
    assert store.email(claim.message_id) == email()


def test_one_that_is_held_for_a_person_stays_whole(store):
    one = held(store, 'uncertain')
    for step in (store.forget_bodies, store.forget_messages):
        forget(step, NOW + 10 * YEAR, DAY)
    assert told(store, one) == 'all'


def test_a_scheduled_message_counts_from_when_it_was_due(store):
    one = settled(store, send_at=NOW + 20 * DAY)
    for step in (store.forget_bodies, store.forget_messages):
        forget(step, NOW + MONTH + 19 * DAY, MONTH)
    assert told(store, one) == 'all'
    forget(store.forget_bodies, NOW + MONTH + 20 * DAY + 1, MONTH)
    assert told(store, one) == 'story'


def test_one_that_a_person_set_going_again_is_not_given_up(store):
    one = held(store, 'refused', state=State.failed)
    store.change(POOL, one.id, [State.failed], State.queued, restart=True,
                 next_attempt_at=NOW + YEAR)
    for step in (store.forget_bodies, store.forget_messages):
        forget(step, NOW + YEAR, DAY)
    assert told(store, one) == 'all'


def test_without_its_content_nothing_is_set_going_again(store):
    one = held(store, 'refused', state=State.failed)
    forget(store.forget_bodies, NOW + MONTH + 1, MONTH)
    before = store.message(POOL, one.id)
    with pytest.raises(Conflict, match='content'):
        store.change(POOL, one.id, [State.failed], State.queued,
                     restart=True, next_attempt_at=NOW + YEAR)
    assert store.message(POOL, one.id) == before


def test_every_table_is_cleaned(store):
    for kinds in (['uncertain'], ['deferred', 'refused']):
        held(store, *kinds, state=State.failed, recipients=['a@x.org'])
    settled(store)
    assert all(rows(store).values())
    forget(store.forget_messages, NOW + MONTH + 1, MONTH)
    assert set(rows(store).values()) == {0}


def test_content_lies_in_two_tables_and_goes_from_both(store):
    settled(store)
    before = rows(store)
    assert (before['emails'], before['attachments']) == (1, 2)
    forget(store.forget_bodies, NOW + MONTH + 1, MONTH)
    assert rows(store) == {**before, 'emails': 0, 'attachments': 0}


def test_the_end_of_a_message_that_is_gone_says_so(store):
    one, claim = add_claimed(store)
    begun = attempt()
    claim = store.begin(claim, begun, NOW + 60)
    store.finish(claim, State.failed, round=1)
    forget(store.forget_messages, NOW + MONTH + 1, MONTH)
    with pytest.raises(NotFound):
        store.end(ended(begun, 'accepted'), one.id)
    assert set(rows(store).values()) == {0}


# -- in small steps ----------------------------------------------------------

@pytest.mark.parametrize('what', ['bodies', 'messages'])
def test_a_step_looks_at_a_few_and_goes_on_behind_them(store, what):
    step = getattr(store, f'forget_{what}')
    left = '' if what == 'messages' else 'story'
    waiting = [add(store, created_at=NOW - 9) for _ in range(STEP)]
    old = [settled(store, NOW + number) for number in range(STEP + 1)]
    young = settled(store, NOW + MONTH)
    now = NOW + MONTH + STEP + 2
    after = step(now, MONTH)
    assert after == max(one.id for one in waiting)
    assert {told(store, one) for one in old} == {'all'}
    after = step(now, MONTH, after)
    assert after == old[STEP - 1].id
    assert [told(store, one) for one in old] == [left] * STEP + ['all']
    assert step(now, MONTH, after) == ''
    assert {told(store, one) for one in old} == {left}
    assert {told(store, one) for one in (*waiting, young)} == {'all'}


def test_nothing_to_give_up_is_one_step(store):
    for step in (store.forget_bodies, store.forget_messages):
        assert step(NOW, DAY) == ''
        settled(store, NOW)
        assert step(NOW, DAY) == ''


# -- by both clocks ----------------------------------------------------------

@pytest.fixture
def counted(process, machine):
    """A store that has counted leases since NOW."""
    opened = process(machine.clock)
    add_claimed(opened)
    return opened


@on_files
@pytest.mark.parametrize('jump', [HOUR, YEAR, 10 * YEAR])
def test_a_jump_of_the_wall_clock_makes_nothing_older(
        counted, machine, jump):
    one = settled(counted)
    counted.add(message(), email(), key=KEY)
    machine.pass_by(HOUR)
    machine.jump(jump)
    before = rows(counted)
    for step in (counted.forget_bodies, counted.forget_messages):
        forget(step, machine.now, DAY)
    counted.forget_keys(machine.now)
    assert rows(counted) == before
    assert counted.known(POOL, KEY, machine.now)
    machine.pass_by(DAY)
    for step in (counted.forget_bodies, counted.forget_messages):
        forget(step, machine.now, DAY)
    assert told(counted, one) == ''


@on_files
def test_nothing_is_old_by_the_steady_clock_alone(counted, machine):
    one = settled(counted)
    machine.jump(-YEAR)
    machine.pass_by(MONTH)
    for step in (counted.forget_bodies, counted.forget_messages):
        forget(step, machine.now, DAY)
    assert told(counted, one) == 'all'


@on_files
def test_after_another_boot_the_wall_clock_is_believed(process, machine):
    before = process(machine.clock)
    add_claimed(before)
    one = settled(before)
    before.close()
    machine.jump(MONTH + 1)
    machine.start_anew()
    forget(process(machine.clock).forget_messages, machine.now, MONTH)
    assert told(before, one) == ''


# -- keys --------------------------------------------------------------------

def keys(store):
    with store._database.read() as connection:
        return connection.exec_driver_sql(
            'SELECT count(*) FROM idempotency').scalar()


def test_a_key_is_forgotten_after_24_hours_and_not_before(store):
    store.add(message(), email(), key=KEY)
    store.forget_keys(NOW + DAY - 0.01)
    assert store.known(POOL, KEY, NOW + DAY - 0.01) and keys(store) == 1
    store.forget_keys(NOW + DAY)
    assert keys(store) == 0


def test_a_key_outlives_the_content_it_was_given_for(store):
    one = settled(store)
    two = message(state='accepted', next_attempt_at=None)
    store.add(two, email(), key=KEY)
    forget(store.forget_bodies, NOW + HOUR, 60)
    assert told(store, one) == told(store, two) == 'story'
    assert store.known(POOL, KEY, NOW + HOUR) == {0: two.id}
    with pytest.raises(KeyReused):
        store.known(POOL, KEY._replace(fingerprint='c' * 64), NOW + HOUR)
