"""A COMMIT that a disk lets fail: what is said of it is true.

The kernel refuses to sync, to the threads of these tests alone.
"""

import os
import resource
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stampman.helpers.delivery import State, Timing
from stampman.helpers.exceptions import CommitUnknown, StoreUnavailable
from stampman.intake import Intake, idempotency_key
from stampman.store._sqlite_commits import commits_beyond, may_have_happened
from stampman.store._sqlite_troubles import driver
from stampman.store.base import Entry

from backends import (
    FILES, NOW, POOL, add, add_claimed, attempt, email, message, new_id,
    sqlite_store)
from clocks import machine
from failing_syncs import fail_syncs
from fresh import put_fresh
from test_intake import mail, pool

__all__ = ['machine']       # the fixture
LONG = 10.0     # seconds after which a test that waits in vain fails
MODES = [options['journal_mode'] for options in FILES.values()]
KEY = idempotency_key('k', mail())


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


@pytest.fixture
def store(tmp_path, mode):
    put_fresh(tmp_path / 'messages.db')
    opened = sqlite_store(tmp_path, journal_mode=mode)
    add(opened)         # its connections are made
    yield opened
    opened.close()


wal = pytest.mark.parametrize('mode', ['wal'], indirect=True)
rollback = pytest.mark.parametrize('mode', ['delete'], indirect=True)


def on_a_bad_disk(call, of=None):
    """Do it in a thread whose syncs fail; return what it raises, or None."""
    told = []

    def run():
        fail_syncs(of)
        try:
            told.append(call())
        except StoreUnavailable as error:
            told.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(LONG)
    return told[0]


def crashed(store, folder):
    """Return what is there where the process dies now, and its disk has got
    all that was written."""
    path = Path(store._database.path)
    folder.mkdir()
    for name in (path.name, f'{path.name}-wal', f'{path.name}-journal'):
        if (path.parent / name).exists():
            shutil.copy(path.parent / name, folder)
    found = sqlite_store(folder, journal_mode=store._database.journal_mode)
    there = {one.id for one in found.page(POOL)[0]}
    found.close()
    return there


def there(store):
    return {one.id for one in store.page(POOL)[0]}


# -- what is said, and what is there -----------------------------------------

@wal
def test_a_commit_that_is_written_and_not_synced_is_unknown(store, tmp_path):
    """Here it seems not to be there; after a crash it is."""
    one, before = message(), there(store)
    told = on_a_bad_disk(lambda: store.add(one, email()))
    assert isinstance(told, CommitUnknown)
    assert 'may have happened' in told.detail and told.retry_after == 2
    assert there(store) == before
    assert crashed(store, tmp_path / 'then') == before | {one.id}


@wal
def test_what_is_written_next_settles_it(store, tmp_path):
    one, other, before = message(), message(), there(store)
    assert on_a_bad_disk(lambda: store.add(one, email()))
    store.add(other, email())
    assert there(store) == before | {other.id}
    assert crashed(store, tmp_path / 'then') == before | {other.id}


def test_it_can_be_written_again(store, tmp_path):
    one, before = message(), there(store)
    assert on_a_bad_disk(lambda: store.add(one, email()))
    store.add(one, email())
    assert there(store) == before | {one.id}
    assert crashed(store, tmp_path / 'then') == before | {one.id}


@rollback
def test_a_journal_that_is_not_synced_has_surely_changed_nothing(
        store, tmp_path):
    one, before = message(), there(store)
    told = on_a_bad_disk(lambda: store.add(one, email()))
    assert isinstance(told, StoreUnavailable)
    assert not isinstance(told, CommitUnknown)
    assert crashed(store, tmp_path / 'then') == before
    assert there(store) == before


