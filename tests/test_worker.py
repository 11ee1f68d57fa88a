"""The worker: it delivers what is due, and nothing ends it early."""

import threading

import pytest

from stampman.gateway import Gateway, Surroundings
from stampman.helpers import environment
from stampman.helpers.delivery import State, Timing
from stampman.helpers.exceptions import StoreUnavailable
from stampman.helpers.mail import submission
from stampman.gateway import load_config
from stampman.opening import new_id
from stampman.worker import Worker

from fakes import Time
from fresh import put_fresh
from servers import Recorder

MAIL = {'from_email': 'hello@example.com', 'recipients': 'you@example.org',
        'subject': 'Hello', 'content': 'It works.'}
CONFIG = '''{"pools": [{"domain": "example.com",
    "api_key": "a-pool-key-for-tests",
    "services": {"sendgrid": {"api_key": "a-key-of-a-provider",
                              "base_url": "%s", "timeout": 30}}}]}'''


class World:
    def __init__(self, path, provider):
        (path / 'config.json').write_text(CONFIG % provider.url)
        found = environment.read(
            {'STAMPMAN_CONFIG': str(path / 'config.json')})
        put_fresh(path / 'stampman.db')
        self.time = Time()
        self.provider = provider
        self.gateway = Gateway(load_config(found), found, Surroundings(
            self.time.clock, lambda: 0.5, self.time.pass_by, new_id, 'me'))

    def send(self):
        return self.gateway.send('example.com', submission(MAIL),
                                 self.time.clock.monotonic()).message

    def state(self, message):
        return self.gateway.message('example.com', message.id).state


@pytest.fixture
def world(tmp_path):
    with Recorder() as provider:
        world = World(tmp_path, provider)
        yield world
        world.gateway.store.close()


def accept(provider):
    provider.answer(202, headers={'X-Message-Id': 'theirs'})


def test_a_deferred_message_is_delivered_when_it_is_due(world):
    world.provider.answer(503)
    message = world.send()
    assert message.state is State.deferred
    worker = Worker(world.gateway)
    assert not worker.step()
    accept(world.provider)
    world.time.pass_by(61)
    assert worker.step()
    assert world.state(message) is State.accepted
    assert len(world.provider.requests) == 2
    assert not worker.step()


def take_the_only_slot(world):
    """Send, in a thread, what the provider holds until it is released."""
    accept(world.provider)
    world.gateway.deliver_at_most(lambda: 1)
    world.provider.hold()
    first = threading.Thread(target=world.send)
    first.start()
    world.provider.wait_for(1)
    return first


def test_a_request_without_a_free_slot_leaves_it_to_the_worker(world):
    first = take_the_only_slot(world)
    second = world.send()
    assert second.state is State.queued
    assert len(world.provider.requests) == 1
    world.provider.release()
    first.join()
    assert Worker(world.gateway).step()
    assert world.state(second) is State.accepted


def test_the_rounds_show_that_the_worker_is_alive(world):
    ready, details = world.gateway.readiness()
    assert ready and details['worker'] != 'ok'
    worker = Worker(world.gateway)
    worker.make_rounds()
    assert world.gateway.readiness()[1]['worker'] == 'ok'
    world.time.pass_by(61)
    assert world.gateway.readiness()[1]['worker'] != 'ok'
    worker.make_rounds()
    assert world.gateway.readiness()[1]['worker'] == 'ok'


def test_a_worker_that_died_is_missed_after_the_clock_was_set_back(world):
    Worker(world.gateway).make_rounds()
    world.time.at -= 3600
    assert world.gateway.readiness()[1]['worker'] != 'ok'
    Worker(world.gateway).make_rounds()
    assert world.gateway.readiness()[1]['worker'] == 'ok'


def test_who_was_refused_is_probed_when_it_has_rested(world):
    world.provider.answer(401, {'errors': [{'message': 'revoked'}]})
    message = world.send()
    assert message.state is State.deferred
    worker = Worker(world.gateway)
    world.gateway.probe_refused()
    assert len(world.provider.requests) == 1
    world.time.pass_by(400)
    world.provider.answer(200, {'scopes': ['mail.send']})
    world.gateway.probe_refused()
    assert world.provider.requests[1].path == '/v3/scopes'
    accept(world.provider)
    assert worker.step()
    assert world.state(message) is State.accepted


def test_messages_that_wait_are_due_at_once_when_a_service_is_well(world):
    world.provider.answer(503)
    messages = [world.send() for _ in range(8)]
    assert {one.state for one in messages} == {State.deferred}
    world.time.pass_by(100)
    accept(world.provider)
    worker = Worker(world.gateway)
    while worker.step():
        pass
    assert {world.state(one) for one in messages} == {State.accepted}


def test_a_running_worker_makes_its_rounds_while_it_delivers(world):
    """A delivery that hangs does not make it look dead."""
    first = take_the_only_slot(world)
    world.send()
    worker = Worker(world.gateway, threads=1)
    worker.start()
    world.provider.wait_for(2)      # its only thread hangs
    assert world.gateway.readiness()[1]['worker'] == 'ok'
    worker.stop()
    world.provider.release()
    first.join()
    assert worker.join(10)


class Watched:
    """A gateway whose rounds come fast, and that tells when one is made."""

    timing = Timing(rounds=0.01)

    def __init__(self, gateway):
        self._gateway = gateway
        self.upkeep = self
        self.pruned = threading.Event()

    def __getattr__(self, name):
        return getattr(self._gateway, name)

    def bring_back(self):
        self._gateway.upkeep.bring_back()

    def prune(self):
        self._gateway.upkeep.prune()
        self.pruned.set()

    def wait_for_a_round(self):
        for _ in range(2):      # the first may have begun before
            self.pruned.clear()
            assert self.pruned.wait(10)


def test_a_probe_that_hangs_keeps_neither_the_beat_nor_the_pruning(world):
    accept(world.provider)
    old = world.send()
    world.provider.answer(401, {'errors': [{'message': 'revoked'}]})
    world.send()
    world.time.pass_by(400)
    world.provider.hold()
    gateway = Watched(world.gateway)
    worker = Worker(gateway, threads=0)
    worker.start()
    world.provider.wait_for(3)
    assert world.provider.requests[2].path == '/v3/scopes'
    world.time.pass_by(91 * 86400)
    gateway.wait_for_a_round()
    assert world.gateway.readiness()[1]['worker'] == 'ok'
    assert old.id not in {one.id for one
                          in world.gateway.messages('example.com')[0]}
    worker.stop()
    world.provider.release()
    assert worker.join(10)


class BreaksTwice:
    """A gateway that fails, in both ways, before it works."""

    def __init__(self, gateway):
        self._gateway = gateway
        self.failures = [StoreUnavailable('locked'), RuntimeError('a bug')]
        self.worked = threading.Event()

    def __getattr__(self, name):
        return getattr(self._gateway, name)

    def deliver_due(self, owner):
        if self.failures:
            raise self.failures.pop()
        self.worked.set()
        return False


def test_nothing_that_breaks_ends_a_thread(world):
    gateway = BreaksTwice(world.gateway)
    worker = Worker(gateway, threads=1)
    worker.start()
    assert gateway.worked.wait(10)
    worker.stop()
    assert worker.join(10)
