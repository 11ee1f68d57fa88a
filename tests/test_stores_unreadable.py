"""A message that this program cannot read keeps no other from being sent."""

import sqlite3

import pytest

from stampman.helpers.delivery import State
from stampman.store import open_store

from backends import NOW, POOL, add, attempt, ended


@pytest.mark.parametrize('was', ['deferred', 'sending'])
def test_one_that_cannot_be_read_is_put_aside(tmp_path, caplog, was):
    path = tmp_path / 'messages.db'
    store = open_store(f'sqlite:///{path}')
    store.migrate()
    ids = {add(store).id, add(store).id}
    [(claim, odd)] = store.claim_due('worker', NOW, NOW + 30)
    begun = attempt()
    store.begin(claim, begun, NOW + 30)
    store.end(ended(begun, 'deferred'), odd.id)
    if was == 'deferred':
        store.finish(claim, State.deferred, round=1, next_attempt_at=NOW)
    store.close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE attempts SET kind = 'of a later release'")
    database.close()

    later = NOW + 31
    claimed = [one.claim.message_id for _ in range(4)
               for one in store.claim_due('worker', later, later + 3600)]
    assert len(claimed) == 1
    assert set(claimed) == ids - {odd.id}
    assert 'cannot be read' in caplog.text
    waiting = store.waiting()
    assert sum(waiting.values()) == 2 and {pool for pool, _ in waiting} == {
        POOL}
    store.close()
