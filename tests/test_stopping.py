"""Servers that are told to stop: in flight, in time, with 0."""

import json
import os
import re
import signal
import socket
import time

import pytest

from stampman.helpers.delivery import State

from gateway_server import ADMIN_KEY, EMAIL, config, sendgrid_at
from processes import TIMED, Server
from servers import RawServer, Recorder, after_the_request
from sites import Site

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]
IN_OUR_OWN_WAY = 'gunicorn as stampman run'
# An idle process may be gone before it says that it stops.
STOPS = re.compile(r'(?:the process (?=\d+ stops)|Worker exiting \(pid: )'
                   r'(\d+)')
KINDS = ('embedded', 'off')
every_command = pytest.mark.parametrize('command', [
    command if command == IN_OUR_OWN_WAY
    else pytest.param(command, marks=pytest.mark.long) for command in TIMED])


@pytest.fixture
def provider():
    with Recorder() as recorder:
        recorder.answer(202, b'', {'X-Message-Id': 'theirs'})
        yield recorder


class Stopped:
    """A server of two services, the first of which is at `provider`."""

    def __init__(self, folder, first, second='http://127.0.0.1:9',
                 command=IN_OUR_OWN_WAY, worker='off', timeout=5, **timing):
        self.site = Site(folder, first)
        self.site.write(config({
            'one': {**sendgrid_at(first.url), 'timeout': timeout},
            'two': {**sendgrid_at(second, 2), 'timeout': timeout}}))
        self.processes = 2 if 'two' in command else 1
        self.server = Server(
            folder, command, STAMPMAN_WORKER=worker, TIMED=json.dumps(timing))

    def told(self, number=signal.SIGTERM, group=False):
        """Tell it, and return when all its processes know."""
        self.tell(number, group)
        self.server.until(lambda: len(set(
            STOPS.findall(self.server.log))) == self.processes)

    def tell(self, number, group=False):
        pid = self.server.process.pid
        (os.killpg if group else os.kill)(pid, number)

    def ends(self, within):
        return self.server.process.wait(within)

    def __enter__(self):
        self.server.__enter__()
        self.server.until(lambda: len(re.findall(    # all know of signals
            r'the process \d+ serves', self.server.log)) == self.processes)
        return self

    def __exit__(self, *_):
        if self.server.process.poll() is None:
            self.server.kill()
        self.site.store.close()


@every_command
@pytest.mark.parametrize('worker', KINDS)
def test_it_finishes_what_is_in_flight_and_begins_nothing_too_long(
        tmp_path, provider, command, worker):
    """A service that might not be done in time is not asked any more."""
    with Recorder() as second, Stopped(
            tmp_path, provider, second.url, command, worker,
            drain=4.0) as stopped:
        provider.answer(503)
        provider.hold()
        thread, replies = stopped.server.send_meanwhile(EMAIL)
        provider.wait_for(1)
        stopped.told()
        [later] = stopped.site.queue()
        provider.release()
        thread.join()
        assert stopped.ends(10) == 0
        assert not second.requests
    [reply] = replies
    assert (reply.status, reply.json['status']) == (202, 'deferred')
    assert stopped.site.message(later).state is State.queued
    assert stopped.site.message(later).attempts == ()


@pytest.mark.long
@every_command
@pytest.mark.parametrize('worker', KINDS)
def test_what_hangs_for_longer_ends_with_it(
        tmp_path, provider, command, worker):
    provider.hold()
    with Stopped(tmp_path, provider, command=command, worker=worker,
                 timeout=20, drain=1.0) as stopped:
        thread, replies = stopped.server.send_meanwhile(EMAIL)
        provider.wait_for(1)
        stopped.told()
        began = time.monotonic()
        assert stopped.ends(10) == 0
        assert time.monotonic() - began < 3
        thread.join()
    assert isinstance(replies[0], Exception)        # the client cannot know
    [message] = stopped.site.messages
    assert message.state is State.sending
    assert message.attempts[0].outcome is None
    assert 'left to a rescue' in stopped.server.log


