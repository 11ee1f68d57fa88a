"""A server that is killed in mid-send: nothing is lost, nothing is hidden."""

import json
import time

import pytest

from stampman.gateway import Gateway, Surroundings, load_config
from stampman.helpers import environment
from stampman.helpers.delivery import Clock, Kind, State
from stampman.opening import new_id
from stampman.worker import Worker

from fresh import put_fresh
from gateway_server import ADMIN_KEY, EMAIL, config, sendgrid_at
from processes import Server
from servers import Recorder
from sites import SHORT

ACCEPTED = (202, b'', {'X-Message-Id': 'theirs'})
LATER = 120.0       # seconds by which every lease has run out


@pytest.fixture
def providers():
    with Recorder() as first, Recorder() as second:
        first.answer(*ACCEPTED)
        second.answer(*ACCEPTED)
        yield first, second


def pool_of(providers, **settings):
    configured = config({
        'first': sendgrid_at(providers[0].url, 1),
        'second': sendgrid_at(providers[1].url, 2)})
    configured['pools'][0].update(settings)
    return configured


def kill_in_mid_send(folder, providers, server=None, **settings):
    """Kill all processes while the first provider has the request."""
    providers[0].hold()
    server = (server or Server(folder)).configure(
        pool_of(providers, **settings))
    with server:
        thread, replies = server.send_meanwhile(EMAIL)
        providers[0].wait_for(1)
        server.kill()
        thread.join()
    assert isinstance(replies[0], Exception)    # the client knows nothing
    providers[0].release()


def rescue(folder):
    """Work as a later process; return the message as it is then."""
    found = environment.read({'STAMPMAN_CONFIG': str(folder / 'config.json')})
    later = Clock(lambda: time.time() + LATER, time.monotonic)
    gateway = Gateway(load_config(found), found, Surroundings(
        later, lambda: 0.5, time.sleep, new_id, 'rescuer'))
    worker = Worker(gateway)
    while worker.step():
        pass
    [message], _ = gateway.messages('example.com')
    message = gateway.message('example.com', message.id)
    gateway.store.close()
    return message


def test_after_a_kill_the_next_service_is_asked(tmp_path, providers):
    kill_in_mid_send(tmp_path, providers)
    message = rescue(tmp_path)
    assert message.state is State.accepted
    assert [(one.service, one.outcome.kind) for one in message.attempts] == [
        ('first', Kind.uncertain), ('second', Kind.accepted)]
    assert message.possible_duplicate
    assert [len(one.requests) for one in providers] == [1, 1]


def test_after_a_kill_a_pool_that_holds_sends_nothing(tmp_path, providers):
    kill_in_mid_send(tmp_path, providers, on_uncertain='hold')
    message = rescue(tmp_path)
    assert message.state is State.uncertain
    assert message.next_attempt_at is None
    assert [len(one.requests) for one in providers] == [1, 0]


@pytest.mark.long
def test_a_restarted_server_goes_on_by_itself(tmp_path, providers):
    server = Server(tmp_path, 'gunicorn as stampman run',
                    TIMED=json.dumps(SHORT))
    put_fresh(tmp_path / 'stampman.db')
    kill_in_mid_send(tmp_path, providers, server)
    with server:
        def story():
            return server.get('/example.com/messages/', ADMIN_KEY
                              ).json['messages'][0]['status']

        server.until(lambda: story() == 'accepted')
    assert [len(one.requests) for one in providers] == [1, 1]
