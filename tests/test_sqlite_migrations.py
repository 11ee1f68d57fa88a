"""What an older release left in the file is read, and goes its way."""

import json

import pytest
from alembic import command

from stampman.helpers.delivery import IdempotencyKey, Kind, State
from stampman.store import migrations
from stampman.store.base import ORPHANED, Filter
from stampman.store.schema import HEAD

from backends import NOW, POOL, email, message, new_id, sqlite_store
from clocks import DAY, machine

__all__ = ['machine']       # the fixture

OLD = ['0001', '0002']
CONTENT = json.dumps({
    'from_email': 'shop@example.com', 'from_name': 'Shop',
    'recipients': [{'email': 'a@x.org', 'name': 'A'}], 'cc': [], 'bcc': [],
    'reply_to': [], 'subject': 'Hello', 'content': 'Hi', 'html': None,
    'headers': {}, 'attachments': [{
        'filename': 'a', 'content_type': 'text/plain', 'content_id': None}],
    'tags': ['one'], 'metadata': {}, 'track_opens': None,
    'track_clicks': None})
STATES = {'queued': NOW, 'deferred': NOW + 5, 'sending': None,
          'uncertain': None, 'accepted': None}


class Older:
    """A database as of a release, with a message in each of some states."""

    def __init__(self, directory, revision, clock):
        self.revision = revision
        self.ids = {state: new_id(NOW - 60) for state in STATES}
        store = sqlite_store(directory)
        store._database.create()
        store._database.write(self.fill_all)
        store.close()
        self.store = sqlite_store(directory, clock=clock)

    def fill_all(self, connection):
        command.upgrade(migrations.config(connection), self.revision)
        self.connection = connection
        for state, due in STATES.items():
            self.fill(self.ids[state], state, due)
        self.insert('health', key='a', version=3, state='{"trips": 1}',
                    updated_at=NOW)
        self.insert('rates', pool=POOL, free=0.5, counted_at=NOW)
        self.insert('workers', owner='w', beaten_at=NOW)

    def insert(self, table, **row):
        self.connection.exec_driver_sql(
            f'INSERT INTO {table} ({", ".join(row)}) '
            f'VALUES ({", ".join("?" * len(row))})', tuple(row.values()))

    def fill(self, id, state, due):
        sending = state == 'sending'
        self.insert(
            'messages', id=id, pool=POOL, state=state, created_at=NOW - 60,
            expires_at=NOW + DAY, on_uncertain='failover', round=1,
            next_attempt_at=due, restarted_after=0, crashes=0,
            possible_duplicate=False, reason='why', fence=4,
            leased_by='old' if sending else None,
            lease_until=NOW + 20 if sending else None)
        self.insert('emails', message_id=id, content=CONTENT)
        self.insert('attachments', message_id=id, position=0, content=b'AA')
        self.insert('recipients', message_id=id, position=0, kind='to',
                    email='A@x.org', mailbox='a@x.org', status=state,
                    reason='')
        ended = {} if sending else {
            'ended_at': NOW - 40, 'outcome': '{"reason": "busy"}',
            'kind': {'queued': 'deferred'}.get(state, state)}
        self.insert('attempts', message_id=id, id=new_id(NOW), number=1,
                    service='one', provider='capture', round=0,
                    started_at=NOW - 50, **ended, **(
                        {} if self.revision == '0001'
                        else {'envelope': '["A@x.org"]'}))

    def message(self, state):
        return self.store.message(POOL, self.ids[state])


@pytest.fixture(params=OLD)
def older(request, tmp_path, machine):
    made = Older(tmp_path, request.param, machine.clock)
    assert made.store.migrate() is True
    yield made
    made.store.close()


def test_the_schema_is_then_this_program_s(older):
    assert older.store.schema_problem() == ''
    assert older.store.migrate() is False
    assert HEAD not in OLD


def test_what_was_stored_is_read(older):
    for state, due in STATES.items():
        told = older.message(state)
        assert (told.state, told.next_attempt_at) == (state, due)
        assert (told.send_at, told.erased_at) == (None, None)
        [attempt], [recipient] = told.attempts, told.recipients
        assert attempt.replays is None
        assert attempt.envelope == (
            None if older.revision == '0001' else ('A@x.org',))
        assert recipient.email == 'A@x.org'
        content = older.store.email(told.id)
        assert content.subject == 'Hello'
        assert content.attachments[0].content == b'AA'
    page, _ = older.store.page(POOL, Filter(recipient='a@X.org'))
    assert {one.id for one in page} == set(older.ids.values())
    assert older.store.health()['a'].version == 3
    assert older.store.last_beat() == NOW


def test_what_was_on_its_way_goes_on(older):
    store, lease = older.store, NOW + 30
    [(claim, one)] = store.claim_due('new', NOW, lease)
    assert one.id == older.ids['queued'] and claim.fence == 5
    [(_, one)] = store.claim_due('new', NOW + 5, lease)
    assert one.id == older.ids['deferred']
    assert not store.claim_due('new', NOW + 19, lease)


def test_a_lease_of_an_older_process_lasts_as_long_as_it_was_told(
        older, machine):
    """It may be draining: what it sends is not sent a second time."""
    store = older.store
    machine.pass_by(19)
    taken = store.claim_due('new', machine.now, NOW + 99, limit=9)
    assert older.ids['sending'] not in {one.message.id for one in taken}
    machine.pass_by(2)
    [(_, rescued)] = store.claim_due('new', machine.now, NOW + 99)
    assert rescued.id == older.ids['sending']
    assert rescued.crashes == 1
    assert rescued.attempts[0].outcome.kind is Kind.uncertain
    assert rescued.attempts[0].outcome.reason == ORPHANED


def test_old_messages_are_given_up_and_erased_like_new_ones(older, machine):
    store, id = older.store, older.ids['accepted']
    store.forget_bodies(NOW + DAY, DAY)
    erased = store.erase(POOL, id, NOW)
    assert [one.email for one in erased.recipients] == ['erased-1']
    assert 'x.org' not in str(erased)
    store.forget_messages(NOW + DAY, DAY)
    assert {one.state for one in store.page(POOL)[0]} == {
        State.queued, State.deferred, State.sending, State.uncertain}


def test_keys_and_schedules_work_at_once(older):
    key = IdempotencyKey('a' * 64, 'b' * 64)
    one = message(send_at=NOW + 9, next_attempt_at=NOW + 9)
    older.store.add(one, email(), key=key)
    assert older.store.known(POOL, key, NOW) == {0: one.id}
    assert older.store.message(POOL, one.id) == one
