"""Messages that go their whole way, so that every statement is run."""

import re
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, Select, UpdateBase, event
from sqlalchemy.dialects import sqlite
from sqlalchemy.pool import Pool

from stampman.helpers.delivery import Claim, IdempotencyKey, State
from stampman.helpers.exceptions import KeyTaken
from stampman.store import _statements as sql
from stampman.store._hot import Hot
from stampman.store.base import Filter, HealthRow

from backends import NOW, POOL, attempt, email, ended, message
from clocks import DAY
from mixed import ANN, BO, fared

HOT = {name: str(one.statement.compile(dialect=sqlite.dialect()))
       for name, one in vars(sql).items() if isinstance(one, Hot)}
STATEMENTS = {
    **{name: one for name, one in vars(sql).items()
       if name[0] != '_' and isinstance(one, Hot | Select | UpdateBase)},
    **{f'PAGES {which}': page for which, page in sql.PAGES.items()}}
KEY = IdempotencyKey('a' * 64, 'b' * 64)


@contextmanager
def noted(texts):
    """Note each SQL text that is run, in a block that opens its database,
    with the statements' names and the parameters.

    What is hot passes SQLAlchemy by: SQLite tells of it, as it ran it.
    """
    shapes = {name: re.compile(re.escape(text).replace(r'\?', '.*'), re.DOTALL)
              for name, text in HOT.items()}

    def note(connection, cursor, text, parameters, context, many):
        ours = context.compiled and context.compiled.statement
        names = {name for name, one in STATEMENTS.items() if one is ours}
        before, _ = texts.get(text, (set(), None))
        texts[text] = before | names, parameters[0] if many else parameters

    def note_hot(ran):
        for name, shape in shapes.items():
            if shape.fullmatch(ran):
                before, _ = texts.get(HOT[name], (set(), None))
                texts[HOT[name]] = (
                    before | {name}, HOT[name].count('?') * (None,))

    def trace(connection, _):
        connection.set_trace_callback(note_hot)

    listeners = ((Engine, 'before_cursor_execute', note),
                 (Pool, 'connect', trace))
    for one in listeners:
        event.listen(*one)
    try:
        yield
    finally:
        for one in listeners:
            event.remove(*one)


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


def give_up(store, now):
    """Forget all that is a day old."""
    store.forget_bodies(now, DAY)
    store.forget_messages(now, DAY)
    store.forget_keys(now)


def put_aside(store):
    store._database.write(lambda connection: connection.execute(
        sql.PUT_ASIDE, {'of': 'x', 'later': NOW, 'run_out': NOW}))
