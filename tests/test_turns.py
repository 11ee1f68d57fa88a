"""Threads that take turns: one computes, the others wait for theirs."""

import threading

import pytest

from stampman.helpers.turns import Turns

SOON = 10.0         # seconds; what is promised comes long before
NEVER = 3600.0      # seconds for which a turn may be kept in these tests


class Person:
    """A thread that takes a turn, and does what it is told, step by step."""

    def __init__(self, turns, said, name):
        self._turns = turns
        self._said = said
        self._name = name
        self._steps = []
        self._told = threading.Semaphore(0)
        self._done = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def _live(self):
        with self._turns.held:
            self._said.append(self._name)
            self._done.release()
            self._follow()

    def _follow(self):
        while True:
            self._told.acquire()
            step = self._steps.pop(0)
            if step == 'back':      # to before the innermost block
                return
            with getattr(self._turns, step):
                self._done.release()
                self._follow()
            self._said.append(self._name)
            self._done.release()

    def does(self, step):
        """Tell it a step, and go on at once."""
        self._steps.append(step)
        self._told.release()
        return self

    def has_done(self):
        """Wait until a step is done: where it needs a turn, until it has
        it."""
        assert self._done.acquire(timeout=SOON)
        return self

    def waits(self):
        """Say that it has no turn yet."""
        return not self._done.acquire(timeout=0.05)

    def ends(self):
        self.does('back')
        self._thread.join(SOON)
        assert not self._thread.is_alive()


@pytest.fixture
def said():
    return []


@pytest.fixture
def turns():
    return Turns(longest=NEVER)


def in_a_row(turns, said, names):
    """Return the first one, who has the turn, and the others, in whose
    order they wait."""
    people = []
    for name in names:
        people.append(Person(turns, said, name))
        if len(people) == 1:
            people[0].has_done()
        else:
            until_waiting(turns, len(people) - 1)
    return people


def until_waiting(turns, count):
    for _ in range(10_000):
        if turns.waiting == count:
            return
        threading.Event().wait(0.001)
    raise AssertionError(f'{turns.waiting} wait')


def test_the_others_wait_and_go_on_in_the_order_in_which_they_came(
        turns, said):
    first, *others = in_a_row(turns, said, 'abcd')
    assert all(one.waits() for one in others)
    first.ends()
    for one in others:
        one.has_done().ends()
    assert said == ['a', 'b', 'c', 'd']


def test_who_waits_for_something_lets_others_go_on(turns, said):
    first, second = in_a_row(turns, said, 'ab')
    first.does('away').has_done()
    second.has_done()
    first.does('back')
    assert first.waits()
    second.ends()
    first.has_done().ends()
    assert said == ['a', 'b', 'a']


@pytest.mark.parametrize('block, then', [
    ('away', ['b', 'c', 'a']), ('aside', ['b', 'a', 'c'])])
def test_for_whom_others_wait_comes_back_first(turns, said, block, then):
    first, second, third = in_a_row(turns, said, 'abc')
    first.does(block).has_done()
    second.has_done()
    first.does('back')
    until_waiting(turns, 2)
    by_name = {'a': first, 'b': second, 'c': third}
    second.ends()
    for name in then[1:]:
        by_name[name].has_done().ends()
    assert said == ['a', *then]


def test_blocks_in_blocks_are_one(turns, said):
    first, second = in_a_row(turns, said, 'ab')
    first.does('away').has_done().does('aside').has_done()
    second.has_done()
    first.does('back').has_done()       # still away: it needs no turn
    first.does('back')
    assert first.waits()
    second.ends()
    first.has_done().ends()


def test_who_keeps_a_turn_too_long_loses_it():
    turns, said = Turns(longest=0.02), []
    first, second = in_a_row(turns, said, 'ab')
    second.has_done()       # though the first one has not given it
    first.ends()            # and gives nothing that is not its own
    third = Person(turns, said, 'c')
    until_waiting(turns, 1)
    second.ends()
    third.has_done().ends()
    assert said == ['a', 'b', 'c']


def test_without_a_turn_nothing_is_waited_for(turns, said):
    first, = in_a_row(turns, said, 'a')
    with turns.away, turns.aside:
        pass
    first.ends()


def test_what_breaks_gives_the_turn_back(turns, said):
    with pytest.raises(ZeroDivisionError), turns.held, turns.away:
        1 / 0
    first, = in_a_row(turns, said, 'a')
    first.ends()


def test_a_turn_within_a_turn_is_a_mistake(turns):
    with turns.held, pytest.raises(RuntimeError), turns.held:
        raise AssertionError('two turns')


def test_a_fork_begins_with_nobody(turns, said):
    in_a_row(turns, said, 'ab')
    turns.start_anew()      # what a fork calls; the two are not in it
    with turns.held:
        said.append('the child')
    assert said == ['a', 'the child']
