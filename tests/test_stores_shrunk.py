"""The room of what was deleted: used again, and given back where it is much.
"""

import sqlite3
from contextlib import closing

import pytest

from stampman.helpers.delivery import State
from stampman.upkeep import Upkeep

from backends import (
    NOW, POOL, POSTGRES, email, message, migrated, on_files, store)
from clocks import DAY, machine, process

__all__ = ['machine', 'migrated', 'process', 'store']   # the fixtures

LARGE = 100_000     # bytes of a content
OLD, NEW = NOW - 100 * DAY, NOW


class Keeps:
    """The part of a config that says how long what is kept."""

    keep_bodies, keep_messages = 30, 90


def add_sent(store, at, count):
    for number in range(count):
        one = message(at + number, state=State.accepted, next_attempt_at=None)
        store.add(one, email(content='x' * LARGE))
    return one


def forget_old(store):
    after = ''
    while after := store.forget_messages(NOW, 90 * DAY, after):
        pass
    store.drop_traces()


def shrink(store):
    """Shrink it to the end; return how many steps it took."""
    steps = 0
    while store.shrink():
        steps += 1
    store.drop_traces()     # in WAL the file is written by this
    return steps


def file_of(folder):
    return folder / 'messages.db'


def size(folder):
    return file_of(folder).stat().st_size


@on_files
def test_much_free_room_is_given_back_step_by_step(store, tmp_path):
    add_sent(store, OLD, 60)
    kept = add_sent(store, NEW, 5)
    forget_old(store)
    before = size(tmp_path)
    assert before > 60 * LARGE
    assert shrink(store) > 5
    assert size(tmp_path) < before / 4
    assert store.message(POOL, kept.id) == kept
    assert store.email(kept.id) == email(content='x' * LARGE)
    with closing(sqlite3.connect(file_of(tmp_path))) as beside:
        assert beside.execute('PRAGMA integrity_check').fetchall() == [
            ('ok',)]


@on_files
def test_some_room_is_kept_for_what_comes(store, tmp_path):
    add_sent(store, OLD, 10)
    add_sent(store, NEW, 60)
    forget_old(store)
    before = size(tmp_path)
    assert shrink(store) == 0
    add_sent(store, NEW + 60, 10)
    store.drop_traces()
    assert size(tmp_path) == before


@on_files
def test_a_file_that_cannot_shrink_stays_as_it_is(store, tmp_path):
    """As an older release made it."""
    store.close()
    with closing(sqlite3.connect(file_of(tmp_path))) as beside:
        beside.execute('PRAGMA auto_vacuum=NONE')
        beside.execute('VACUUM')
    add_sent(store, OLD, 60)
    forget_old(store)
    before = size(tmp_path)
    assert shrink(store) == 0
    assert size(tmp_path) == before


@on_files
def test_others_write_between_two_steps(store):
    add_sent(store, OLD, 60)
    forget_old(store)
    while store.shrink():
        add_sent(store, NEW, 1)


@pytest.mark.parametrize('migrated', [POSTGRES], indirect=True,
                         scope='session')
def test_a_server_does_it_by_itself(store):
    assert not store.shrink()


@on_files
def test_a_worker_does_it_when_it_has_given_up_what_is_old(
        store, tmp_path, machine):
    add_sent(store, OLD, 60)
    store.drop_traces()
    before = size(tmp_path)
    Upkeep(store, machine.clock, Keeps).prune()
    store.close()
    assert size(tmp_path) < before / 4
