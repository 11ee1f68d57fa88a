"""`stampman simulate` as a process of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from gateway_server import ROOT
from simulating import call, call_json, sendgrid

WORDS = (sys.executable, '-m', 'stampman', 'simulate')
ENVIRON = {'PATH': os.environ['PATH'], 'PYTHONPATH': str(ROOT)}


@pytest.fixture
def started(tmp_path):
    """Return a function that starts the command and waits for its page."""
    begun = []

    def start(*words):
        process = subprocess.Popen(
            [*WORDS, '--port', '0', '--smtp-port', '0', *words],
            cwd=tmp_path, env=ENVIRON, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE)
        begun.append(process)
        watch = threading.Timer(20, process.kill)   # it must not hang a test
        watch.start()
        page = ''
        for line in process.stdout:
            page += line
            if 'curl -X DELETE' in line:
                break
        watch.cancel()
        port = re.search(r'http://127\.0\.0\.1:(\d+)/sendgrid', page)
        return SimpleNamespace(process=process, page=page, port=int(port[1]))

    yield start
    for process in begun:
        process.kill()
        process.communicate()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_it_takes_mail_and_faults_until_it_is_stopped(
        started, tmp_path, number):
    running = started('--ledger', 'taken.jsonl', '--key', 'sendgrid=SG.own')
    services, _ = json.JSONDecoder().raw_decode(
        running.page.partition('"services": ')[2])
    assert services['sendgrid']['api_key'] == 'SG.own'
    assert services['smtp']['host'] == '127.0.0.1'
    assert sendgrid(running, key='SG.own').status == 202
    assert call_json(running, '/faults', 'sendgrid:status=503').status == 201
    assert sendgrid(running, key='SG.own').status == 503
    assert call(running, 'DELETE', '/faults').status == 200
    assert sendgrid(running, key='SG.own').status == 202
    running.process.send_signal(number)
    rest, errors = running.process.communicate(timeout=10)
    assert (running.process.returncode, rest, errors) == (0, '', '')
    lines = (tmp_path / 'taken.jsonl').read_text().splitlines()
    assert [json.loads(line)['number'] for line in lines] == [1, 2]


def test_it_begins_with_faults_and_domains(started):
    running = started('--fault', 'sendgrid:status=503,times=1', '--domain',
                      'example.org', '--seed', '1')
    assert [sendgrid(running).status for _ in range(2)] == [503, 403]


@pytest.mark.parametrize('words, code, told', [
    (('--fault', 'sendgrid:explode'), 2, "not 'explode'"),
    (('--fault', 'sendgrid'), 2, '--fault'),
    (('--key', 'gmail=x'), 2, '--key'), (('--key', 'sendgrid='), 2, '--key'),
    (('--key', 'smtp=user'), 2, 'the password is missing'),
    (('--key', 'amazon_ses=AKIAX'), 2, 'the secret key is missing; write it '
     'like amazon_ses=AKIASIMULATED:simulated-secret'),
    (('--key', 'amazon_ses=:x'), 2, 'the access key is missing'),
    (('--domain', 'not a domain'), 2, "'not a domain' is not a domain name"),
    (('--ledger', 'missing/file'), 1, 'missing/file'),
    (('--port', '65536'), 2, '--port')])
def test_what_is_wrong_with_its_words_is_told(tmp_path, words, code, told):
    found = subprocess.run(
        [*WORDS, '--port', '0', '--smtp-port', '0', *words], cwd=tmp_path,
        env=ENVIRON, capture_output=True, text=True, timeout=20)
    assert found.returncode == code
    assert told in found.stderr
    assert 'Traceback' not in found.stderr


def test_a_port_that_is_taken_is_told(started, tmp_path):
    running = started()
    found = subprocess.run(
        [*WORDS, '--port', str(running.port), '--smtp-port', '0'],
        cwd=tmp_path, env=ENVIRON, capture_output=True, text=True,
        timeout=20)
    assert found.returncode == 1
    assert '--port or --smtp-port: Address already in use' in found.stderr
