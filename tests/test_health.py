"""Which services rest, for how long, and how they come back."""

import threading

import pytest

from stampman.health import Health
from stampman.helpers.exceptions import StoreUnavailable
from stampman.store.base import HealthRow

from fakes import ScriptedService, Time, outcome

DEFERRED, ACCEPTED = outcome('deferred'), outcome('accepted')


class Rows:
    """The part of a store that keeps health."""

    def __init__(self):
        self.rows = {}
        self.writes = 0
        self.broken = False

    def health(self):
        self._check()
        return dict(self.rows)

    def put_health(self, row, now):
        self._check()
        stored = self.rows.get(row.key)
        if (stored.version if stored else 0) != row.version - 1:
            return False
        self.rows[row.key] = row
        self.writes += 1
        return True

    def _check(self):
        if self.broken:
            raise StoreUnavailable('broken')


class World:
    def __init__(self):
        self.time = Time()
        self.rows = Rows()
        self.recovered = []
        self.health = self.process()
        self.service = ScriptedService('one', ACCEPTED, probes=[True])

    def process(self):
        """Another process that shares the store."""
        return Health(self.rows, self.time.clock, lambda: 0.5, HealthRow,
                      self.recovered.append)

    def call(self, result, service=None, health=None):
        health = health or self.health
        permit = health.permit(service or self.service)
        if permit:
            health.record(permit, result)
        return permit is not None

    def may_try(self, service=None, health=None):
        return (health or self.health).standing(
            service or self.service).state == 'available'


@pytest.fixture
def world():
    return World()


def rest_it(world):
    for _ in range(5):
        assert world.call(DEFERRED)
    assert not world.call(DEFERRED)


def test_five_failures_in_a_row_rest_the_account(world):
    rest_it(world)
    standing = world.health.standing(world.service)
    assert standing.state == 'resting'
    assert standing.until == world.time.at + 30


def test_four_failures_and_a_success_do_not(world):
    for _ in range(3):
        for _ in range(4):
            world.call(DEFERRED)
        world.call(ACCEPTED)
        world.time.pass_by(60)
    assert world.may_try()


def test_half_of_ten_calls_in_a_minute_rest_the_account(world):
    for _ in range(4):
        world.call(ACCEPTED)
        world.call(DEFERRED)
    world.call(ACCEPTED)
    assert world.may_try()
    world.call(DEFERRED)
    assert not world.may_try()


def test_uncertain_outcomes_are_failures(world):
    for _ in range(5):
        world.call(outcome('uncertain'))
    assert not world.may_try()


@pytest.mark.parametrize('neutral', [
    outcome('rejected'), outcome('unsupported'),
    outcome('deferred', recipient_only=True)])
def test_what_is_wrong_with_an_email_says_nothing_of_the_account(
        world, neutral):
    for _ in range(50):
        assert world.call(neutral)
    assert world.may_try()


def test_after_the_rest_one_message_at_a_time_tries_it(world):
    rest_it(world)
    world.time.pass_by(31)
    first = world.health.permit(world.service)
    assert first
    assert world.health.permit(world.service) is None
    world.health.record(first, ACCEPTED)
    second = world.health.permit(world.service)
    assert second
    assert world.health.permit(world.service) is None
    world.health.record(second, ACCEPTED)
    assert world.may_try()
    assert world.recovered == [world.service.account]


def test_a_failed_trial_doubles_the_rest_up_to_ten_minutes(world):
    rest_it(world)
    rests = []
    for _ in range(7):
        until = world.health.standing(world.service).until
        rests.append(until - world.time.at)
        world.time.pass_by(rests[-1] + 1)
        world.call(DEFERRED)
    assert rests == [30, 60, 120, 240, 480, 600, 600]


def test_a_trial_that_never_ends_gives_its_place_up(world):
    rest_it(world)
    world.time.pass_by(31)
    assert world.health.permit(world.service)
    world.time.pass_by(121)
    assert world.health.permit(world.service)


