"""What befalls PostgreSQL and the way to it, in words for people."""

import psycopg
from sqlalchemy import exc

from stampman.store._postgres_url import OPTIONS

NO_MORE = 'the connection to the database is lost'
# By the SQLSTATE, or the start of it; the longer one is looked up first.
_TROUBLES = {
    '08': NO_MORE,
    '25006': 'the database is read-only: a standby, or one that is over '
             'the limits of its plan',
    '25P03': 'a transaction waited too long for this process',
    '25P04': 'the database is busy: a transaction took too long',
    '28': 'the database refuses the user or the password: correct '
          'DATABASE_URL',
    '3D000': 'there is no such database: make it, or correct DATABASE_URL',
    '3F000': 'the schema is not this program\'s: run "stampman migrate"',
    '40001': 'the database is busy: too many change the same at once',
    '40P01': 'the database is busy: too many change the same at once',
    '42501': 'the user of DATABASE_URL may not do that in the database: it '
             'must own the tables',
    '42703': 'the schema is not this program\'s: run "stampman migrate"',
    '42P01': 'the schema is not this program\'s: run "stampman migrate"',
    '53': 'the database has no resources left',
    '53100': 'the database cannot grow: its disk is full',
    '53200': 'the database has no memory left',
    '53300': 'the database takes no more connections: run fewer processes, '
             'or take a larger plan',
    '55P03': 'the database is busy: something is locked for too long',
    '57014': 'the database is busy: a statement took too long',
    '57P': 'the database server is stopping or starting',
    '58': 'the database cannot read or write its files: its disk has failed '
          'or is full',
    'XX000': 'the database server has an error of its own: its log says more',
    'XX001': 'the database is damaged: restore a backup',
    'XX002': 'the database is damaged: restore a backup or rebuild its '
             'indexes'}
# A refused connection has no SQLSTATE: libpq has only the server's words.
_REFUSALS = {
    'too many clients': '53300', 'too many connections': '53300',
    'connection slots are reserved': '53300',
    'password authentication failed': '28', 'no password supplied': '28',
    'no pg_hba.conf entry': '28', 'role "': '28',
    'database "': '3D000', 'is starting up': '57P',
    'is shutting down': '57P', 'in recovery mode': '57P',
    'not yet accepting connections': '57P'}
AWAY = 'the database server cannot be reached'
_UNREACHED = {
    'Connection refused': 'nothing listens there',
    'timeout expired': 'it does not answer',
    'timed out': 'it does not answer',
    'could not translate host name': 'its name is not known',
    'failed to resolve host': 'its name is not known',
    'Name or service not known': 'its name is not known',
    'No such file or directory': 'nothing listens there',
    'standby mode': 'there is none of the kind that DATABASE_URL asks for',
    'session is ': 'there is none of the kind that DATABASE_URL asks for',
    'does not match host name': 'its certificate is for another name',
    'SSL': 'TLS could not be set up'}
# What libpq says before it tries.
_NOT_VALID = ('connection is bad: invalid ', 'connection is bad: definition ')
AGAIN = ('40001', '40P01')      # undone, and may succeed at the next try
# After these another server may be the right one to ask.
ELSEWHERE = ('25006',)


def state(error: BaseException) -> str:
    """Return the SQLSTATE of an error, or ''."""
    told = getattr(error, 'orig', error)
    return getattr(told, 'sqlstate', None) or ''


def is_lost(error: BaseException) -> bool:
    """Whether the connection is no more, and so its transaction."""
    told = getattr(error, 'orig', error)
    return getattr(error, 'connection_invalidated', False) \
        or isinstance(told, psycopg.OperationalError) and (
            not state(error) or state(error).startswith(('08', '57P')))


def told(error: exc.DBAPIError | psycopg.Error) -> str:
    """Return what a person is told, or '' for a bug."""
    code = state(error)
    for start in (code, code[:3], code[:2]):
        if start in _TROUBLES:
            return _TROUBLES[start]
    if code or not is_lost(error):
        return ''
    return _of_words(str(getattr(error, 'orig', error)))


def _of_words(words):
    if words.startswith(_NOT_VALID):
        named = [one for one in OPTIONS if one in words]
        return 'DATABASE_URL cannot be used: correct its ' \
            f'{max(named, key=len, default="options")}'
    if 'FATAL' in words:
        for part, code in _REFUSALS.items():
            if part in words:
                return _TROUBLES[code]
    for part, why in _UNREACHED.items():
        if part in words:
            return f'{AWAY}: {why}'
    return NO_MORE
