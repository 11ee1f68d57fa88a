"""What a PostgreSQL URL says, and what it may say."""

from typing import Any

import psycopg
from psycopg import conninfo

from stampman.helpers.exceptions import ConfigError

# What else would undo what Stampman sets is not taken from a URL.
OPTIONS = frozenset({
    'user', 'password', 'host', 'hostaddr', 'port', 'dbname', 'sslmode',
    'sslrootcert', 'sslcert', 'sslkey', 'sslcrl', 'sslsni',
    'sslnegotiation', 'ssl_min_protocol_version', 'channel_binding',
    'require_auth', 'gssencmode', 'target_session_attrs',
    'load_balance_hosts', 'passfile', 'service'})


def parameters(url: str) -> dict[str, Any]:
    """Return libpq's parameters from a URL.

    Raises ConfigError where it cannot be read, names no database or sets
    what is not its to set; the error shows nothing of the password.
    """
    try:
        found = conninfo.conninfo_to_dict(
            f'postgresql:{url.partition(":")[2]}')
    except psycopg.Error:       # its text may hold the password
        raise _wrong('cannot be read: it must be postgres://user:password@'
                     'host:port/database, with other characters than '
                     'letters and digits in the password as %XX') from None
    if unknown := found.keys() - OPTIONS:
        raise _wrong(f'cannot set {", ".join(sorted(unknown))}')
    if not (found.get('dbname') or found.get('service')):
        raise _wrong('must name a database: '
                     'postgres://user:password@host:port/database')
    return found


def _wrong(told):
    return ConfigError(errors=[('DATABASE_URL', told)])
