"""The server as a process: its worker, its signals, its config."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from stampman.helpers.delivery import State
from stampman.opening import new_id
from stampman.store import open_store

from fakes import email, message
from fresh import put_fresh
from gateway_server import ADMIN_KEY, EMAIL, config, sendgrid_at
from processes import COMMANDS, Server
from servers import Recorder

ACCEPTED = (202, b'', {'X-Message-Id': 'theirs'})


@pytest.fixture
def provider():
    with Recorder() as recorder:
        recorder.answer(*ACCEPTED)
        yield recorder


def store_due_message(folder):
    """Store a message that waits, as an earlier process left it."""
    now = time.time()
    put_fresh(folder / 'stampman.db')
    store = open_store(f'sqlite:///{folder}/stampman.db')
    store.add(message(id=new_id(now), state=State.queued, created_at=now,
                      expires_at=now + 3600, next_attempt_at=now), email())
    store.close()


@pytest.mark.parametrize('command', [
    'stampman run', *(pytest.param(command, marks=pytest.mark.long)
                      for command in COMMANDS if command != 'stampman run')])
def test_the_worker_runs_in_every_process_that_serves(
        tmp_path, provider, command):
    store_due_message(tmp_path)
    server = Server(tmp_path, command).configure(
        config({'sendgrid': sendgrid_at(provider.url)}))
    with server:
        provider.wait_for(1)
        server.until(lambda: server.get('/example.com/messages/', ADMIN_KEY)
                     .json['messages'][0]['status'] == 'accepted')
        assert server.send(EMAIL).status == 200
    assert len(provider.requests) == 2
    assert server.process.returncode == 0


@pytest.mark.long
@pytest.mark.parametrize('command', [
    'gunicorn --preload', 'gunicorn with two workers'])
def test_requests_deliver_side_by_side(tmp_path, provider, command):
    """Also in the forks of a master that loaded the application."""
    server = Server(tmp_path, command).configure(
        config({'sendgrid': sendgrid_at(provider.url)}))
    assert server.run('migrate').returncode == 0
    provider.hold()
    with server:
        sending = [server.send_meanwhile(EMAIL) for _ in range(4)]
        provider.wait_for(4)
        provider.release()
        for thread, replies in sending:
            thread.join()
            assert replies[0].json['status'] == 'accepted'


def test_the_worker_can_be_off(tmp_path, provider):
    store_due_message(tmp_path)
    server = Server(tmp_path, STAMPMAN_WORKER='off').configure(
        config({'sendgrid': sendgrid_at(provider.url)}))
    with server:
        ready = server.get('/readyz')
        assert ready.status == 200
        assert 'no worker' in ready.json['checks']['worker']
        assert server.send(EMAIL).json['status'] == 'accepted'
    assert len(provider.requests) == 1


def test_a_bare_gunicorn_wants_a_migrated_database(tmp_path):
    server = Server(tmp_path, 'gunicorn').configure(config())
    with pytest.raises(AssertionError, match='stampman migrate'):
        server.__enter__()
    assert server.process.returncode == 3


def test_a_broken_config_is_told_in_one_place(tmp_path):
    server = Server(tmp_path).configure(
        {**config(), 'colour': 'red'})
    with pytest.raises(AssertionError, match='colour: is not'):
        server.__enter__()
    assert server.process.returncode == 1
    assert 'Traceback' not in server.log


def config_with_third_pool():
    known = config()
    third = {'domain': 'third.example', 'api_key': 'pool-key-of-the-third',
             'services': {'capture': {}}}
    return {**known, 'pools': [*known['pools'], third]}


def test_reload_makes_the_server_read_a_valid_config(tmp_path):
    with Server(tmp_path).configure(config()) as server:
        assert server.get('/third.example/').status == 404
        server.configure(config_with_third_pool())
        result = server.run('reload')
        assert result.returncode == 0, result.stderr
        server.until(lambda: server.get('/third.example/').status == 200)


@pytest.mark.long
def test_a_pid_file_that_was_left_behind_stops_nobody(tmp_path):
    (tmp_path / 'config.pid').write_text(str(os.getpid()))
    with Server(tmp_path).configure(config()) as server:
        assert (tmp_path / 'config.pid').read_text() == str(
            server.process.pid)
        assert server.run('reload').returncode == 0


@pytest.mark.long
def test_a_broken_config_changes_nothing(tmp_path):
    with Server(tmp_path).configure(config()) as server:
        server.configure('{"pools": [')
        result = server.run('reload')
        assert result.returncode == 1
        assert 'is not JSON' in result.stderr
        # A SIGHUP from elsewhere finds the file broken too.
        os.kill(server.process.pid, signal.SIGHUP)
        server.until(lambda: server.get('/readyz').json['checks']['config']
                     != 'ok')
        assert server.get('/readyz').status == 200
        assert server.send(EMAIL).status == 200
        assert 'is not JSON' in server.log
        server.configure(config())
        assert server.run('reload').returncode == 0
        server.until(lambda: server.get('/readyz').json['checks']['config']
                     == 'ok')


def refuses(server):
    """Say that nobody listens any more: who comes now need not wait."""
    try:
        socket.create_connection(('127.0.0.1', server.port)).close()
    except ConnectionRefusedError:
        return True


def test_what_is_in_flight_is_finished_before_it_stops(tmp_path, provider):
    provider.hold()
    server = Server(tmp_path).configure(
        config({'sendgrid': sendgrid_at(provider.url)}))
    with server:
        thread, replies = server.send_meanwhile(EMAIL)
        provider.wait_for(1)
        server.process.terminate()
        server.until(lambda: refuses(server))
        provider.release()
        thread.join()
        assert replies[0].json['status'] == 'accepted'
        assert server.process.wait(30) == 0


@pytest.mark.long
def test_a_client_that_lingers_stalls_nobody(tmp_path):
    """gunicorn 26 and later wait 2 s for it in the thread that accepts."""
    with Server(tmp_path).configure(config()) as server:
        lingering = [socket.create_connection(('127.0.0.1', server.port))
                     for _ in range(3)]
        for client in lingering:
            client.sendall(b'GET /healthz HTTP/1.1\r\nHost: x\r\n'
                           b'Connection: close\r\n\r\n')
            assert client.recv(65536).startswith(b'HTTP/1.1 200')
            began = time.monotonic()
            assert server.get('/healthz').status == 200
            assert time.monotonic() - began < 1.5
        for client in lingering:
            client.close()


def test_the_garbage_collector_does_not_look_at_what_is_loaded():
    """It would stop everybody for as long as it looks."""
    told = subprocess.run(
        [sys.executable, '-c', 'import gc\n'
         'from stampman import main, serving\n'
         'serving.post_worker_init(None)\n'
         'print(gc.get_freeze_count(), len(gc.get_objects()))'],
        capture_output=True, text=True, check=True).stdout
    frozen, looked_at = map(int, told.split())
    assert frozen > 20_000 and looked_at < 1_000
