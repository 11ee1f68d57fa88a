"""What a worker's rounds do beside showing that it is alive."""

import logging

import pytest

from stampman.helpers.delivery import State
from stampman.helpers.exceptions import StoreUnavailable
from stampman.store._retention import STEP
from stampman.store.base import Entry
from stampman.upkeep import BETWEEN_LOOKS, LONGEST_WAIT, PRUNE_STEPS, Upkeep

from backends import (
    NOW, POOL, add, add_claimed, email, held, ids, message, migrated,
    on_files, store)
from clocks import DAY, HOUR, YEAR, machine, process

__all__ = ['machine', 'migrated', 'process', 'store']   # the fixtures


class Keeps:
    """The part of a config that says how long what is kept."""

    keep_bodies, keep_messages = 30, 90


@pytest.fixture
def upkeep(store, machine):
    return Upkeep(store, machine.clock, Keeps)


# -- a clock that was set back -----------------------------------------------

def waiting(store, state, due, **fields):
    one = message(state=state, next_attempt_at=due, **fields)
    store.add(one, email())
    return one


@pytest.mark.parametrize('state', [
    State.queued, State.deferred, State.uncertain])
@pytest.mark.parametrize('back', [2 * HOUR, DAY, YEAR, 10 * YEAR])
def test_nothing_waits_for_a_time_that_the_clock_was_set_back_from(
        store, machine, upkeep, state, back, caplog):
    caplog.set_level(logging.WARNING, 'stampman')
    stuck = {waiting(store, state, NOW + 1).id,
             waiting(store, state, NOW + 1, send_at=NOW - 9).id}
    machine.jump(-back)
    upkeep.bring_back()
    assert set(ids(store.claim_due(
        'x', machine.now, machine.now + 30, limit=9))) == stuck
    assert caplog.text.count('the clock was set back: 2 messages') == 1


def test_no_planned_wait_is_cut_short(store, machine, upkeep, caplog):
    for state in (State.deferred, State.uncertain):
        waiting(store, state, NOW + LONGEST_WAIT)
    upkeep.bring_back()
    assert not store.claim_due('x', NOW + LONGEST_WAIT - 1, NOW + YEAR)
    assert 'set back' not in caplog.text


def test_what_is_scheduled_held_or_claimed_stays(store, machine, upkeep):
    later = add(store, send_at=NOW + 30 * DAY,
                next_attempt_at=NOW + 30 * DAY)
    claimed, _ = add_claimed(store, lease_until=NOW + DAY)
    stays = [later.id, claimed.id, held(store, 'uncertain').id,
             held(store, 'refused', state=State.failed).id]
    before = [store.message(POOL, id) for id in stays]
    machine.jump(-YEAR)
    upkeep.bring_back()
    assert [store.message(POOL, id) for id in stays] == before
    assert not store.claim_due('x', machine.now, machine.now + 30)


def test_it_looks_once_in_ten_minutes_and_again_when_it_could_not(
        store, machine):
    store_fails = Fails(store)
    upkeep = Upkeep(store_fails, machine.clock, Keeps)
    with pytest.raises(StoreUnavailable):
        upkeep.bring_back()
    upkeep.bring_back()
    assert store_fails.asked == 2
    machine.jump(YEAR)              # no reason to look
    machine.pass_by(BETWEEN_LOOKS - 1)
    upkeep.bring_back()
    assert store_fails.asked == 2
    machine.pass_by(1)
    upkeep.bring_back()
    assert store_fails.asked == 3


class Fails:
    """A store that is away when it is asked first."""

    def __init__(self, store):
        self._store = store
        self.asked = 0

    def bring_back(self, now, ahead):
        self.asked += 1
        if self.asked == 1:
            raise StoreUnavailable('locked')
        return self._store.bring_back(now, ahead)


# -- retention ---------------------------------------------------------------

def settled(store, at=NOW):
    one = message(at, state='accepted', next_attempt_at=None)
    store.add(one, email())
    return one


def left(store):
    with store._database.read() as connection:
        return tuple(connection.exec_driver_sql(
            f'SELECT count(*) FROM {table}').scalar()
            for table in ('emails', 'messages'))


@pytest.mark.parametrize('days, kept', [
    (29.9, (1, 1)), (30.1, (0, 1)), (89.9, (0, 1)), (90.1, (0, 0))])
def test_content_and_messages_go_when_the_config_says(
        store, machine, upkeep, days, kept):
    settled(store)
    machine.pass_by(days * DAY)
    upkeep.prune()
    assert left(store) == kept


def test_a_look_takes_few_steps_and_the_next_goes_on(
        store, machine, upkeep):
    each = STEP * PRUNE_STEPS
    store.add_all([entry(number) for number in range(each + 1)])
    add(store, created_at=NOW - 1)
    machine.pass_by(31 * DAY)
    upkeep.prune()
    assert left(store) == (3, each + 2)
    upkeep.prune()
    assert left(store) == (1, each + 2)
    upkeep.prune()                  # from the start again
    assert left(store) == (1, each + 2)


def entry(number):
    return Entry(number, message(
        NOW + number, state='accepted', next_attempt_at=None), email())


def test_one_that_is_settled_late_is_found_by_a_later_look(
        store, machine, upkeep):
    _, claim = add_claimed(store, lease_until=NOW + YEAR)
    machine.pass_by(31 * DAY)
    upkeep.prune()
    assert left(store) == (1, 1)
    store.finish(claim, State.failed, round=1)
    upkeep.prune()
    assert left(store) == (0, 1)


@on_files
@pytest.mark.parametrize('jump', [YEAR, 10 * YEAR])
def test_a_jump_of_the_wall_clock_deletes_nothing(process, machine, jump):
    store = process(machine.clock)
    upkeep = Upkeep(store, machine.clock, Keeps)
    add_claimed(store)
    settled(store)
    machine.pass_by(HOUR)
    machine.jump(jump)
    upkeep.prune()
    assert left(store) == (2, 2)
