"""What a PostgreSQL server may do to a store: nothing is lost or doubled."""

import secrets
import threading
import time

import psycopg
import pytest

from stampman.helpers.delivery import State
from stampman.helpers.exceptions import (
    LeaseLost, NotFound, StoreUnavailable)
from stampman.store import open_store
from stampman.store.base import Filter
from stampman.store.sql import SqlStore

from backends import NOW, POOL, add, attempt, email, ended, ids, message
from postgres import PostgresServer

pytestmark = pytest.mark.long

PATIENCE = 60.0     # seconds; by then a test has failed


@pytest.fixture
def store(url):
    opened = SqlStore.at(url)
    yield opened
    opened.close()


def until_it_works(call):
    give_up_at = time.monotonic() + PATIENCE
    while True:
        try:
            return call()
        except StoreUnavailable:
            assert time.monotonic() < give_up_at
            time.sleep(0.05)


# -- a server that stops and starts ------------------------------------------

@pytest.mark.parametrize('how', ['fast', 'immediate'])
def test_between_two_transactions_a_restart_is_not_seen(
        store, own_postgres, how):
    for number in range(3):
        add(store)
        own_postgres.restart(how)
        assert sum(store.waiting().values()) == number + 1


@pytest.mark.parametrize('how', ['fast', 'immediate'])
def test_a_restart_in_mid_transaction_undoes_it(store, own_postgres, how):
    def work(connection):
        store._claim.__wrapped__(
            store, connection, 'worker', NOW, NOW + 60, 1)
        own_postgres.restart(how)
        store._claim.__wrapped__(
            store, connection, 'worker', NOW, NOW + 60, 1)

    there = add(store)
    with pytest.raises(StoreUnavailable, match='stopping|lost') as away:
        store._database.write(work)
    assert away.value.retry_after == 2
    assert store.message(POOL, there.id).state is State.queued
    assert ids(store.claim_due('worker', NOW, NOW + 60)) == [there.id]


def test_while_it_is_away_everything_is_refused_and_then_goes_on(
        store, own_postgres):
    there = add(store)
    own_postgres.stop()
    for use in (store.waiting, store.migrate, store.schema_problem,
                lambda: add(store), lambda: store.check_writable(NOW),
                lambda: store.claim_due('worker', NOW, NOW + 60)):
        with pytest.raises(StoreUnavailable, match='cannot be reached'):
            use()
    own_postgres.start()
    assert ids(store.claim_due('worker', NOW, NOW + 60)) == [there.id]


def test_while_it_ends_its_connections_are_refused(store, own_postgres):
    """A smart stop waits for those who are connected, and takes no more."""
    add(store)
    other = SqlStore.at(own_postgres.url(
        store._database._parameters['dbname']))
    own_postgres.process.terminate()
    while 'smart shutdown' not in own_postgres.log:
        time.sleep(0.01)
    with pytest.raises(StoreUnavailable, match='stopping or starting'):
        until_refused(other.waiting)
    store.close()
    own_postgres._ended()
    own_postgres.start()
    assert sum(other.waiting().values()) == 1
    other.close()


def until_refused(call):
    give_up_at = time.monotonic() + PATIENCE
    while time.monotonic() < give_up_at:
        call()


def test_what_a_killed_server_had_acknowledged_is_there(store, own_postgres):
    for number in range(3):
        added = {add(store).id for _ in range(20)}
        own_postgres.kill()
        own_postgres.start()
        page, _ = until_it_works(lambda: store.page(POOL, limit=99))
        assert added <= {one.id for one in page}
        assert len(page) == 20 * (number + 1)


# -- one that does not answer ------------------------------------------------

def test_a_server_that_is_frozen_holds_nobody_for_long(url, own_postgres):
    store = SqlStore.at(url, silence=1.0)
    there = add(store)
    own_postgres.freeze()
    began = time.monotonic()
    for use in (lambda: add(store), store.waiting):
        with pytest.raises(StoreUnavailable, match='does not answer'):
            use()
    assert time.monotonic() - began < 20
    own_postgres.thaw()
    page, _ = until_it_works(lambda: store.page(POOL))
    assert there.id in {one.id for one in page}     # and perhaps the other
    store.close()


def test_a_frozen_process_gives_up_its_locks(url, own_postgres, store):
    """Its transaction is ended by the server; it learns that later."""
    frozen = SqlStore.at(url)
    there = add(store)
    inside, leave = threading.Event(), threading.Event()
    told = []

    def work(connection):
        frozen._lock(connection, there.id)
        inside.set()
        leave.wait(PATIENCE)
        frozen._lock(connection, there.id)

    def run():
        try:
            frozen._database.write(work)
        except StoreUnavailable as error:
            told.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    inside.wait(PATIENCE)
    until_it_works(lambda: store.change(
        POOL, there.id, [State.queued], State.cancelled))
    leave.set()
    thread.join()
    assert len(told) == 1
    frozen.close()


