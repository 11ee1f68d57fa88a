"""An idle worker is woken by what its own process stores for it."""

import json
import time

import pytest

from stampman.gateway import Gateway, load_config
from stampman.helpers import environment
from stampman.helpers.delivery import State, Timing
from stampman.helpers.mail import submission
from stampman.opening import surroundings
from stampman.worker import Worker

from fresh import put_fresh
from gateway_server import EMAIL, config, sendgrid_at
from servers import Recorder

NEVER = 3600.0      # seconds: by itself it would not look while we test


@pytest.fixture
def provider():
    with Recorder() as recorder:
        recorder.answer(202, b'', {'X-Message-Id': 'theirs'})
        yield recorder


@pytest.fixture
def gateway(tmp_path, provider):
    path = tmp_path / 'config.json'
    path.write_text(json.dumps(config({
        'sendgrid': sendgrid_at(provider.url)})))
    put_fresh(tmp_path / 'stampman.db')
    found = environment.read({'STAMPMAN_CONFIG': str(path)})
    gateway = Gateway(load_config(found), found, surroundings()._replace(
        timing=Timing(idle=NEVER)))
    yield gateway
    gateway.store.close()


@pytest.fixture
def idle(gateway):
    """A worker that has looked once, in vain, and waits."""
    looked = []
    worker = Worker(Looking(gateway, looked), threads=3)
    worker.start()
    give_up_at = time.monotonic() + 10
    while len(looked) < 3:
        assert time.monotonic() < give_up_at
        time.sleep(0.01)
    yield worker
    worker.stop()
    assert worker.join(10) and worker.done


class Looking:
    """A gateway that notes when somebody has looked for what is due."""

    def __init__(self, gateway, looked):
        vars(self).update(_gateway=gateway, _looked=looked)

    def __getattr__(self, name):
        return getattr(self._gateway, name)

    def __setattr__(self, name, value):
        setattr(self._gateway, name, value)

    def deliver_due(self, owner):
        found = self._gateway.deliver_due(owner)
        self._looked.append(found)
        return found


def send(gateway, **named):
    return gateway.send('example.com', submission(EMAIL),
                        gateway.clock.monotonic(), at_once=False,
                        **named).message


def test_one_message_wakes_it(gateway, idle, provider):
    assert send(gateway).state is State.queued
    provider.wait_for(1)


def test_a_batch_wakes_all_its_threads(gateway, idle, provider):
    provider.hold()
    gateway.send_batch('example.com', {
        number: submission(EMAIL) for number in range(3)})
    provider.wait_for(3)        # none of them waited for another
    provider.release()


def test_a_replay_wakes_nobody(gateway):
    calls = []
    gateway.on_queued = calls.append
    for _ in range(2):
        send(gateway, key='the-same')
        gateway.send_batch('example.com', {0: submission(EMAIL)}, key='both')
    assert calls == [1, 1, 0, 0]
