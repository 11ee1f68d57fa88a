"""Every statement of a store is served by an index: each is looked at."""

import pytest

from backends import email, message, migrated, on_files
from clocks import DAY, machine, process
from whole_way import STATEMENTS, give_up, noted, put_aside, whole_way

__all__ = ['machine', 'migrated', 'process']    # the fixtures
pytestmark = on_files

# One row for each process, each account, or in all.
SMALL = ('workers', 'health', 'lease_clock')
ONCE_A_BOOT = {'END_ALL_LEASES'}


@pytest.fixture
def seen(process, machine):
    """A store, and each SQL text it ran with the statements' names and the
    parameters, after messages have gone their whole way."""
    texts = {}
    with noted(texts):
        store = process(machine.clock)
        whole_way(store)
        machine.pass_by(9 * DAY)
        give_up(store, machine.now)
        store.close()
        machine.start_anew()
        store = process(machine.clock)
        store.add(message(machine.now), email())
        put_aside(store)
    return store, texts


def test_every_query_is_served_by_an_index(seen):
    store, texts = seen
    assert STATEMENTS.keys() - {
        name for names, _ in texts.values() for name in names} == {'LOCK'}
    paged = False
    for text, (names, parameters) in texts.items():
        with store._database.read() as connection:
            plan = [row[3] for row in connection.exec_driver_sql(
                f'EXPLAIN QUERY PLAN {text}', parameters)]
        told = f'{names} {text}\n{plan}'
        if not names & ONCE_A_BOOT:
            assert not [
                step for step in plan if step.startswith('SCAN')
                and 'ix_messages_unsettled' not in step
                and step.split()[1] not in SMALL], told
        assert not [step for step in plan if 'TEMP' in step], told
        # A page in a state must not read the pool's messages in others.
        if 'messages.state = ' in text and 'LIMIT' in text \
                and 'recipients' not in text:
            assert 'ix_messages_pool_state (pool=? AND state=?' in plan[0]
            paged = True
    assert paged
