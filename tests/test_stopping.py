"""Servers that are told to stop: in flight, in time, with 0.

They mostly wait, so they do it side by side.
"""

import json
import os
import re
import signal
import socket
import time
from contextlib import contextmanager

import pytest

from stampman.helpers.delivery import State

from crashing.cases import by_name, side_by_side
from gateway_server import ADMIN_KEY, EMAIL, config, sendgrid_at
from processes import TIMED, Server
from servers import RawServer, Recorder, after_the_request
from sites import Site

IN_OUR_OWN_WAY = 'gunicorn as stampman run'
# An idle process may be gone before it says that it stops.
STOPS = re.compile(r'(?:the process (?=\d+ stops)|Worker exiting \(pid: )'
                   r'(\d+)')
KINDS = ('embedded', 'off')
QUICK = {('in flight', IN_OUR_OWN_WAY, kind) for kind in KINDS}
ENDS = 10       # seconds: not so long as what hangs


@contextmanager
def a_provider():
    with Recorder() as recorder:
        recorder.answer(202, b'', {'X-Message-Id': 'theirs'})
        yield recorder


class Stopped:
    """A server of two services, the first of which is at `first`."""

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

    def ends(self, within=ENDS):
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


def has_read(silent, count, server):
    """Return when whole requests have come: it may be killed from then on.
    """
    server.until(lambda: len(silent.requests) == count)


# -- what is done, in a folder; each returns what a test holds against it -----

def in_flight(folder, command, worker):
    with a_provider() as provider, Recorder() as second, Stopped(
            folder, provider, second.url, command, worker, timeout=14,
            drain=12.0) as stopped:
        provider.answer(503)
        provider.hold()
        thread, replies = stopped.server.send_meanwhile(EMAIL)
        provider.wait_for(1)
        stopped.told()
        [later] = stopped.site.queue()
        provider.release()
        thread.join()
        assert stopped.ends() == 0
        assert not second.requests
    return replies, stopped.site.message(later)


def hangs(folder, command, worker):
    with RawServer(after_the_request()) as silent, Stopped(
            folder, silent, command=command, worker=worker, timeout=40,
            drain=1.0) as stopped:
        thread, replies = stopped.server.send_meanwhile(EMAIL)
        has_read(silent, 1, stopped.server)
        stopped.told()
        assert stopped.ends() == 0
        thread.join()
    assert isinstance(replies[0], Exception)        # the client cannot know
    return stopped.site.messages, stopped.server.log


def signalled(folder, command, number):
    with a_provider() as provider, Stopped(
            folder, provider, command=command, timeout=14) as stopped:
        provider.hold()
        thread, replies = stopped.server.send_meanwhile(EMAIL)
        provider.wait_for(1)
        stopped.told(number, group=True)
        provider.release()
        thread.join()
        assert stopped.ends() == 0
    return replies


def twice(folder):
    with RawServer(after_the_request()) as silent, Stopped(
            folder, silent, timeout=40, drain=30.0) as stopped:
        thread, _ = stopped.server.send_meanwhile(EMAIL)
        has_read(silent, 1, stopped.server)
        stopped.told(signal.SIGINT, group=True)
        stopped.tell(signal.SIGINT, group=True)
        code = stopped.ends()
        thread.join()
    return code


def shared(folder, worker):
    drain = 6.0
    with RawServer(after_the_request()) as silent, Stopped(
            folder, silent, worker=worker, timeout=40,
            drain=drain) as stopped:
        thread, _ = stopped.server.send_meanwhile(EMAIL)
        has_read(silent, 1, stopped.server)
        stopped.site.queue(2 if worker == 'embedded' else 0)
        has_read(silent, 3 if worker == 'embedded' else 1, stopped.server)
        stopped.told()
        assert stopped.ends(2 * drain - 1) == 0
        thread.join()
    return stopped.server.log


def kept(folder):
    with a_provider() as provider, Stopped(
            folder, provider) as stopped, socket.create_connection(
            ('127.0.0.1', stopped.server.port)) as client:
        client.sendall(b'GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n')
        assert client.recv(65536).startswith(b'HTTP/1.1 200')
        stopped.told()
        return stopped.ends()


