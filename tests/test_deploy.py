"""What a deployment is made of: Heroku's files, systemd's units."""

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import jsonschema
import pytest

from stampman.api import create_api
from stampman.gateway import Gateway, load_config
from stampman.helpers import environment as environments
from stampman.helpers.config import names_in
from stampman.helpers.delivery import State, Timing
from stampman.helpers.exceptions import ConfigError
from stampman.opening import surroundings
from stampman.serving import graceful_timeout
from stampman.store import open_store
from stampman.store._postgres import CONNECTIONS
from stampman.store._sqlite import INCREMENTAL

from dynos import PROCFILE, SHUTDOWN, words_of
from fakes import email, message
from gateway_server import PATIENCE, ROOT, config
from processes import ENVIRON
from units import KNOWN, UNITS, parsed

APP = json.loads((ROOT / 'app.json').read_text())
DEPLOY = (ROOT / 'docs' / 'deploy.md').read_text()
NGINX = (ROOT / 'deploy' / 'nginx.conf').read_text()
PUSHED = ROOT / 'deploy' / 'heroku.json'
# What it may hold: https://devcenter.heroku.com/articles/app-json-schema
TEXT = {'type': 'string', 'minLength': 1}
APP_SCHEMA = {
    'type': 'object', 'additionalProperties': False, 'required': ['name'],
    'properties': {
        'name': {**TEXT, 'minLength': 3, 'maxLength': 30},
        'description': {**TEXT, 'maxLength': 140},
        'keywords': {'type': 'array', 'items': TEXT},
        'success_url': TEXT, 'website': TEXT, 'repository': TEXT,
        'logo': TEXT, 'stack': TEXT, 'buildpacks': {'type': 'array'},
        'scripts': {'type': 'object'}, 'environments': {'type': 'object'},
        'addons': {'type': 'array', 'items': {
            'type': 'object', 'additionalProperties': False,
            'required': ['plan'], 'properties': {
                'plan': {'pattern': '^[a-z-]+(:[a-z0-9-]+)?$'},
                'as': TEXT, 'options': {'type': 'object'}}}},
        'formation': {'type': 'object', 'additionalProperties': {
            'type': 'object', 'additionalProperties': False,
            'required': ['quantity'], 'properties': {
                'quantity': {'type': 'integer', 'minimum': 0},
                'size': {'enum': ['eco', 'basic', 'standard-1x',
                                  'standard-2x', 'performance-m',
                                  'performance-l']}}}},
        'env': {'type': 'object', 'propertyNames': {
            'pattern': '^[A-Z][A-Z0-9_]*$'}, 'additionalProperties': {
            'type': 'object', 'additionalProperties': False,
            'required': ['description'], 'properties': {
                'description': TEXT, 'value': TEXT,
                'required': {'type': 'boolean'},
                'generator': {'enum': ['secret']}}}}}}
PLAN = 20               # connections of the smallest plan
READ_BY_US = environments.VARIABLES | {
    'SENTRY_API_DSN', 'DATABASE_URL', 'PORT', 'WEB_CONCURRENCY'}


def generated(name):
    """Return a secret such as Heroku makes: 64 hexadecimal digits."""
    return hashlib.sha256(name.encode()).hexdigest()


def config_vars(**filled):
    """Return what Heroku sets for app.json, its form filled in."""
    made = {name: spec.get('value') or generated(name)
            for name, spec in APP['env'].items()
            if 'value' in spec or 'generator' in spec}
    asked = {name for name, spec in APP['env'].items()
             if name not in made and spec.get('required', True)}
    return {**made, **dict.fromkeys(asked, 'example.com'), **filled,
            'PORT': '41234', 'WEB_CONCURRENCY': '2'}


def test_app_json_says_what_heroku_reads():
    jsonschema.Draft202012Validator.check_schema(APP_SCHEMA)
    jsonschema.validate(APP, APP_SCHEMA)


def test_the_processes_of_app_json_are_those_of_the_procfile():
    assert {*APP['formation']} == {*PROCFILE} - {'release'}
    # One process is all that is needed, and one that never sleeps.
    assert {name: of['quantity'] for name, of in APP['formation'].items()} \
        == {'web': 1, 'worker': 0}
    assert APP['formation']['web']['size'] != 'eco'