def test_a_rejected_email_gives_the_trial_to_the_next(world):
    rest_it(world)
    world.time.pass_by(31)
    assert world.call(outcome('rejected'))
    assert world.call(ACCEPTED)
    assert world.call(ACCEPTED)
    assert world.may_try()


def test_a_refusal_rests_long_at_once_and_wants_a_probe(world):
    world.call(outcome('refused', reason='bad key'))
    standing = world.health.standing(world.service)
    assert standing.until - world.time.at == 300
    world.time.pass_by(301)
    assert not world.call(ACCEPTED)
    world.health.probe(world.service)
    assert not world.may_try()
    assert world.call(ACCEPTED)
    assert world.may_try()


def test_a_failed_probe_doubles_the_rest_up_to_an_hour(world):
    world.service.probes = [False] * 5
    world.call(outcome('refused'))
    rests = []
    for _ in range(6):
        until = world.health.standing(world.service).until
        rests.append(until - world.time.at)
        world.time.pass_by(rests[-1] + 1)
        if world.service.probes:
            world.health.probe(world.service)
    assert rests == [300, 600, 1200, 2400, 3600, 3600]


def test_nobody_is_probed_while_well_or_resting(world):
    world.service.probes = []       # a probe would be an error
    world.health.probe(world.service)
    world.call(outcome('refused'))
    world.health.probe(world.service)


def test_a_refused_sender_domain_rests_only_its_own_service(world):
    other = ScriptedService('one', ACCEPTED, domain='other.example')
    world.call(outcome('refused', domain_only=True))
    assert not world.may_try()
    assert world.may_try(other)


def test_services_of_one_account_rest_together(world):
    other = ScriptedService('one', ACCEPTED, domain='other.example')
    rest_it(world)
    assert not world.may_try(other)


def test_a_throttle_rests_until_its_time_and_needs_no_trial(world):
    world.call(outcome('deferred', throttled=True, retry_after=20.0))
    assert not world.call(ACCEPTED)
    world.time.pass_by(21)
    assert world.health.permit(world.service)
    assert world.health.permit(world.service)


def test_a_throttle_without_a_time_grows(world):
    rests = []
    for _ in range(7):
        world.call(outcome('deferred', throttled=True))
        until = world.health.standing(world.service).until
        rests.append(until - world.time.at)
        world.time.pass_by(rests[-1] + 0.001)
    assert [round(rest) for rest in rests] == [2, 4, 8, 16, 32, 60, 60]


def test_a_failure_that_names_a_time_rests_until_then(world):
    world.call(outcome('deferred', retry_after=90.0))
    assert world.health.standing(world.service).until == world.time.at + 90


def test_other_processes_know_within_a_second(world):
    other = world.process()
    assert world.may_try(health=other)
    rest_it(world)
    world.time.pass_by(1.1)
    assert not world.may_try(health=other)


def test_failures_of_several_processes_add_up(world):
    processes = [world.process() for _ in range(5)]
    for process in processes:
        assert world.call(DEFERRED, health=process)
    world.time.pass_by(1.1)
    assert not world.may_try(health=world.process())


def test_only_one_process_gets_the_trial(world):
    rest_it(world)
    world.time.pass_by(31)
    permits = [world.process().permit(world.service) for _ in range(3)]
    assert sum(permit is not None for permit in permits) == 1


def test_a_well_account_costs_no_writes(world):
    for _ in range(100):
        world.call(ACCEPTED)
    assert world.rows.writes == 0


def test_a_store_that_fails_stops_nobody_and_forgets_nothing(world):
    world.rows.broken = True
    for _ in range(5):
        assert world.call(DEFERRED)
    assert not world.call(DEFERRED)


def test_of_many_threads_one_gets_the_trial(world):
    rest_it(world)
    world.time.pass_by(31)
    for _ in range(50):
        start, permits = threading.Barrier(6), []

        def ask():
            start.wait()
            permits.append(world.health.permit(world.service))

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        [permit] = filter(None, permits)
        world.health.release(permit)


