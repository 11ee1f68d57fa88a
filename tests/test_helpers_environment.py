"""What the process is told by its environment and the .env beside it."""

import os
from pathlib import Path

import pytest

from stampman.helpers.environment import read
from stampman.helpers.exceptions import ConfigError

SECRET = 's' * 32


@pytest.fixture
def environ(write_config):
    """Return what names a config that reads one variable of its own."""
    return {'STAMPMAN_CONFIG': str(write_config(_x='${STAMPMAN_OUR_KEY}'))}


def problems_of(environ):
    with pytest.raises(ConfigError) as raised:
        read(environ)
    return dict(raised.value.errors)


def dotenv(environ, text):
    path = Path(environ['STAMPMAN_CONFIG']).parent / '.env'
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_machine_that_says_nothing_gets_the_defaults(environ):
    found = read(environ)
    folder = Path(environ['STAMPMAN_CONFIG']).parent
    assert found.config_path == folder / 'config.json'
    assert found.database_url == f'sqlite:///{folder}/stampman.db'
    assert (found.worker, found.port, found.processes) == (
        'embedded', 8000, 1)
    assert not (found.production or found.dyno)
    assert found.public_url is found.secret_key is found.sentry_dsn is None


def test_the_config_is_looked_for_where_the_process_runs():
    assert read({}).config_path == Path(os.getcwd(), 'config.json')
    assert read({'STAMPMAN_CONFIG': 'x/y.json'}).config_path == Path(
        os.getcwd(), 'x/y.json')


def test_everything_that_can_be_said_is_read(environ):
    found = read({
        **environ, 'DATABASE_URL': 'postgresql://u:p@db/x',
        'STAMPMAN_PUBLIC_URL': 'https://mail.example.com/s/',
        'STAMPMAN_SECRET_KEY': SECRET, 'STAMPMAN_WORKER': 'off',
        'STAMPMAN_ENV': 'production', 'SENTRY_API_DSN': 'https://x@y/1',
        'PORT': '80', 'WEB_CONCURRENCY': '4', 'STAMPMAN_OUR_KEY': 'x'})
    assert found.database_url == 'postgresql://u:p@db/x'
    assert found.public_url == 'https://mail.example.com/s'
    assert (found.secret_key, found.worker) == (SECRET, 'off')
    assert found.production and not found.dyno
    assert found.sentry_dsn == 'https://x@y/1'
    assert (found.port, found.processes) == (80, 4)
    assert found.variables['STAMPMAN_OUR_KEY'] == 'x'


def test_secrets_are_not_shown(environ):
    shown = repr(read({
        **environ, 'STAMPMAN_SECRET_KEY': SECRET, 'STAMPMAN_OUR_KEY':
        'canary', 'DATABASE_URL': 'postgresql://u:canary@db/x',
        'SENTRY_API_DSN': 'https://canary@y/1'}))
    assert SECRET not in shown and 'canary' not in shown


def test_the_dotfile_fills_in_what_is_not_set(environ):
    dotenv(environ, '# keys\nexport PORT=81\n\nSTAMPMAN_WORKER="off"\n'
                    "STAMPMAN_SECRET_KEY='" + SECRET + "'\n"
                    'STAMPMAN_OUR_KEY=a$b${PORT}#c\nEMPTY\n')
    found = read({**environ, 'PORT': '82', 'STAMPMAN_WORKER': ''})
    assert found.port == 82
    assert found.worker == 'embedded'       # set, though to nothing
    assert found.secret_key == SECRET
    assert found.variables['STAMPMAN_OUR_KEY'] == 'a$b${PORT}#c'
    assert found.variables['EMPTY'] == ''


def test_a_line_of_the_dotfile_that_says_nothing_is_told(environ):
    path = dotenv(environ, 'PORT=81\nSTAMPMAN_OUR_KEY = "never closed\n')
    assert problems_of(environ) == {f'{path}, line 2': 'is not NAME=value'}


def test_a_dotfile_that_cannot_be_read_is_told(environ):
    path = dotenv(environ, b'A=\xff')
    assert 'cannot be read' in problems_of(environ)[str(path)]
    path.unlink()
    path.mkdir()
    assert 'cannot be read' in problems_of(environ)[str(path)]


def test_the_dotfile_cannot_say_where_it_lies_itself(
        environ, tmp_path, monkeypatch):
    dotenv(environ, 'STAMPMAN_CONFIG=other.json\n')
    monkeypatch.chdir(tmp_path)
    assert set(problems_of({})) == {'STAMPMAN_CONFIG'}
    assert read(environ).config_path == tmp_path / 'config.json'


@pytest.mark.parametrize('name, value, message', [
    ('STAMPMAN_PUBLIC_URL', 'mail.example.com', 'must be a URL'),
    ('STAMPMAN_PUBLIC_URL', 'ftp://example.com', 'must be a URL'),
    ('STAMPMAN_PUBLIC_URL', 'https://', 'must be a URL'),
    ('STAMPMAN_PUBLIC_URL', 'https://[::1', 'must be a URL'),
    ('STAMPMAN_PUBLIC_URL', 'https://x:99999', 'must be a URL'),
    ('STAMPMAN_PUBLIC_URL', 'https://x/\r\nX: y', 'must be a URL'),
    ('STAMPMAN_PUBLIC_URL', 'https://x/?q', 'must not have a query'),
    ('STAMPMAN_PUBLIC_URL', 'https://x/#f', 'must not have a query'),
    ('STAMPMAN_PUBLIC_URL', 'https://u@x', 'must not have a query'),
    ('STAMPMAN_PUBLIC_URL', 'https://:p@x', 'must not have a query'),
    ('STAMPMAN_SECRET_KEY', 's' * 31, 'at least 32 characters'),
    ('STAMPMAN_WORKER', 'on', 'must be one of: embedded, off'),
    ('STAMPMAN_ENV', 'prod', 'must be one of: production, development'),
    ('PORT', '0', 'from 1 to 65535'), ('PORT', '65536', 'from 1 to 65535'),
    ('PORT', 'http', 'whole number'), ('PORT', '-1', 'whole number'),
    ('WEB_CONCURRENCY', '1.5', 'whole number'),
    ('WEB_CONCURRENCY', '9' * 5000, 'whole number'),
    ('STAMPMAN_WORKERS', 'off', 'is not known; these are: STAMPMAN_')])
def test_each_value_that_is_wrong_is_told(environ, name, value, message):
    found = problems_of({**environ, name: value})
    assert set(found) == {name} and message in found[name]


def test_all_that_is_wrong_is_told_at_once(environ):
    dotenv(environ, 'STAMPMAN_ENV=prod\nSTAMPMAN_COLOUR=red\n')
    assert set(problems_of({
        **environ, 'PORT': 'x', 'STAMPMAN_WORKER': 'x', 'DYNO': 'web.1'})
    ) == {'PORT', 'STAMPMAN_WORKER', 'STAMPMAN_ENV', 'STAMPMAN_COLOUR',
          'DATABASE_URL'}


def test_a_config_that_cannot_be_read_is_not_blamed_on_its_variables(
        tmp_path):
    found = read({'STAMPMAN_CONFIG': str(tmp_path / 'none.json'),
                  'STAMPMAN_OUR_KEY': 'x'})
    assert not found.config_path.exists()


def test_a_dyno_is_production_and_keeps_no_sqlite(environ):
    assert 'SQLite would lose every message' in problems_of(
        {**environ, 'DYNO': 'web.1'})['DATABASE_URL']
    found = read({**environ, 'DYNO': 'web.1',
                  'DATABASE_URL': 'postgres://db/x'})
    assert found.dyno and found.production