def test_somebody_reads_each_variable_that_app_json_sets():
    assert {*APP['env']} <= READ_BY_US | names_in(PUSHED)
    assert names_in(PUSHED) <= {*APP['env']}
    assert not [name for name, spec in APP['env'].items()
                if ('KEY' in name) and 'value' in spec]


def test_what_the_button_deploys_is_a_whole_stampman(monkeypatch):
    monkeypatch.chdir(ROOT)     # a dyno's processes start where it was pushed
    known = {**config_vars(MAIL_DOMAIN='Example.com'), 'DYNO': 'web.1',
             'DATABASE_URL': 'postgres://a:b@127.0.0.1:1/c'}
    environment = environments.read(known)
    assert environment.production and environment.secret_key
    assert environment.worker == 'embedded'
    loaded = load_config(environment)
    assert [pool.domain for pool in loaded.pools] == ['example.com']
    with pytest.raises(ConfigError, match='MAIL_DOMAIN'):
        del known['MAIL_DOMAIN']
        load_config(environments.read(known))


def test_its_urls_are_whole_at_herokuapp_com_and_nowhere_else(
        monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    environment = environments.read(config_vars(
        DATABASE_URL=f'sqlite:///{tmp_path}/stampman.db'))
    api = create_api(Gateway(
        load_config(environment), environment, surroundings()))
    api.gateway.store.migrate()
    for host, url in {
            'a-b-1.herokuapp.com': 'https://a-b-1.herokuapp.com/example.com/',
            'a.example': '/example.com/'}.items():
        found = api.test_client().get('/', base_url=f'https://{host}')
        assert found.json['pools'][0]['url'] == url
    api.gateway.store.close()


@pytest.mark.parametrize('kind', PROCFILE)
def test_the_procfile_needs_nothing_that_heroku_does_not_install(kind):
    """It installs requirements.txt, and not the `stampman` command."""
    first, *rest = words_of(kind)
    assert first == 'gunicorn' or [first, *rest[:2]] == [
        'python', '-m', 'stampman']


def test_the_python_of_heroku_is_one_that_is_tested():
    version = (ROOT / '.python-version').read_text().strip()
    assert f"Python :: {version}'" in (ROOT / 'setup.py').read_text()
    assert f'- "{version}"' in (ROOT / '.travis.yml').read_text()


# -- systemd -----------------------------------------------------------------


@pytest.mark.parametrize('unit', UNITS, ids=lambda unit: unit.stem)
def test_a_unit_has_only_keys_that_systemd_knows(unit):
    found = parsed(unit)
    assert {*found} == {*KNOWN}
    for section, keys in found.items():
        assert {*keys} <= KNOWN[section], section


@pytest.mark.parametrize('unit', UNITS, ids=lambda unit: unit.stem)
def test_systemd_has_nothing_against_it(unit, tmp_path):
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace(
        '/srv/stampman/.venv/bin/stampman', sys.executable))
    verify = shutil.which('systemd-analyze')
    told = subprocess.run(      # not on every machine; the keys are held above
        [verify, 'verify', '--man=no', copy] if verify else ['true'],
        capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert unit.name not in told.stderr


@pytest.mark.parametrize('unit', UNITS, ids=lambda unit: unit.stem)
def test_it_gives_the_time_that_a_drain_takes_and_starts_again(unit):
    service = parsed(unit)['Service']
    seconds = int(service['TimeoutStopSec'].removesuffix('s'))
    assert Timing().drain < graceful_timeout < SHUTDOWN <= seconds
    assert service['Restart'] == 'always'
    assert service['ReadWritePaths'] == '/var/lib/stampman'
    assert service['Environment'] == \
        'STAMPMAN_CONFIG=/var/lib/stampman/config.json'
    assert 'ProcSubset' not in service      # it would hide the boot's name


def command(unit, key):
    """Return the words of a unit's command, of this installation."""
    program, *words = parsed(unit)['Service'][key].split()
    assert program == '/srv/stampman/.venv/bin/stampman'
    return [sys.executable, '-m', 'stampman', *words]


@pytest.mark.long
@pytest.mark.parametrize('unit', UNITS, ids=lambda unit: unit.stem)
def test_its_commands_start_reload_and_stop(unit, tmp_path):
    (tmp_path / 'config.json').write_text(json.dumps(config()))
    notified = tmp_path / 'notify'
    with socket.create_server(('127.0.0.1', 0)) as free:
        port = free.getsockname()[1]
    environ = {**ENVIRON, 'PORT': str(port), 'NOTIFY_SOCKET': str(notified)}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, open(
            tmp_path / 'log', 'wb') as log:
        systemd.bind(str(notified))
        systemd.settimeout(PATIENCE)
        process = subprocess.Popen(
            command(unit, 'ExecStart'), cwd=tmp_path, env=environ,
            stdout=log, stderr=log, start_new_session=True)
        try:
            if parsed(unit)['Service']['Type'] == 'notify':
                assert systemd.recv(4096).startswith(b'READY=1')
            until(tmp_path, 'has started')
            told = subprocess.run(
                command(unit, 'ExecReload'), cwd=tmp_path, env=environ,
                capture_output=True, text=True)
            assert f' {process.pid}.' in told.stdout, told.stderr
            until(tmp_path, 'has started', 2)
            process.send_signal(signal.SIGTERM)
            assert process.wait(SHUTDOWN) == 0
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def until(folder, words, times=1):
    give_up_at = time.monotonic() + PATIENCE
    while (told := (folder / 'log').read_text()).count(words) < times:
        assert time.monotonic() < give_up_at, told
        time.sleep(0.02)


def test_what_the_pages_copy_is_there():
    for page in ('README.md', 'docs/deploy.md'):
        for path in re.findall(r'(?<!\.com/)\bdeploy/[a-z-]+\.[a-z]+',
                               (ROOT / page).read_text()):
            assert (ROOT / path).is_file()


def of_sqlite(words):
    """Return the page's command for SQLite that has these words."""
    found, = (one for one in re.findall(
        r'^sqlite3 \S+ "(.+)"$', DEPLOY, re.MULTILINE) if words in one)
    return found


def test_a_file_of_an_older_release_shrinks_after_the_command(tmp_path):
    store = open_store(f'sqlite:///{tmp_path}/stampman.db')
    store.migrate()
    store.close()
    with closing(sqlite3.connect(tmp_path / 'stampman.db')) as other:
        other.executescript('PRAGMA auto_vacuum=NONE; VACUUM')
        before = other.execute('PRAGMA auto_vacuum').fetchone()
        other.executescript(of_sqlite('auto_vacuum'))
        after = other.execute('PRAGMA auto_vacuum').fetchone()
    assert (before, after) == ((0,), (INCREMENTAL,))


def test_a_backup_of_sqlite_as_it_is_told_has_what_was_just_committed(
        tmp_path):
    statement = of_sqlite('VACUUM INTO')
    store = open_store(f'sqlite:///{tmp_path}/stampman.db')
    store.migrate()
    store.add(message(id='of-now', state=State.queued), email())
    copy = tmp_path / 'copy.db'
    with closing(sqlite3.connect(tmp_path / 'stampman.db')) as other:
        other.execute(statement.replace(
            '/var/backups/stampman.db', str(copy)))
    store.close()
    restored = open_store(f'sqlite:///{copy}')
    assert not restored.schema_problem()
    assert restored.message('example.com', 'of-now').state is State.queued
    restored.close()


def test_the_page_counts_the_connections_right():
    told = re.findall(r'process opens up to (\d+)', DEPLOY)
    assert told == 2 * [str(CONNECTIONS)]
    plan, = re.findall(r'plan allows (\d+)', DEPLOY)
    assert int(plan) == PLAN
    # Two processes, and those of the deploy before them.
    assert 2 * 2 * CONNECTIONS <= PLAN


@pytest.mark.parametrize('environ, idle', [
    ({}, re.search(r'keepalive_timeout (\d+)s', NGINX)[1]),
    ({'DYNO': 'web.1', 'DATABASE_URL': 'postgres://a:b@127.0.0.1:1/c'},
     '90')])    # https://devcenter.heroku.com/articles/http-routing
def test_whoever_is_in_front_hangs_up_first(environ, idle, tmp_path):
    told = subprocess.run(
        [sys.executable, '-c',
         'from stampman import serving; print(serving.keepalive)'],
        cwd=tmp_path, env={**ENVIRON, **environ}, check=True,
        capture_output=True, text=True)
    assert int(idle) < int(told.stdout)