class Overtaken(Rows):
    """Rows in which somebody else writes first, once, when asked to."""

    first = None

    def put_health(self, row, now):
        if self.first:
            first, self.first = self.first, None
            first()
        return super().put_health(row, now)


def test_what_another_thread_has_written_meanwhile_is_not_lost(world):
    world.rows = Overtaken()
    world.health = world.process()
    world.call(DEFERRED)
    slow = world.health.permit(world.service)
    other = world.health.permit(world.service)
    world.rows.first = lambda: world.health.record(
        other, outcome('refused'))
    world.health.record(slow, ACCEPTED)
    assert world.health.standing(world.service).state == 'resting'


def test_a_permit_that_was_not_used_is_given_back(world):
    rest_it(world)
    world.time.pass_by(31)
    world.health.release(world.health.permit(world.service))
    assert world.health.permit(world.service)


def test_a_call_from_before_the_rest_leaves_the_trial_to_its_message(world):
    early = world.health.permit(world.service)
    rest_it(world)
    world.time.pass_by(31)
    assert world.health.permit(world.service)
    world.health.record(early, outcome('rejected'))
    assert world.health.permit(world.service) is None


@pytest.mark.parametrize('late', ['deferred', 'accepted', 'refused'])
def test_a_call_from_before_the_rest_does_not_change_it(world, late):
    permits = [world.health.permit(world.service) for _ in range(3)]
    if late == 'refused':
        world.call(outcome('refused'))
    else:
        rest_it(world)
    until = world.health.standing(world.service).until
    for permit in permits:
        world.health.record(permit, outcome(late))
    assert world.health.standing(world.service).until == until


def test_neutral_outcomes_do_not_hide_failures(world):
    world.call(ACCEPTED)
    for _ in range(40):
        world.call(outcome('rejected'))
    for _ in range(5):
        world.call(DEFERRED)
        world.call(ACCEPTED)
    assert not world.may_try()


def test_failures_of_an_hour_ago_do_not_count(world):
    for _ in range(4):
        world.call(ACCEPTED)
        world.call(DEFERRED)
    world.call(ACCEPTED)
    world.time.pass_by(61)
    world.call(DEFERRED)
    assert world.may_try()


def test_a_throttle_starts_anew_after_a_success(world):
    world.call(outcome('deferred', throttled=True))
    world.time.pass_by(3)
    world.call(ACCEPTED)
    world.call(outcome('deferred', throttled=True))
    assert world.health.standing(world.service).until == world.time.at + 2


def test_a_short_throttle_does_not_cut_a_longer_one(world):
    permit = world.health.permit(world.service)
    world.call(outcome('deferred', throttled=True, retry_after=60.0))
    world.health.record(permit, outcome('deferred', throttled=True,
                                        retry_after=5.0))
    assert world.health.standing(world.service).until == world.time.at + 60


def test_next_free_is_when_the_first_of_them_may_be_tried(world):
    other = ScriptedService('two', ACCEPTED)
    assert world.health.next_free([world.service, other]) is None
    rest_it(world)
    assert world.health.next_free([world.service, other]) is None
    assert world.health.next_free([world.service]) == world.time.at + 30
    world.time.pass_by(31)
    assert world.health.next_free([world.service]) is None
    world.health.permit(world.service)
    assert world.health.next_free([world.service]) == world.time.at + 120


def test_a_backlog_that_may_never_be_sent_rests_the_account(world):
    assert world.call(outcome('accepted', stalled=True, reason='paused'))
    assert world.health.standing(world.service) == (
        'resting', world.time.at + 300, 'paused')


def test_a_backlog_that_is_late_rests_it_for_a_moment(world):
    assert world.call(outcome('accepted', throttled=True))
    assert not world.may_try()
    world.time.pass_by(3)
    assert world.call(ACCEPTED) and world.may_try()