def dies(folder):
    with a_provider() as provider:
        site = Site(folder, provider)
        (folder / 'fatal').touch()
        server = Server(folder, IN_OUR_OWN_WAY, TIMED='{}', DIES='fatal')
        with server:
            server.until(lambda: server.log.count('has started') == 2)
            listed = server.get('/example.com/messages/', ADMIN_KEY)
        site.store.close()
    return listed, server.log


def real_time(folder, command):
    with a_provider() as provider, RawServer(after_the_request()) as silent:
        site = Site(folder, provider)
        site.configure(silent.url, timeout=40)
        with Server(folder, command) as server:
            thread, _ = server.send_meanwhile(EMAIL)
            has_read(silent, 1, server)
            began = time.monotonic()
            server.process.terminate()
            assert server.process.wait(40) == 0
            took = time.monotonic() - began
            thread.join()
        site.store.close()
    return took, server.log


RUNS = {'real time': real_time, 'in flight': in_flight, 'hangs': hangs,
        'signalled': signalled, 'twice': twice, 'shared': shared,
        'kept': kept, 'dies': dies}


runs = side_by_side(by_name(RUNS))


def cases(name, *abouts):
    every = [(name, *about) for about in abouts or ((),)]
    return pytest.mark.parametrize('case', [
        pytest.param(case, id='-'.join(map(str, case[1:])) or name,
                     marks=() if case in QUICK else pytest.mark.long)
        for case in every])


BY_EVERY_COMMAND = [(command, worker) for command in TIMED
                    for worker in KINDS]


# -- what is promised ---------------------------------------------------------

@cases('real time', ['stampman run'], ['gunicorn --preload'])
def test_the_real_time_is_twenty_seconds(runs, case):
    took, log = runs[case].result()
    assert 19 < took < 25       # which is when gunicorn itself would kill
    assert 'SIGKILL' not in log


@cases('in flight', *BY_EVERY_COMMAND)
def test_it_finishes_what_is_in_flight_and_begins_nothing_too_long(
        runs, case):
    """A service that might not be done in time is not asked any more."""
    [reply], later = runs[case].result()
    assert (reply.status, reply.json['status']) == (202, 'deferred')
    assert later.state is State.queued
    assert later.attempts == ()


@cases('hangs', *BY_EVERY_COMMAND)
def test_what_hangs_for_longer_ends_with_it(runs, case):
    [message], log = runs[case].result()
    assert message.state is State.sending
    assert message.attempts[0].outcome is None
    assert 'left to a rescue' in log


@cases('signalled', *((command, number) for command in TIMED
                      for number in (signal.SIGINT, signal.SIGQUIT)))
def test_ctrl_c_and_sigquit_reach_all_of_it_and_it_finishes(runs, case):
    [reply] = runs[case].result()
    assert reply.json['status'] == 'accepted'


@cases('twice')
def test_a_second_ctrl_c_ends_it_at_once(runs, case):
    assert runs[case].result() == 0


@cases('shared', *([kind] for kind in KINDS))
def test_the_worker_and_the_requests_share_the_time(runs, case):
    """What the worker began does not get its time after the requests."""
    assert (f'{2 if case[1] == "embedded" else 0} deliveries of the worker'
            in runs[case].result())


@cases('kept')
def test_a_client_that_keeps_its_connection_delays_nobody_for_long(
        runs, case):
    assert runs[case].result() == 0


@cases('dies')
def test_a_server_whose_worker_dies_gets_a_new_process(runs, case):
    listed, log = runs[case].result()
    assert listed.status == 200
    assert 'a thread of the worker ends' in log


def test_the_whole_drain_is_shorter_than_what_a_platform_waits():
    """Heroku kills after 30 seconds, gunicorn after its graceful_timeout."""
    from stampman import serving
    from stampman.helpers.delivery import Timing
    assert Timing().drain == 20 < serving.graceful_timeout < 30
