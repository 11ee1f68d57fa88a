"""The environment of the process: what is not in the config file."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote

from dotenv.parser import parse_stream

from stampman.helpers.config import absolute_url, names_in
from stampman.helpers.exceptions import ConfigError, FieldError

# Every STAMPMAN_* that means something, beside those the config names.
VARIABLES = frozenset({
    'STAMPMAN_CONFIG', 'STAMPMAN_PUBLIC_URL', 'STAMPMAN_SECRET_KEY',
    'STAMPMAN_WORKER', 'STAMPMAN_ENV',
    'STAMPMAN_POOL_KEY', 'STAMPMAN_ADMIN_KEY'})     # what `init` makes
# Not parsed as a URL: what is none may hold a password, too.
_USERINFO = re.compile('//[^/:@?]*:([^/?]*)@')
# libpq takes this for one, too, if it comes before any other at sign.
_UNQUOTED = re.compile('//[^/:@?]*:([^/@?]*[?][^/@]*)@')
# What stands before the host, as libpq finds it: its question marks are its.
_BEFORE_HOST = re.compile('[^:]*://[^/@]*@')
_OPTION = re.compile('[?&](?:ssl)?password=([^&]*)')
MIN_SECRET = 32     # characters of STAMPMAN_SECRET_KEY


@dataclass(frozen=True)
class Environment:
    """What the environment says, `.env` beside the config included.

    `variables` holds all of it; a variable that is really set wins over
    `.env`. `worker` is `embedded` or `off`. On a `dyno` the disk is thrown
    away at every restart. `secret_key` signs the admins' sessions; without
    one nobody can sign in.
    """

    config_path: Path
    database_url: str = field(repr=False)
    public_url: str | None
    secret_key: str | None = field(repr=False)
    worker: str
    production: bool
    dyno: bool
    sentry_dsn: str | None = field(repr=False)
    port: int
    processes: int
    variables: Mapping[str, str] = field(repr=False)


def read(environ: Mapping[str, str]) -> Environment:
    """Return the environment; raises ConfigError with every problem."""
    path = Path(environ.get('STAMPMAN_CONFIG') or 'config.json').absolute()
    dotfile, errors = _dotfile(path.parent / '.env')
    merged = {**dotfile, **environ}
    if 'STAMPMAN_CONFIG' in dotfile and 'STAMPMAN_CONFIG' not in environ:
        errors.append(FieldError(
            'STAMPMAN_CONFIG', 'cannot stand in .env, which is looked for '
            'beside the config: set it in the environment'))
    errors += _unknown(merged, names_in(path))

    def checked(name, convert, default=None):
        try:
            return convert(merged[name]) if merged.get(name) else default
        except ValueError as error:
            errors.append(FieldError(name, str(error)))

    found = Environment(
        config_path=path,
        database_url=_database_url(merged, path.parent),
        public_url=checked('STAMPMAN_PUBLIC_URL', absolute_url),
        secret_key=checked('STAMPMAN_SECRET_KEY', _secret),
        worker=checked('STAMPMAN_WORKER', _one_of('embedded', 'off'),
                       'embedded'),
        production=checked(
            'STAMPMAN_ENV', _one_of('production', 'development'),
            'production' if 'DYNO' in merged else '') == 'production',
        dyno='DYNO' in merged,
        sentry_dsn=merged.get('SENTRY_API_DSN') or None,
        port=checked('PORT', _number(65535), 8000),
        processes=checked('WEB_CONCURRENCY', _number(1024), 1),
        variables=merged)
    if found.dyno and found.database_url.startswith('sqlite'):
        errors.append(FieldError(
            'DATABASE_URL', 'SQLite would lose every message here: the disk '
            'of a dyno is thrown away. Add PostgreSQL: "heroku '
            'addons:create heroku-postgresql:essential-0" sets it.'))
    if errors:
        raise ConfigError('the environment is not valid:', errors=errors)
    return found


def _database_url(variables, directory):
    """On a dyno the database is reached over a network of strangers."""
    url = variables.get('DATABASE_URL')
    if not url:
        return f'sqlite:///{directory / "stampman.db"}'
    _, mark, query = _BEFORE_HOST.sub('', url, count=1).partition('?')
    if 'DYNO' not in variables or not url.startswith('postgres') \
            or 'sslmode' in parse_qs(query):
        return url
    return f'{url}{"&" if query else "" if mark else "?"}sslmode=require'


def passwords(url: str) -> Sequence[str]:
    """Return the passwords in a URL, as they are and as they stand there."""
    found = [one for pattern in (_USERINFO, _UNQUOTED, _OPTION)
             for one in pattern.findall(url)]
    return [*found, *map(unquote, found)]


def _dotfile(path):
    """Return the variables that `path` sets, if it exists, and errors."""
    try:
        text = path.read_text('utf-8') if path.exists() else ''
    except (OSError, UnicodeDecodeError) as error:
        return {}, [FieldError(str(path), f'cannot be read: {error}')]
    lines = list(parse_stream(io.StringIO(text)))
    return {line.key: line.value or '' for line in lines if line.key}, [
        FieldError(f'{path}, line {line.original.line}', 'is not NAME=value')
        for line in lines if line.error]


def _unknown(variables, named):
    """A name that nobody reads is a slip; the config may name its own."""
    if named is None:
        return []
    return [FieldError(name, 'is not known; these are: '
                             f'{", ".join(sorted(VARIABLES))}')
            for name in sorted(variables)
            if name.startswith('STAMPMAN_')
            and name not in VARIABLES | named]


def _secret(text):
    if len(text) < MIN_SECRET:
        raise ValueError(f'must have at least {MIN_SECRET} characters; '
                         '"stampman init" makes one')
    return text


def _one_of(*words):
    def check(text):
        if text not in words:
            raise ValueError(f'must be one of: {", ".join(words)}')
        return text
    return check


def _number(most):
    def check(text):
        if not text.isdecimal() or len(text) > 9 or not (
                0 < int(text) <= most):
            raise ValueError(f'must be a whole number from 1 to {most}')
        return int(text)
    return check
