"""The contract of a store: leases do not run by the wall clock."""

import pytest

from stampman.helpers.delivery import Claim, State
from stampman.helpers.exceptions import LeaseLost

from backends import (
    NOW, POOL, add, add_claimed, attempt, email, ended, ids, message,
    migrated, on_files)
from clocks import DAY, HOUR, YEAR, machine, process

__all__ = ['machine', 'migrated', 'process']    # the fixtures
pytestmark = on_files

JUMPS = {'an hour on': HOUR, 'an hour back': -HOUR, 'years on': 10 * YEAR,
         'years back': -10 * YEAR}
LEASE = 30.0


@pytest.fixture
def store(process, machine):
    return process(machine.clock)


@pytest.fixture(params=JUMPS.values(), ids=JUMPS)
def jump(request):
    return request.param


def claim_due(store, machine, **options):
    return store.claim_due('worker', machine.now, machine.now + LEASE,
                           **options)


def ways_to_hold(store, machine):
    """Hold a message by each of the three ways to get a lease."""
    new = message(machine.now, state='sending')
    store.add(new, email(), Claim(new.id, 'new', 1, machine.now + LEASE))
    add(store, created_at=machine.now)
    [(claimed, _)] = claim_due(store, machine)
    begun = message(machine.now, state='sending')
    claim = Claim(begun.id, 'begun', 1, machine.now + 1)
    store.add(begun, email(), claim)
    store.begin(claim, attempt(machine.now), machine.now + LEASE)
    return {new.id, claimed.message_id, begun.id}


def test_a_jump_rescues_no_live_lease_and_keeps_no_dead_one(
        store, machine, jump):
    held = ways_to_hold(store, machine)
    machine.jump(jump)
    machine.pass_by(LEASE - 0.1)
    assert not claim_due(store, machine)
    machine.pass_by(0.2)
    assert set(ids(claim_due(store, machine, limit=9))) == held


def test_leases_that_are_taken_after_a_jump_are_as_long(
        store, machine, jump):
    add_claimed(store, lease_until=NOW - 1)     # the clock is set
    assert len(claim_due(store, machine)) == 1
    machine.jump(jump)
    machine.pass_by(LEASE + 1)
    assert len(claim_due(store, machine)) == 1
    held = ways_to_hold(store, machine)
    machine.pass_by(LEASE - 0.1)
    assert not set(ids(claim_due(store, machine, limit=9))) & held
    machine.pass_by(0.2)
    assert held <= set(ids(claim_due(store, machine, limit=9)))


def test_a_holder_keeps_its_claim_over_a_jump(store, machine, jump):
    one, claim = add_claimed(store)
    machine.jump(jump)
    assert not claim_due(store, machine)
    begun = attempt(machine.now)
    claim = store.begin(claim, begun, machine.now + LEASE)
    assert claim.lease_until == machine.now + LEASE     # as it was told
    store.end(ended(begun, 'deferred', at=machine.now), one.id)
    assert store.finish(claim, State.deferred, round=1,
                        next_attempt_at=machine.now)


def test_who_was_rescued_is_turned_away_whatever_the_wall_clock_says(
        store, machine, jump):
    _, claim = add_claimed(store)
    machine.pass_by(LEASE + 1)
    machine.jump(jump)
    [(_, rescued)] = claim_due(store, machine)
    with pytest.raises(LeaseLost):
        store.begin(claim, attempt(machine.now), machine.now + LEASE)


def test_another_boot_ends_all_leases(process, machine):
    store = process(machine.clock)
    one, claim = add_claimed(store, lease_until=NOW + DAY)
    store.begin(claim, attempt(), NOW + DAY)
    two, _ = add_claimed(store, lease_until=NOW + DAY)
    store.close()
    machine.pass_by(20)
    machine.start_anew()
    store = process(machine.clock)
    rescued = claim_due(store, machine, limit=5)
    assert set(ids(rescued)) == {one.id, two.id}
    assert {claimed.message.crashes for claimed in rescued} == {0, 1}
    machine.pass_by(LEASE - 1)
    assert not claim_due(store, machine)    # theirs are leases of this boot