@pytest.mark.long
@pytest.mark.parametrize('number', SIGNALS[1:])
@every_command
def test_ctrl_c_and_sigquit_reach_all_of_it_and_it_finishes(
        tmp_path, provider, command, number):
    provider.hold()
    with Stopped(tmp_path, provider, command=command) as stopped:
        thread, replies = stopped.server.send_meanwhile(EMAIL)
        provider.wait_for(1)
        stopped.told(number, group=True)
        provider.release()
        thread.join()
        assert stopped.ends(10) == 0
    assert replies[0].json['status'] == 'accepted'


@pytest.mark.long
def test_a_second_ctrl_c_ends_it_at_once(tmp_path, provider):
    provider.hold()
    with Stopped(tmp_path, provider, timeout=20) as stopped:
        thread, _ = stopped.server.send_meanwhile(EMAIL)
        provider.wait_for(1)
        stopped.told(signal.SIGINT, group=True)
        stopped.tell(signal.SIGINT, group=True)
        assert stopped.ends(5) == 0
        thread.join()


@pytest.mark.long
@pytest.mark.parametrize('worker', KINDS)
def test_the_worker_and_the_requests_share_the_time(
        tmp_path, provider, worker):
    """What the worker began does not get its time after the requests."""
    provider.hold()
    with Stopped(tmp_path, provider, worker=worker, timeout=20,
                 drain=2.0) as stopped:
        thread, _ = stopped.server.send_meanwhile(EMAIL)
        provider.wait_for(1)
        stopped.site.queue(2 if worker == 'embedded' else 0)
        provider.wait_for(3 if worker == 'embedded' else 1)
        stopped.told()
        began = time.monotonic()
        assert stopped.ends(10) == 0
        assert time.monotonic() - began < 4
        thread.join()
    assert (f'{2 if worker == "embedded" else 0} deliveries of the worker'
            in stopped.server.log)


@pytest.mark.long
def test_a_client_that_keeps_its_connection_delays_nobody_for_long(
        tmp_path, provider):
    with Stopped(tmp_path, provider) as stopped, socket.create_connection(
            ('127.0.0.1', stopped.server.port)) as client:
        client.sendall(b'GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n')
        assert client.recv(65536).startswith(b'HTTP/1.1 200')
        stopped.told()
        assert stopped.ends(10) == 0


@pytest.mark.long
def test_a_server_whose_worker_dies_gets_a_new_process(
        tmp_path, provider):
    site = Site(tmp_path, provider)
    (tmp_path / 'fatal').touch()
    server = Server(tmp_path, IN_OUR_OWN_WAY, TIMED='{}', DIES='fatal')
    with server:
        server.until(lambda: server.log.count('has started') == 2)
        assert server.get('/example.com/messages/', ADMIN_KEY).status == 200
    site.store.close()
    assert 'a thread of the worker ends' in server.log


def test_the_whole_drain_is_shorter_than_what_a_platform_waits():
    """Heroku kills after 30 seconds, gunicorn after its graceful_timeout."""
    from stampman import serving
    from stampman.helpers.delivery import Timing
    assert Timing().drain == 20 < serving.graceful_timeout < 30


@pytest.mark.long
@pytest.mark.parametrize('command', ['stampman run', 'gunicorn --preload'])
def test_the_real_time_is_twenty_seconds(tmp_path, provider, command):
    with RawServer(after_the_request()) as silent:
        site = Site(tmp_path, provider)
        site.configure(silent.url, timeout=40)
        with Server(tmp_path, command) as server:
            thread, _ = server.send_meanwhile(EMAIL)
            silent.wait_for(1)
            began = time.monotonic()
            server.process.terminate()
            assert server.process.wait(40) == 0
            assert 19 < time.monotonic() - began < 23
            thread.join()
        site.store.close()
    assert 'SIGKILL' not in server.log
