"""The command line, as an operator runs it: exit codes, and what it says."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
POOL = {
    'domain': 'example.com', 'api_key': '${STAMPMAN_POOL_KEY}',
    'services': {'capture': {}}}
CONFIG = {'pools': [POOL], 'admins': [
    {'name': 'ops', 'api_key': '${STAMPMAN_ADMIN_KEY}'}]}
SEND = ('send', '--from', 'hello@example.com', '--to', 'you@example.org',
        '--subject', 'Hello', '--text', 'It works.')


class Folder:
    """A folder with a config, in which commands are run."""

    def __init__(self, path):
        self.path = path
        self.configure(CONFIG)

    def configure(self, config):
        text = config if isinstance(config, str) else json.dumps(config)
        (self.path / 'config.json').write_text(text)

    def configure_services(self, **services):
        self.configure({**CONFIG, 'pools': [{**POOL, 'services': services}]})

    def run(self, *words, **environ):
        kept = {name: os.environ[name] for name in ('PATH', 'HOME')
                if name in os.environ}
        return subprocess.run(
            [sys.executable, '-m', 'stampman', *words], cwd=self.path,
            env={**kept, 'PYTHONPATH': str(ROOT), **environ}, text=True,
            capture_output=True, stdin=subprocess.DEVNULL)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """What `init` and `migrate` make of a folder."""
    folder = Folder(tmp_path_factory.mktemp('made'))
    assert folder.run('init').returncode == 0
    assert folder.run('migrate').returncode == 0
    return folder


@pytest.fixture
def ready(folder, made):
    """A folder with keys and a database."""
    shutil.copytree(made.path, folder.path, dirs_exist_ok=True)
    return folder


def test_init_writes_fresh_keys_that_only_the_owner_reads(folder):
    result = folder.run('init')
    assert result.returncode == 0, result.stderr
    dotfile = folder.path / '.env'
    assert stat.S_IMODE(dotfile.stat().st_mode) == 0o600
    keys = dict(line.split('=', 1)
                for line in dotfile.read_text().splitlines())
    assert set(keys) == {'STAMPMAN_POOL_KEY', 'STAMPMAN_ADMIN_KEY',
                         'STAMPMAN_SECRET_KEY'}
    assert all(len(key) >= 32 for key in keys.values())
    assert not any(key in result.stdout for key in keys.values())


def test_init_keeps_the_keys_that_are_there(folder):
    dotfile = folder.path / '.env'
    dotfile.write_text('STAMPMAN_POOL_KEY=mine-and-long-enough')
    assert folder.run('init').returncode == 0
    assert folder.run('init').returncode == 0
    lines = dotfile.read_text().splitlines()
    assert lines[0] == 'STAMPMAN_POOL_KEY=mine-and-long-enough'
    assert len(lines) == 3


def test_init_fills_in_the_keys_of_the_example(folder):
    (folder.path / '.env').write_text(
        'STAMPMAN_POOL_KEY=\nexport STAMPMAN_ADMIN_KEY=""\nPORT=8001\n')
    assert folder.run('init').returncode == 0
    text = (folder.path / '.env').read_text()
    assert text.startswith('PORT=8001\nSTAMPMAN_POOL_KEY=')
    assert text.count('STAMPMAN_POOL_KEY') == 1
    assert text.count('STAMPMAN_ADMIN_KEY') == 1
    assert folder.run('check').returncode == 0


def test_init_says_what_it_cannot_read(folder):
    (folder.path / '.env').write_bytes(b'PORT=\xff\n')
    result = folder.run('init')
    assert result.returncode == 1
    assert 'not UTF-8' in result.stderr


def test_check_says_that_a_config_is_valid(ready):
    result = ready.run('check')
    assert result.returncode == 0, result.stderr
    assert 'example.com: capture' in result.stdout
    assert 'The config is valid.' in result.stdout


def test_check_names_every_problem_at_once(ready):
    ready.configure({'pools': [
        {**POOL, 'services': {
            'sendgrid': {'api_key': '${NOT_SET}', 'colour': 'red'},
            'nosuch': {}}},
        {**POOL, 'domain': 'not a domain'}], 'admin': []})
    result = ready.run('check')
    assert result.returncode == 1
    for place in ('pools[0].services.sendgrid.api_key: the environment '
                  'variable NOT_SET is not set',
                  'pools[0].services.sendgrid.colour',
                  'pools[0].services.nosuch.provider: "nosuch" is not',
                  'pools[1].domain', 'admin: is not'):
        assert place in result.stderr
    assert 'Traceback' not in result.stderr


@pytest.mark.parametrize('text, told', [
    ('{', 'is not JSON'), ('[]', 'must be a JSON object'),
    ('{"pools": [], "pools": []}', 'stands twice')])
def test_check_says_what_is_wrong_with_the_file(ready, text, told):
    ready.configure(text)
    result = ready.run('check')
    assert result.returncode == 1
    assert told in result.stderr


def test_a_missing_config_says_how_to_name_one(folder):
    (folder.path / 'config.json').unlink()
    result = folder.run('check')
    assert result.returncode == 1
    assert 'STAMPMAN_CONFIG' in result.stderr


@pytest.mark.parametrize('environ, told', [
    ({'STAMPMAN_WROKER': 'off'}, 'STAMPMAN_WROKER'),
    ({'STAMPMAN_WORKER': 'on'}, 'embedded, off'),
    ({'PORT': '0'}, 'PORT'),
    ({'STAMPMAN_SECRET_KEY': 'short'}, 'at least 32'),
    ({'DATABASE_URL': 'mysql://x'}, 'DATABASE_URL'),
    ({'DYNO': 'web.1'}, 'SQLite would lose'),
    ({'STAMPMAN_ENV': 'production'}, 'would send nothing')])
def test_the_environment_is_checked_too(ready, environ, told):
    result = ready.run('check', **environ)
    assert result.returncode == 1
    assert told in result.stderr
    assert 'Traceback' not in result.stderr


def test_check_warns_of_a_database_that_is_behind(folder):
    folder.run('init')
    result = folder.run('check')
    assert result.returncode == 0
    assert 'stampman migrate' in result.stderr


def test_check_warns_of_messages_whose_pool_is_gone(ready):
    ready.configure_services(sendgrid={
        'api_key': 'a-key-of-a-provider',
        'base_url': 'http://127.0.0.1:9'})
    assert ready.run(*SEND).returncode == 3
    ready.configure({**CONFIG, 'pools': [
        {**POOL, 'domain': 'other.example'}]})
    result = ready.run('check')
    assert '1 messages of example.com are deferred' in result.stderr


def test_send_delivers_without_a_server(ready):
    result = ready.run(*SEND)
    assert result.returncode == 0, result.stderr
    assert 'capture: accepted' in result.stdout


def test_send_reads_the_text_from_standard_input(ready):
    result = ready.run(*SEND[:-2])
    assert result.returncode == 1       # there was none
    assert 'text: must not be empty' in result.stderr


def test_send_names_wrong_fields(ready):
    result = ready.run('send', '--from', 'hello@example.com', '--to', 'you',
                       '--text', 'x')
    assert result.returncode == 1
    assert 'to[0]: is not an email address' in result.stderr


def test_send_says_which_senders_are_not_allowed(ready):
    result = ready.run('send', '--from', 'me@other.example', '--to',
                       'you@example.org', '--text', 'x', '--pool',
                       'example.com')
    assert result.returncode == 1
    assert 'me@other.example is not an allowed sender' in result.stderr


def test_migrate_says_whether_there_was_something_to_do(folder):
    folder.run('init')
    assert 'is migrated' in folder.run('migrate').stdout
    assert 'up to date' in folder.run('migrate').stdout


def test_reload_says_that_no_server_is_running(ready):
    result = ready.run('reload')
    assert result.returncode == 1
    assert 'no server is running' in result.stderr


def test_reload_signals_nobody_by_a_number_that_was_left_behind(ready):
    with subprocess.Popen(['sleep', '60']) as stranger:
        (ready.path / 'config.pid').write_text(str(stranger.pid))
        result = ready.run('reload')
        assert result.returncode == 1
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.parametrize('command', [
    (), ('run',), ('worker',), ('init',), ('check',), ('reload',), ('send',),
    ('migrate',)])
def test_every_command_explains_itself(folder, command):
    result = folder.run(*command, '--help')
    assert result.returncode == 0
    assert 'Usage: ' in result.stdout
    assert len(result.stdout.splitlines()) >= 6


@pytest.mark.parametrize('threads', ['0', '65', 'many'])
def test_a_worker_has_a_sensible_number_of_threads(ready, threads):
    result = ready.run('worker', '--threads', threads)
    assert result.returncode == 2
    assert '--threads' in result.stderr


def test_a_worker_does_not_begin_with_a_broken_config(ready):
    ready.configure('{')
    result = ready.run('worker')
    assert result.returncode == 1
    assert 'is not JSON' in result.stderr
    assert 'Traceback' not in result.stderr


def test_wrong_words_are_told_apart_from_failures(folder):
    assert folder.run('sned').returncode == 2
    assert folder.run('send').returncode == 2
