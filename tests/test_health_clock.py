"""What rests does not rest for years because a clock was set back."""

import pytest

from stampman.health import FAR, Condition, Health
from stampman.store import open_store
from stampman.store.base import HealthRow

from clocks import DAY, HOUR, YEAR, Machine
from fakes import ScriptedService, outcome

DEFERRED = outcome('deferred', reason='HTTP 503')
REFUSED = outcome('refused', reason='HTTP 401')
BACK = [3 * HOUR, DAY, YEAR, 10 * YEAR]


class World:
    def __init__(self, path):
        self.machine = Machine()
        self.store = open_store(f'sqlite:///{path}/health.db')
        self.store.migrate()
        self.recovered = []
        self.service = ScriptedService('one', probes=[True])
        self.health = self.process()

    def process(self):
        return Health(self.store, self.machine.clock, lambda: 1.0,
                      HealthRow, self.recovered.append)

    def call(self, result):
        """Call the service if it may be called; say if it was."""
        permit = self.health.permit(self.service)
        if permit:
            self.health.record(permit, result)
        return permit is not None

    @property
    def state(self):
        return self.health.standing(self.service).state


@pytest.fixture
def world(tmp_path):
    there = World(tmp_path)
    yield there
    there.store.close()


def fail(world):
    for _ in range(5):
        assert world.call(DEFERRED)
    assert world.state == 'resting'


@pytest.mark.parametrize('back', BACK)
@pytest.mark.parametrize('seen', ['by itself', 'by another process'])
def test_a_rest_is_over_when_the_clock_was_set_back(world, back, seen):
    fail(world)
    world.machine.jump(-back)
    if seen == 'by another process':
        world.health = world.process()
    assert world.state == 'trial'
    assert world.health.next_free([world.service]) is None
    for _ in range(2):
        assert world.call(outcome('accepted'))
    assert world.state == 'available' and world.recovered


@pytest.mark.parametrize('back', BACK)
def test_a_throttle_is_over_when_the_clock_was_set_back(world, back):
    assert world.call(outcome('deferred', throttled=True, retry_after=600))
    assert not world.call(outcome('accepted'))
    world.machine.jump(-back)
    assert world.call(outcome('accepted'))
    assert world.state == 'available'


@pytest.mark.parametrize('back', BACK)
def test_a_refusal_is_probed_when_the_clock_was_set_back(world, back):
    assert world.call(REFUSED)
    world.machine.jump(-back)
    assert not world.call(outcome('accepted'))      # a probe goes first
    world.health.probe(world.service)
    assert world.call(outcome('accepted'))
    assert world.state == 'available'


@pytest.mark.parametrize('back', BACK)
def test_a_trial_that_nobody_ends_is_over_when_the_clock_was_set_back(
        world, back):
    fail(world)
    world.machine.pass_by(HOUR)
    assert world.health.permit(world.service)       # and its process dies
    assert world.health.permit(world.service) is None
    world.machine.jump(-back)
    assert world.call(outcome('accepted'))


@pytest.mark.parametrize('back', BACK)
def test_failures_of_before_are_not_counted_with_those_of_after(world, back):
    for _ in range(4):
        world.call(outcome('accepted'))
        world.call(DEFERRED)
    world.machine.jump(-back)
    for result in (DEFERRED, outcome('accepted'), DEFERRED):
        world.call(result)
    assert world.state == 'available'


@pytest.mark.parametrize('result', [
    outcome('deferred', throttled=True, retry_after=9e8),
    outcome('deferred', retry_after=9e8)], ids=['throttle', 'other'])
def test_no_provider_can_ask_for_a_rest_without_end(world, result):
    assert world.call(result)
    assert world.state == 'resting'
    until = world.health.standing(world.service).until
    assert until == world.machine.now + HOUR
    world.machine.pass_by(HOUR + 1)
    assert world.call(outcome('accepted'))


@pytest.mark.parametrize('back', [1, FAR - 1.2 * HOUR])
def test_a_small_step_back_ends_no_rest(world, back):
    """The longest that there is: of an hour, and a fifth of it."""
    for trips in range(1, 9):
        assert world.call(REFUSED)
        until = world.health.standing(world.service).until
        world.service.probes = [True]
        world.machine.now = until + 1
        world.machine.steady += HOUR
        world.health.probe(world.service)
    assert world.call(REFUSED)
    until = world.health.standing(world.service).until
    assert until == pytest.approx(world.machine.now + 1.2 * HOUR)
    world.machine.jump(-back)
    assert world.state == 'resting'


def test_only_what_lies_too_far_ahead_is_forgotten(world):
    now = world.machine.now
    row = Condition(why='failing', reason='so', until=now + 9 * YEAR,
                    trips=3, trial_until=now + 60)
    account = world.service.account
    world.store.put_health(HealthRow(account, 1, row._asdict()), now)
    world.health = world.process()
    assert world.state == 'trial'
    assert not world.call(outcome('accepted'))      # somebody tries it
    world.machine.pass_by(61)
    assert world.call(outcome('accepted'))
    assert world.store.health()[account].state['trips'] == 3
