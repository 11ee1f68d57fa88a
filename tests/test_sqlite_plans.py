"""Every statement of a store is served by an index: each is looked at."""

import pytest
from sqlalchemy import Engine, Select, UpdateBase, event

from stampman.helpers.delivery import Claim, IdempotencyKey, State
from stampman.helpers.exceptions import KeyTaken
from stampman.store import _statements as sql
from stampman.store.base import Filter, HealthRow

from backends import NOW, POOL, attempt, email, ended, message, migrated
from clocks import DAY, machine, process
from mixed import ANN, BO, fared

__all__ = ['machine', 'migrated', 'process']    # the fixtures

STATEMENTS = {
    **{name: one for name, one in vars(sql).items()
       if name[0] != '_' and isinstance(one, Select | UpdateBase)},
    **{f'PAGES {which}': page for which, page in sql.PAGES.items()}}
# One row for each process, each account, or in all.
SMALL = ('workers', 'health', 'lease_clock')
ONCE_A_BOOT = {'END_ALL_LEASES'}
KEY = IdempotencyKey('a' * 64, 'b' * 64)


def whole_way(store):
    """Do everything that is done for a message, a page, or each second."""
    parts = [{'filename': 'a', 'content': 'AA=='}]
    store.add(message(), email(attachments=parts), rate=100, key=KEY)
    with pytest.raises(KeyTaken):
        store.add(message(), email(), rate=100, key=KEY)
    [(claim, one)] = store.claim_due('worker', NOW, NOW + 60)
    begun = attempt()
    claim = store.begin(claim, begun, NOW + 60)
    store.end(ended(begun, 'deferred'), one.id)
    store.add(message(), email(), rate=100)
    store.begin(claim, attempt(replays=begun.id), NOW - 1)
    [(claim, one)] = store.claim_due('worker', NOW - 9, NOW + 90, limit=5)
    assert not store.finish(claim, State.uncertain, round=1, uncertain=7)
    store.finish(claim, State.uncertain, round=1)
    store.change(POOL, one.id, [State.uncertain], State.deferred,
                 resolved='not_sent', next_attempt_at=NOW + 99)
    store.hasten([POOL], NOW + 5)
    store.bring_back(NOW, 1)
    replay = attempt(replays=begun.id)
    [(claim, one)] = store.claim_due('worker', NOW + 5, NOW + 90)
    store.begin(claim, replay, NOW + 90)
    store.end(ended(replay, 'accepted'), one.id)
    store.email(one.id)
    for recipient in (None, 'to@example.org'):
        for state in (None, State.accepted):
            store.page(POOL, Filter(state, recipient, NOW, NOW + 9, one.id))
    store.waiting()
    shared(store)
    told_apart(store)
    store.erase(POOL, one.id, NOW)


def shared(store):
    for version in (1, 2):
        store.put_health(HealthRow('a', version, {}), NOW)
    store.health()
    for _ in range(2):
        store.check_writable(NOW)
        store.beat('worker', NOW)
    store.last_beat()


def told_apart(store):
    one = message(state='sending', recipients=[ANN, BO])
    claim = Claim(one.id, 'worker', 1, NOW + 60)
    store.add(one, email(), claim)
    begun = attempt()
    claim = store.begin(claim, begun, NOW + 60)
    ends = [begun.model_copy(update={
        'ended_at': NOW, 'outcome': fared(ann='accepted', bo=bo)})
        for bo in ('deferred', 'deferred', 'accepted')]
    for end in ends[:2]:
        store.end(end, one.id, claim)
    store.finish(claim, State.deferred, round=1, recipients=(
        store.message(POOL, one.id).recipients))
    store.change(POOL, one.id, [State.deferred], State.cancelled)
    store.end(ends[2], one.id, claim)
    failed = message(state='failed')
    store.add(failed, email())
    store.change(POOL, failed.id, [State.failed], State.queued,
                 restart=True, next_attempt_at=NOW + DAY)


@pytest.fixture
def seen(process, machine):
    """A store, and each SQL text it ran with the statements' names and the
    parameters, after messages have gone their whole way."""
    store, texts = process(machine.clock), {}

    def note(connection, cursor, text, parameters, context, many):
        ours = context.compiled and context.compiled.statement
        names = {name for name, one in STATEMENTS.items() if one is ours}
        before, _ = texts.get(text, (set(), None))
        texts[text] = before | names, parameters[0] if many else parameters

    event.listen(Engine, 'before_cursor_execute', note)
    try:
        whole_way(store)
        machine.pass_by(9 * DAY)
        store.forget_bodies(machine.now, DAY)
        store.forget_messages(machine.now, DAY)
        store.forget_keys(machine.now)
        store.close()
        machine.start_anew()
        store = process(machine.clock)
        store.add(message(machine.now), email())
        store._database.write(lambda connection: connection.execute(
            sql.PUT_ASIDE, {'of': 'x', 'later': NOW, 'run_out': NOW}))
    finally:
        event.remove(Engine, 'before_cursor_execute', note)
    return store, texts


def test_every_query_is_served_by_an_index(seen):
    store, texts = seen
    assert STATEMENTS.keys() - {
        name for names, _ in texts.values() for name in names} == set()
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
