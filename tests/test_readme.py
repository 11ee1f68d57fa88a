"""The README is true: its commands are run as a newcomer pastes them."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / 'README.md').read_text()
BLOCKS = re.findall(r'^```sh\n(.*?)^```$', README, re.DOTALL | re.MULTILINE)
with socket.create_server(('127.0.0.1', 0)) as free:
    PORT = free.getsockname()[1]
PATIENCE = 300.0    # seconds; `make run` installs everything first


def block(word):
    """Return the one block of commands with this word in it."""
    [found] = [block for block in BLOCKS if word in block]
    return found


@pytest.fixture(scope='module')
def clone(tmp_path_factory):
    """What `git clone` brings, and nothing more."""
    folder = tmp_path_factory.mktemp('fresh') / 'stampman'
    tracked = subprocess.run(
        ['git', 'ls-files', '-z', '--cached', '--others',
         '--exclude-standard'], cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, tracked.stdout.decode().split('\0')):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    return folder


@pytest.fixture(scope='module')
def served(clone):
    """`make run`, as in the README, but on a port that is free."""
    assert 'http://127.0.0.1:8000/' in README
    with open(clone / 'make.log', 'wb') as log:
        process = subprocess.Popen(
            ['bash', '-c', block('make run')], cwd=clone, stdout=log,
            stderr=log, start_new_session=True,
            env={**plain_environment(), 'PORT': str(PORT)})
    give_up_at = time.monotonic() + PATIENCE
    while True:
        try:
            urllib.request.urlopen(
                f'http://127.0.0.1:{PORT}/healthz').close()
            break
        except OSError:
            told = (clone / 'make.log').read_text()
            assert process.poll() is None, told
            assert time.monotonic() < give_up_at, told
            time.sleep(0.1)
    yield clone
    os.killpg(process.pid, signal.SIGTERM)
    process.wait()


def plain_environment():
    return {name: value for name, value in os.environ.items()
            if not name.startswith(('STAMPMAN_', 'PYTHON', 'VIRTUAL_ENV'))
            and name not in ('PORT', 'DATABASE_URL')}


def paste(folder, commands):
    result = subprocess.run(
        ['bash', '-euc', commands.replace(':8000/', f':{PORT}/')],
        cwd=folder, env=plain_environment(),
        capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


pytestmark = pytest.mark.long


def test_the_first_mail_stands_within_the_first_40_lines():
    assert '/send' in '\n'.join(README.splitlines()[:40])


def test_the_first_mail_is_accepted(served):
    answer = json.loads(paste(served, block('example.com/send')))
    assert answer['status'] == 'accepted'
    assert answer['simulated'] is True


def test_the_messages_are_listed(served):
    paste(served, block('example.com/send'))
    answer = json.loads(paste(
        served, '. ./.env\n' + block('example.com/messages/')))
    assert answer['messages'][0]['status'] == 'accepted'


def test_the_line_that_make_run_prints_works_when_pasted(served):
    told = (served / 'make.log').read_text()
    line = re.search(r'^curl .*?[^\\]$', told, re.MULTILINE | re.DOTALL)[0]
    assert json.loads(paste(served, line))['status'] == 'accepted'
    assert str(served / '.env') in told
    key = (served / '.env').read_text().partition('=')[2].split()[0]
    assert key not in told


def test_a_failover_is_seen(served):
    told = paste(served, block('make demo'))
    assert re.search('service_used: mailgun\n +services_fail: sendgrid: HTTP '
                     '503.*All 11 emails have been taken', told, re.DOTALL)


@pytest.mark.parametrize('block', re.findall(
    r'^```json\n(.*?)^```$', README, re.DOTALL | re.MULTILINE))
def test_the_configs_shown_are_valid(served, block):
    (served / 'shown.json').write_text(block)
    told = paste(served, 'SENDGRID_API_KEY=x MAILGUN_API_KEY=x '
                 'STAMPMAN_CONFIG=shown.json .venv/bin/stampman check')
    assert 'The config is valid.' in told


def test_every_setting_and_variable_is_in_the_readme():
    schema = json.loads((ROOT / 'config.schema.json').read_text())
    names = {name for model in (schema, *schema['$defs'].values())
             for name in model.get('properties', ())}
    names -= {'$schema', 'name'}
    missing = [name for name in names if f'`{name}`' not in README]
    assert not missing
