"""What waits is made due in steps, however much it is."""

import pytest

from stampman.helpers.delivery import State
from stampman.store._hastening import STEP
from stampman.store.base import Entry

from backends import NOW, POOL, add, email, message, migrated, store

__all__ = ['migrated', 'store']     # the fixtures
MANY = 2 * STEP + 1


@pytest.fixture
def waiting(store):
    """A store in which more wait than one step makes due: for an hour, and
    all until the same time, as when a service rests."""
    for start in range(0, MANY, STEP):
        store.add_all([
            Entry(number, message(state=State.deferred,
                                  next_attempt_at=NOW + 3600.0), email())
            for number in range(start, min(start + STEP, MANY))])
    return store


def times(store):
    page, _ = store.page(POOL, limit=2 * MANY)
    return [one.next_attempt_at for one in page]


def test_all_are_hastened(waiting):
    scheduled = add(waiting, next_attempt_at=NOW + 3600.0)
    assert waiting.hasten([POOL], NOW + 1) == MANY
    assert waiting.hasten([POOL], NOW + 1) == 0
    assert times(waiting).count(NOW + 1) == MANY
    assert waiting.message(POOL, scheduled.id) == scheduled


def test_all_are_brought_back(waiting):
    assert waiting.bring_back(NOW, 3600.0) == 0
    assert waiting.bring_back(NOW, 3599.0) == MANY
    assert times(waiting) == [NOW] * MANY