# -- one that is full --------------------------------------------------------

def test_when_all_its_connections_are_used_up_it_is_told(
        postgres_installation):
    with PostgresServer(postgres_installation, max_connections='8',
                        superuser_reserved_connections='3') as server:
        store = open_store(server.url(server.new_database()))
        store.migrate()
        store.close()
        name = store._database._parameters['dbname']
        taken = [psycopg.connect(server.url(name)) for _ in range(5)]
        for use in (store.waiting, lambda: add(store), store.migrate):
            with pytest.raises(StoreUnavailable, match='no more conn'):
                use()
        taken.pop().close()
        until_it_works(lambda: add(store))
        for one in taken:
            one.close()
        store.close()


def test_a_disk_that_is_full_takes_nothing_and_loses_nothing(
        store, own_postgres):
    """The server meets a limit to the size of its files, as of a disk."""
    own_postgres.blocks = 10_000        # more than its log's files have
    own_postgres.restart()
    added = []
    with pytest.raises(StoreUnavailable, match='of its own') as full:
        for _ in range(200):
            added.append(message())
            store.add(added[-1], email(content=secrets.token_hex(50_000)))
    assert full.value.retry_after == 2
    page, _ = store.page(POOL, limit=500)       # reading goes on
    assert {one.id for one in page} == {one.id for one in added[:-1]}
    own_postgres.blocks = 'unlimited'
    own_postgres.restart()
    store.add(added[-1], email())


# -- under load --------------------------------------------------------------

class Load:
    """Messages that go their way, and what was acknowledged of it."""

    def __init__(self, url, number):
        self.store = SqlStore.at(url, silence=2.0)
        self.owner = f'load-{number}'
        self.added, self.begun, self.ended = set(), {}, {}
        self.perhaps = set()            # the answer to their commit was lost
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        while not self.stop.is_set():
            for step in (self._add, self._deliver):
                try:
                    step()
                except StoreUnavailable:
                    time.sleep(0.02)

    def _add(self):
        one = message()
        self.perhaps.add(one.id)
        self.store.add(one, email())
        self.added.add(one.id)

    def _deliver(self):
        for claim, one in self.store.claim_due(self.owner, NOW, NOW + 60):
            begun = attempt()
            try:
                self.store.begin(claim, begun, NOW + 60)
            except LeaseLost:
                continue
            self.begun[begun.id] = one.id
            self.store.end(ended(begun, 'accepted'), one.id)
            self.ended[begun.id] = one.id

    def end(self):
        self.stop.set()
        self.thread.join(PATIENCE)
        self.store.close()


@pytest.mark.parametrize('harm', ['immediate', 'fast', 'kill', 'cut'])
def test_under_load_nothing_is_lost_or_doubled(
        store, url, own_postgres, harm):
    loads = [Load(url, number) for number in range(4)]
    for _ in range(5):
        time.sleep(0.4)
        if harm == 'kill':
            own_postgres.kill()
            own_postgres.start()
        elif harm == 'cut':
            own_postgres.disconnect(store._database._parameters['dbname'])
        else:
            own_postgres.restart(harm)
    time.sleep(0.4)
    for load in loads:
        load.end()
    assert_nothing_is_lost_or_doubled(store, loads)


def assert_nothing_is_lost_or_doubled(store, loads):
    added = set().union(*(load.added for load in loads))
    perhaps = set().union(*(load.perhaps for load in loads))
    stored = everything(store)
    assert len(added) > 50
    assert added <= set(stored) <= perhaps
    begun = [one for load in loads for one in load.begun.values()]
    assert len(begun) == len(set(begun)), 'a message was delivered twice'
    for load in loads:
        for attempt_id, message_id in load.begun.items():
            found = stored[message_id]
            assert [one.id for one in found.attempts] == [attempt_id]
            if attempt_id in load.ended:
                assert found.state is State.accepted
    for one in stored.values():     # each still has a way to go, or its end
        assert one.state in (State.queued, State.sending, State.accepted)


def everything(store):
    found, after, more = {}, None, True
    while more:
        page, more = store.page(POOL, limit=500, filter=Filter(after=after))
        for one in page:
            found[one.id] = store.message(POOL, one.id)
        after = page[-1].id if page else None
    with pytest.raises(NotFound):
        store.message(POOL, 'nobody')
    return found
