"""A store in an SQLite file, shared by processes: real ones."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from stampman.helpers.exceptions import StoreUnavailable
from stampman.store.base import ORPHANED

from backends import NOW, POOL, add, ids, sqlite_store

pytestmark = pytest.mark.long

CHILD = Path(__file__).with_name('store_child.py')
LONG = 60       # seconds; by then a test has failed


class Child:
    """A process that does one thing of store_child.py."""

    def __init__(self, directory, what):
        self.process = subprocess.Popen(
            [sys.executable, CHILD, directory, what], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def wait_until_ready(self):
        assert self.process.stdout.readline() == 'ready\n'

    def go(self):
        self.process.stdin.write('go\n')
        self.process.stdin.flush()

    def lines(self):
        """Return the words of each line it says until it ends."""
        told, _ = self.process.communicate(timeout=LONG)
        return [line.split(maxsplit=2) for line in told.splitlines()]


@pytest.fixture
def children(tmp_path):
    started = []

    def start(*whats):
        started.extend(fresh := [Child(tmp_path, what) for what in whats])
        for child in fresh:
            child.wait_until_ready()
        return fresh

    yield start
    for child in started:
        child.process.kill()
        child.process.communicate()


@pytest.fixture
def store(tmp_path):
    opened = sqlite_store(tmp_path, busy_timeout=0.2)
    opened.migrate()
    yield opened
    opened.close()


def in_fork(act):
    """Do `act` in a fork of this process; return what it returns, or the
    name of what it raises, as text."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            told = str(act())
        except BaseException as error:
            told = f'{type(error).__name__}: {error}'
        os.write(writing, told.encode())
        os._exit(0)
    os.close(writing)
    with open(reading, encoding='utf-8') as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return told


def test_of_all_who_migrate_at_once_all_succeed_and_one_does_it(
        tmp_path, children):
    started = children(*['migrate'] * 4)
    for child in started:
        child.go()
    told = [child.lines() for child in started]
    assert [child.process.returncode for child in started] == [0] * 4
    assert sorted(told) == [[['False']]] * 3 + [[['True']]]
    store = sqlite_store(tmp_path)
    assert store.schema_problem() == ''
    store.close()


def test_no_message_is_claimed_by_two_processes(store, children):
    added = {add(store).id for _ in range(60)}
    started = children(*['claim'] * 3)
    for child in started:
        child.go()
    claimed = [one for child in started
               for line in child.lines() for one in ' '.join(line).split()]
    assert len(claimed) == 60 and set(claimed) == added


def test_twins_of_several_processes_make_one_message(store, children):
    started = children(*['twins'] * 3)
    for child in started:
        child.go()
    told = [child.lines() for child in started]
    assert [len(lines) for lines in told] == [20] * 3
    for number in range(20):
        said, ids = zip(*(lines[number] for lines in told))
        assert sorted(said) == ['known', 'known', 'stored']
        assert len(set(ids)) == 1
    assert sum(store.waiting().values()) == 20


def test_a_writer_that_is_killed_loses_nothing_it_acknowledged(
        store, children):
    for _ in range(3):
        child, = children('load')
        child.go()
        told = [child.process.stdout.readline() for _ in range(40)]
        child.process.send_signal(signal.SIGKILL)
        # `communicate` would pass over what is read already, but not told.
        rest = child.process.stdout.read()
        # The last line may be cut: then it was not acknowledged.
        lines = (''.join(told) + rest).rpartition('\n')[0].splitlines()
        said = {'added': set(), 'begun': set()}
        for line in lines:
            word, one = line.split()
            said[word].add(one)
        stored = {one: store.message(POOL, one) for one in said['added']}
        begun = {attempt.id: attempt for one in stored.values()
                 for attempt in one.attempts}
        assert said['begun'] <= set(begun) and len(stored) > 10
        rescued = store.claim_due('rescuer', NOW + 61, NOW + 999, limit=999)
        assert {one for one in stored if stored[one].attempts} <= set(
            ids(rescued))
        assert {attempt.outcome.reason for _, one in rescued
                for attempt in one.attempts} == {ORPHANED}