def test_the_first_message_of_another_boot_is_its_taker_s(process, machine):
    store = process(machine.clock)
    old, _ = add_claimed(store, lease_until=NOW + DAY)
    machine.pass_by(60)
    machine.start_anew()
    after = process(machine.clock)
    new = message(machine.now, state='sending')
    after.add(new, email(), Claim(new.id, 'x', 1, machine.now + LEASE))
    assert ids(claim_due(after, machine, limit=5)) == [old.id]
    machine.pass_by(LEASE)
    assert new.id in ids(claim_due(after, machine, limit=5))


def test_a_clock_that_was_never_set_ends_no_lease(process, machine):
    """As of processes of an earlier release, which are still draining."""
    held, _ = add_claimed(process(), lease_until=NOW + LEASE)
    store = process(machine.clock)
    assert not claim_due(store, machine)
    add(store)
    assert len(claim_due(store, machine)) == 1
    machine.pass_by(LEASE - 1)
    assert not claim_due(store, machine)
    machine.pass_by(2)
    assert held.id in ids(claim_due(store, machine, limit=5))


def test_a_clock_that_was_set_in_vain_is_set_again(process, machine):
    """What a transaction that is undone had set is not remembered."""
    store = process(machine.clock)
    twin = add(process(), next_attempt_at=NOW + DAY)
    with pytest.raises(Exception, match='(?i)unique'):
        store.add(twin, email())
    machine.jump(HOUR)
    new = message(machine.now, state='sending')
    store.add(new, email(), Claim(new.id, 'x', 1, machine.now + LEASE))
    for one in (store, process(machine.clock)):
        assert not claim_due(one, machine)
    machine.pass_by(LEASE)
    assert ids(claim_due(process(machine.clock), machine)) == [new.id]


def test_processes_count_on_one_clock(process, machine, jump):
    first = process(machine.clock)
    one, _ = add_claimed(first)
    machine.jump(jump)
    second = process(machine.clock)     # it has seen no other time
    assert not claim_due(second, machine)
    two = message(machine.now, state='sending')
    second.add(two, email(), Claim(two.id, 'x', 1, machine.now + 2 * LEASE))
    machine.pass_by(LEASE + 1)
    assert ids(claim_due(first, machine, limit=5)) == [one.id]
    machine.pass_by(LEASE)
    assert two.id in ids(claim_due(first, machine, limit=5))


def test_without_a_boot_leases_run_by_the_time_that_callers_bring(process):
    store = process()
    one, _ = add_claimed(store)
    assert not store.claim_due('worker', NOW + 29.9, NOW + 60)
    assert ids(store.claim_due('worker', NOW + 30, NOW + 60)) == [one.id]


def test_what_waits_is_due_by_the_wall_clock(store, machine):
    """It is a time that people are told."""
    one = add(store, next_attempt_at=NOW + HOUR)
    assert not claim_due(store, machine)
    machine.jump(HOUR)
    assert ids(claim_due(store, machine)) == [one.id]


def spoilt(store, one):
    def spoil(connection):
        connection.exec_driver_sql(
            'UPDATE messages SET state = ? WHERE id = ?',
            ('sending', one.id))
        connection.exec_driver_sql("UPDATE attempts SET kind = 'odd'")

    store._database.write(spoil)


def test_one_that_cannot_be_read_is_put_aside_for_an_hour(
        store, machine, jump, caplog):
    one, claim = add_claimed(store)
    begun = attempt()
    store.begin(claim, begun, NOW + LEASE)
    store.end(ended(begun, 'deferred'), one.id)
    spoilt(store, one)
    machine.pass_by(LEASE)
    machine.jump(jump)
    assert not claim_due(store, machine)
    assert caplog.text.count('cannot be read') == 1
    for _ in range(3):
        assert not claim_due(store, machine)
    assert caplog.text.count('cannot be read') == 1
    machine.pass_by(HOUR + 1)
    assert not claim_due(store, machine)
    assert caplog.text.count('cannot be read') == 2
    assert dict(store.waiting()) == {(POOL, State.sending): 1}
