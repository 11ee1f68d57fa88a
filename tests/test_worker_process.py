"""`stampman worker` as a process: its work, its end, its config."""

import json
import re
import signal
import time
from contextlib import ExitStack

import pytest

from stampman.helpers.delivery import Kind, State

from gateway_server import config
from processes import Server, WorkerProcess
from servers import Recorder
from sites import SHORT, Site


@pytest.fixture
def provider():
    with Recorder() as recorder:
        recorder.answer(202, b'', {'X-Message-Id': 'theirs'})
        yield recorder


@pytest.fixture
def site(tmp_path, provider):
    site = Site(tmp_path, provider)
    yield site
    site.store.close()


def test_it_delivers_what_is_due_without_the_web_half(site, provider):
    [id] = site.queue()
    worker = WorkerProcess(site.folder, python=('-X', 'importtime'))
    with worker:
        provider.wait_for(1)
        site.until(site.has(id, State.accepted))
        assert worker.end(signal.SIGTERM) == 0
    loaded = set(re.findall(r'^import time:.*\| +(\S+)$', worker.log,
                            re.MULTILINE))
    assert 'stampman.working' in loaded
    assert not {name for name in loaded
                if re.match('(flask|werkzeug|gunicorn)', name)}
    assert 'the worker has stopped' in [
        json.loads(line)['event'] for line in worker.log.splitlines()
        if line.startswith('{')]


def test_several_beside_a_server_send_each_message_once(site, provider):
    ids = site.queue(60)
    server = Server(site.folder, STAMPMAN_WORKER='off')
    with ExitStack() as running:
        running.enter_context(server)
        assert 'no worker' in server.get('/readyz').json['checks']['worker']
        for number in range(2):
            running.enter_context(WorkerProcess(
                site.folder, '--threads', '4', name=f'worker{number}'))
        provider.wait_for(60)
        site.until(lambda: all(one.state is State.accepted
                               for one in site.messages))
        assert server.get('/readyz').json['checks']['worker'] == 'ok'
    assert len(provider.requests) == 60
    assert all(len(site.message(id).attempts) == 1 for id in ids)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_it_finishes_what_is_in_flight_and_claims_nothing_more(
        site, provider, number):
    provider.hold()
    [first] = site.queue()
    site.configure(provider.url, timeout=10)
    with site.worker() as worker:
        provider.wait_for(1)
        worker.process.send_signal(number)
        worker.until_it_says('the worker stops: ')
        worker.process.send_signal(signal.SIGTERM)      # again: no matter
        [second] = site.queue()
        provider.release()
        assert worker.process.wait(10) == 0
    assert site.message(first).state is State.accepted
    assert site.message(second).state is State.queued
    assert 'the worker has stopped' in worker.log


@pytest.mark.long
def test_what_hangs_for_longer_is_left_to_a_rescue(site, provider):
    provider.hold()
    [id] = site.queue(on_uncertain='hold')
    with site.worker(drain=0.3) as worker:
        provider.wait_for(1)
        assert worker.end() == 0
    assert 'leaves 1 deliveries to a rescue' in worker.log
    left = site.message(id)
    assert left.state is State.sending and left.attempts[0].outcome is None
    provider.release()
    with site.worker('other'):
        site.until(site.has(id, State.uncertain))
    assert len(provider.requests) == 1
    assert site.message(id).attempts[0].outcome.kind is Kind.uncertain


@pytest.mark.long
def test_a_second_interrupt_ends_it_at_once(site, provider):
    provider.hold()
    site.queue()
    site.configure(provider.url, timeout=25)
    with WorkerProcess(site.folder) as worker:
        provider.wait_for(1)
        worker.process.send_signal(signal.SIGINT)
        worker.until_it_says('the worker stops')
        began = time.monotonic()
        assert worker.end(signal.SIGINT) == 0
        assert time.monotonic() - began < 5
    assert 'leaves 1 deliveries to a rescue' in worker.log


def test_a_process_one_of_whose_threads_dies_dies_with_it(site):
    (site.folder / 'fatal').touch()
    worker = WorkerProcess(site.folder, TIMED=json.dumps(SHORT), DIES='fatal')
    with worker:
        assert worker.process.wait(10) == 1
    assert 'a thread of the worker ends' in worker.log


def test_it_reads_the_config_anew_and_finishes_under_the_old_one(
        site, provider):
    provider.hold()
    [first] = site.queue()
    site.configure(provider.url, timeout=10)
    with Recorder() as other, site.worker() as worker:
        other.answer(202, b'', {'X-Message-Id': 'theirs'})
        provider.wait_for(1)
        site.configure(other.url)
        worker.process.send_signal(signal.SIGHUP)
        worker.until_it_says('the config is reloaded')
        [second] = site.queue()
        site.until(site.has(second, State.accepted))
        assert site.message(first).state is State.sending
        provider.release()
        site.until(site.has(first, State.accepted))
        assert len(provider.requests) == len(other.requests) == 1
        assert worker.end() == 0


@pytest.mark.long
@pytest.mark.parametrize('broken', ['{"pools": [', '{"colour": "red"}'])
def test_a_broken_config_leaves_it_the_last_good_one(site, broken):
    site.write(broken)
    with pytest.raises(AssertionError, match='not'):
        site.worker().__enter__()
    site.write(config())
    with site.worker() as worker:
        site.write(broken)
        worker.process.send_signal(signal.SIGHUP)
        worker.until_it_says('the config is not reloaded')
        [id] = site.queue()
        site.until(site.has(id, State.accepted))
        assert worker.end() == 0


@pytest.mark.long
def test_reload_reaches_the_server_and_the_workers(site):
    server = Server(site.folder)
    (site.folder / 'config.worker-7.pid').write_text('1')   # long dead
    with ExitStack() as running:
        workers = [running.enter_context(WorkerProcess(
            site.folder, name=f'worker{number}')) for number in range(2)]
        told = server.run('reload')
        assert told.returncode == 0, told.stderr
        for worker in workers:
            assert f'worker {worker.process.pid}' in told.stdout
            worker.until_it_says('the config is reloaded')
        assert 'server' not in told.stdout
        running.enter_context(server)
        told = server.run('reload')
        assert f'server {server.process.pid}, worker ' in told.stdout
        for worker in workers:
            worker.until_it_says('the config is reloaded', 2)
        assert [worker.end() for worker in workers] == [0, 0]
        server.until(lambda: 'Hang up: Master' in server.log)
        told = server.run('reload')
        assert f'by: server {server.process.pid}.' in told.stdout