def test_a_journal_that_is_gone_is_believed_when_that_is_synced(tmp_path):
    """Until then it may come back, and undo what it was for."""
    told = subprocess.run(
        [sys.executable, '-m', 'unsynced_journal', str(tmp_path)],
        cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    assert told.stdout.split() == ['CommitUnknown', 'StoreUnavailable', '1']


def test_one_that_was_refused_its_lock_has_surely_not_happened(
        store, tmp_path):
    other = driver.connect(tmp_path / 'messages.db', isolation_level=None)
    other.execute('BEGIN IMMEDIATE')
    with pytest.raises(StoreUnavailable, match='locked') as refused:
        sqlite_store(tmp_path, busy_timeout=0.05,
                     journal_mode=store._database.journal_mode
                     ).add(message(), email())
    assert not isinstance(refused.value, CommitUnknown)
    other.close()


@wal
def test_a_write_that_fails_has_surely_not_committed(store):
    """Whatever of the commit's frames there is, but for a byte."""
    log, one = Path(f'{store._database.path}-wal'), message()
    assert on_a_bad_disk(lambda: store.add(one, email()))
    whole, known = log.read_bytes(), frames_known(store)
    assert known > 0 and commits_beyond(log, known)
    for damaged in (whole[:-1], whole[:-5000], b'',
                    whole[:-1] + bytes([whole[-1] ^ 1])):
        cut = log.with_name('cut')
        cut.write_bytes(damaged)
        assert not commits_beyond(cut, known)


@wal
@pytest.mark.parametrize('in_file', [1, 2, 9])
def test_the_log_is_read_as_sqlite_does(store, in_file):
    """From its very beginning, where nothing of it is known."""
    log = Path(f'{store._database.path}-wal')
    for _ in range(in_file):
        add(store)
    assert commits_beyond(log, 0)
    assert not commits_beyond(log, frames_known(store))


@wal
def test_a_file_that_may_not_grow_leaves_nothing_unknown(store):
    """The whole process may write no further than its log has come."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (
        os.path.getsize(f'{store._database.path}-wal') + 5000, hard))
    try:
        with pytest.raises(StoreUnavailable, match='is full') as refused:
            store.add(message(), email())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not isinstance(refused.value, CommitUnknown)
    add(store)


def frames_known(store):
    with store._database._raw() as connection:
        return connection.execute(
            'PRAGMA wal_checkpoint(NOOP)').fetchone()[1]


@pytest.mark.parametrize('name, unknown', [
    ('SQLITE_BUSY', False), ('SQLITE_FULL', False),
    ('SQLITE_CONSTRAINT_FOREIGNKEY', False), ('SQLITE_IOERR', False),
    ('SQLITE_IOERR_WRITE', False), ('SQLITE_IOERR_FSYNC', False),
    ('SQLITE_IOERR_DIR_FSYNC', True), ('SQLITE_IOERR_DELETE', True)])
@rollback
def test_which_errors_leave_a_commit_unknown(store, name, unknown):
    error = driver.OperationalError('as SQLite has it')
    error.sqlite_errorname = name
    with store._database._raw() as connection:
        assert may_have_happened(connection, error) is unknown


# -- those who share it ------------------------------------------------------

@wal
def test_each_member_of_a_group_is_told(store, tmp_path):
    """The one who leads has the bad disk; the other waits for him."""
    database, ones, told = store._database, [message(), message()], {}
    inside, leave = threading.Event(), threading.Event()

    def hold(connection):
        inside.set()
        assert leave.wait(LONG)

    def send(number, bad):
        if bad:
            fail_syncs()
        try:
            store.add(ones[number], email())
        except StoreUnavailable as error:
            told[number] = error

    threads = [threading.Thread(target=database.write, args=(hold,))]
    threads[0].start()
    assert inside.wait(LONG)
    waiting = database._opened.group._waiting
    for number, bad in enumerate([True, False]):
        threads.append(threading.Thread(target=send, args=(number, bad)))
        threads[-1].start()
        while len(waiting) <= number:
            assert threads[-1].is_alive()
    leave.set()
    for thread in threads:
        thread.join(LONG)
    assert [type(told[number]) for number in range(2)] == [CommitUnknown] * 2
    assert {one.id for one in ones} <= crashed(store, tmp_path / 'then')


# -- what comes of it --------------------------------------------------------

@wal
@pytest.mark.parametrize('key, advice', [
    (None, '/example.com/messages/0'), (KEY, 'same Idempotency-Key')])
def test_a_client_is_told_what_stays_unknown(store, machine, key, advice):
    intake = Intake(store, new_id, 'me', Entry, machine.clock,
                    machine.pass_by, Timing(request=10.0))
    told = on_a_bad_disk(lambda: intake.submit(pool(), mail(), NOW, key))
    assert isinstance(told, CommitUnknown)
    assert (told.status, told.code) == (504, 'outcome_unknown')
    assert advice in told.detail
    taken = intake.submit(pool(), mail(), NOW, key)     # the disk is well
    found = [store.message(POOL, id) for id in there(store)]
    assert [one for one in found if one.id == taken.message.id] == [
        taken.message]
    assert len(found) == 2


@wal
def test_it_is_stored_once_where_the_disk_is_well_again(store, machine):
    """Another thread is the twin that succeeds."""
    twin = Intake(store, new_id, 'me', Entry, machine.clock, machine.pass_by)
    with ThreadPoolExecutor(1) as well:
        well.submit(lambda: None).result(LONG)      # it has its thread
        first = twin._replace(pause=lambda seconds: taken.append(well.submit(
            twin.submit, pool(), mail(), NOW, KEY).result(LONG)))
        taken = []
        told = on_a_bad_disk(lambda: first.submit(pool(), mail(), NOW, KEY))
    assert told.message == taken[0].message and told.replayed
    assert len(there(store)) == 2
    assert told.message.state is State.queued


@wal
def test_an_attempt_whose_begin_is_unknown_can_begin_again(store):
    there, claim = add_claimed(store)
    begun = attempt()
    assert isinstance(on_a_bad_disk(
        lambda: store.begin(claim, begun, NOW + 60)), CommitUnknown)
    store.begin(claim, begun, NOW + 60)
    assert [one.id for one in store.message(POOL, there.id).attempts] == [
        begun.id]
