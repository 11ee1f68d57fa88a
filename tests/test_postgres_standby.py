"""A standby that takes over: what was acknowledged is there, and goes on."""

import pytest

from stampman.helpers.exceptions import StoreUnavailable
from stampman.store.sql import SqlStore

from backends import NOW, POOL, add, ids
from crashing.running import until
from postgres_standby import Standby
from test_postgres_faults import (
    Load, assert_nothing_is_lost_or_doubled, until_it_works)

pytestmark = pytest.mark.long

SOME = 30           # messages of a load, before and after


@pytest.fixture
def standby(postgres_installation, own_postgres, url):
    with Standby(postgres_installation, own_postgres) as following:
        yield following


@pytest.fixture
def name(url):
    return url.rpartition('/')[2]


@pytest.fixture
def store(standby, name):
    """A store whose URL names both."""
    opened = SqlStore.at(standby.url_of_both(name), silence=2.0)
    yield opened
    opened.close()


def test_the_server_that_takes_over_is_found_by_the_same_url(
        store, standby, own_postgres):
    added = {add(store).id for _ in range(20)}
    own_postgres.kill()
    with pytest.raises(StoreUnavailable):   # the standby cannot be written to
        add(store)
    standby.promote()
    there = until_it_works(lambda: store.page(POOL, limit=99)[0])
    assert added <= {one.id for one in there}
    until_it_works(lambda: add(store))
    due = store.claim_due('worker', NOW, NOW + 60, limit=99)
    assert added <= set(ids(due))


def test_under_load_a_switch_loses_and_doubles_nothing(
        store, standby, own_postgres, name):
    loads = [Load(standby.url_of_both(name), number) for number in range(3)]
    until(lambda: count(loads) > SOME)
    own_postgres.kill()
    before = count(loads)
    standby.promote()
    until(lambda: count(loads) > before + SOME)
    for load in loads:
        load.end()
    assert_nothing_is_lost_or_doubled(store, loads)


def count(loads):
    return sum(len(load.added) for load in loads)


def test_a_url_that_is_changed_finds_it_too(
        store, standby, own_postgres, name):
    added = {add(store).id for _ in range(5)}
    own_postgres.kill()
    standby.promote()
    other = SqlStore.at(standby.url(name))
    assert other.schema_problem() == ''
    assert {one.id for one in other.page(POOL)[0]} == added
    add(other)
    other.close()