def test_a_lock_that_another_process_holds_is_waited_for_so_long(
        store, children):
    add(store)
    holder, = children('lock')
    for use in (lambda: add(store),
                lambda: store.claim_due('worker', NOW, NOW + 60),
                lambda: store.check_writable(NOW)):
        with pytest.raises(StoreUnavailable, match='locked') as refused:
            use()
        assert refused.value.retry_after == 2
    assert sum(store.waiting().values()) == 1       # reading goes on
    assert not store.claim_due('worker', NOW - 1, NOW)  # nothing is due
    holder.go()
    holder.lines()
    add(store)


def test_a_limit_to_the_file_takes_nothing_and_loses_nothing(
        store, children):
    child, = children('fill')
    child.go()
    lines = child.lines()
    assert child.process.returncode == 0
    full, = [line for line in lines if line[0] == 'full']
    assert full[1] == '2' and 'disk is full' in full[2]
    added = [line[1] for line in lines if line[0] == 'added']
    page, _ = store.page(POOL, limit=999)
    assert {one.id for one in page} == set(added) and len(added) > 5
    assert lines[-1][0] == 'added'      # it went on when there was room


def test_a_file_that_may_not_be_written_is_read_only():
    """In a directory that a user without rights can reach."""
    with tempfile.TemporaryDirectory() as directory:
        store = sqlite_store(directory, journal_mode='delete')
        store.migrate()
        store.close()
        os.chmod(directory, 0o555)
        os.chmod(f'{directory}/messages.db', 0o444)

        def use():
            if os.geteuid() == 0:
                os.setuid(65534)
            assert store.waiting() == {}        # reading goes on
            add(store)

        told = in_fork(use)
        os.chmod(directory, 0o700)
        assert told.startswith('StoreUnavailable') and 'read-only' in told


# -- forks -------------------------------------------------------------------

def test_a_child_opens_its_own_connections(store):
    """SQLite's locks are the process's: a child that trusted those it
    inherits would lose what it commits once its parent closes."""
    first = add(store)
    to_child, from_parent = os.pipe()
    to_parent, from_child = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            add(store, created_at=NOW + 1)
            os.write(from_child, b'x')
            os.read(to_child, 1)
            add(store, created_at=NOW + 2)
        finally:
            os._exit(0)
    os.read(to_parent, 1)
    store.close()
    os.write(from_parent, b'x')
    os.waitpid(child, 0)
    for descriptor in (to_child, from_parent, to_parent, from_child):
        os.close(descriptor)
    page, _ = store.page(POOL)
    assert [one.created_at for one in page] == [NOW + 2, NOW + 1, NOW]
    assert page[-1].id == first.id


def held_by_a_thread(store):
    inside, leave = threading.Event(), threading.Event()

    def hold():
        store._database.write(
            lambda connection: (inside.set(), leave.wait(LONG)))

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(LONG)
    return thread, leave


def test_a_fork_waits_for_a_transaction_to_end(tmp_path):
    store = sqlite_store(tmp_path, busy_timeout=LONG)
    store.migrate()
    thread, leave = held_by_a_thread(store)
    timer = threading.Timer(0.2, leave.set)
    timer.start()
    assert in_fork(lambda: add(store).pool) == POOL
    timer.join()
    thread.join()
    assert sum(store.waiting().values()) == 1
    store.close()


def test_a_child_of_a_fork_in_mid_transaction_is_refused(store):
    thread, leave = held_by_a_thread(store)
    told = in_fork(lambda: add(store))
    assert told.startswith('StoreUnavailable') and 'forked' in told
    leave.set()
    thread.join()
    add(store)


def test_what_is_closed_while_in_use_does_not_cross_a_fork(store):
    thread, leave = held_by_a_thread(store)
    store.close()
    leave.set()
    assert in_fork(lambda: add(store).pool) == POOL
    thread.join()
    assert sum(store.waiting().values()) == 1


def test_alembic_is_loaded_only_to_migrate(store, tmp_path):
    code = ('import sys; from backends import *\n'
            f'store = sqlite_store({str(tmp_path)!r})\n'
            'add(store)\n'
            'assert not store.migrate()\n'
            'print("alembic" in sys.modules)')
    done = subprocess.run(
        [sys.executable, '-c', code], text=True, capture_output=True,
        timeout=LONG, env={**os.environ, 'PYTHONPATH': os.pathsep.join(
            [str(CHILD.parent), str(CHILD.parent.parent)])})
    assert (done.stdout, done.stderr) == ('False\n', '')
