"""The stores that the contract is held against, and what is put in them."""

import functools
import shutil

import pytest
import uuid_utils

from stampman.helpers.delivery import (
    Attempt, Claim, Kind, Message, Outcome, Recipient, State)
from stampman.helpers.mail import submission
from stampman.store.sql import SqlStore

NOW = 1_800_000_000.0       # seconds since the epoch
POOL = 'example.com'
FILES = {
    'sqlite-wal': {'journal_mode': 'wal'},
    'sqlite-rollback': {'journal_mode': 'delete'}}
POSTGRES = 'postgresql'
BACKENDS = [*FILES, POSTGRES]
# For tests that are about a file, or a clock that is not a server's.
on_files = pytest.mark.parametrize(
    'migrated', FILES, indirect=True, scope='session')


def sqlite_store(directory, **options):
    return SqlStore.at(f'sqlite:///{directory}/messages.db', **options)


@pytest.fixture(scope='session', params=BACKENDS)
def migrated(request, tmp_path_factory):
    """A function that makes a database with the schema, and empty, in a
    folder if it is a file; it returns a function that opens its store."""
    if request.param == POSTGRES:
        server = request.getfixturevalue('postgres_server')
        name = request.getfixturevalue('postgres_contract')

        def emptied(folder):
            server.empty(name)
            return functools.partial(SqlStore.at, server.url(name))

        return emptied
    directory = tmp_path_factory.mktemp(request.param)
    options = FILES[request.param]
    opened = sqlite_store(directory, **options)
    opened.migrate()
    opened.close()

    def copied(folder):
        shutil.copytree(directory, folder, dirs_exist_ok=True)
        return functools.partial(sqlite_store, folder, **options)

    return copied


@pytest.fixture
def store(migrated, tmp_path):
    """A fresh store of each backend."""
    opened = migrated(tmp_path)()
    yield opened
    opened.close()


def new_id(now):
    return str(uuid_utils.uuid7(nanoseconds=int(now * 1e9)))


def message(created_at=NOW, recipients=('to@example.org',), **fields):
    state = State(fields.pop('state', State.queued))
    due = created_at if state is State.queued else None
    return Message(**{
        'id': new_id(created_at), 'pool': POOL, 'state': state,
        'created_at': created_at, 'expires_at': created_at + 3600,
        'on_uncertain': 'failover', 'next_attempt_at': due,
        'recipients': [Recipient(email=one, kind='to', status=str(state))
                       for one in recipients], **fields})


def email(**fields):
    return submission({
        'from': 'Shop <shop@example.com>', 'to': 'to@example.org',
        'subject': 'Hello', 'content': 'Hi', **fields}).email()


def attempt(started_at=NOW, **fields):
    return Attempt(**{
        'id': new_id(started_at), 'service': 'one', 'provider': 'capture',
        'round': 0, 'started_at': started_at, **fields})


def ended(begun, kind, at=NOW + 1, **fields):
    return begun.model_copy(update={
        'ended_at': at, 'outcome': Outcome(kind=Kind(kind), **fields)})


def add(store, **fields):
    """Store a message that waits; return it."""
    stored = message(**fields)
    store.add(stored, email())
    return stored


def add_claimed(store, owner='request', lease_until=NOW + 30, **fields):
    """Store a message that is claimed; return it and its claim."""
    stored = message(state='sending', **fields)
    claim = Claim(stored.id, owner, 1, lease_until)
    store.add(stored, email(), claim)
    return stored, claim


def held(store, *kinds, state=State.uncertain, **fields):
    """Store a message whose attempts ended so, given back in `state`."""
    stored, claim = add_claimed(store, **fields)
    for kind in kinds:
        begun = attempt()
        claim = store.begin(claim, begun, NOW + 60)
        store.end(ended(begun, kind), stored.id)
    store.finish(claim, state, round=1, reason='as it was')
    return store.message(POOL, stored.id)


def ids(claimed):
    return [one.message.id for one in claimed]
