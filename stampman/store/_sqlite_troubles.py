"""What befalls an SQLite file, in words for people; and the driver."""

from pathlib import Path

try:
    from pysqlite3 import dbapi2 as driver
except ImportError:
    import sqlite3 as driver

RESTORE = (
    'Nothing was changed. Stop all Stampman processes, keep a copy of '
    'it and of the files beside it, and put a backup in its place')
# What a person is told, by the primary result code.
_TROUBLES = {
    'BUSY': 'is locked by another process',
    'LOCKED': 'is locked by another process',
    'PROTOCOL': 'is locked by another process',
    'FULL': 'cannot grow: the disk is full',
    'IOERR': 'cannot be read or written: the disk is full or has failed',
    'READONLY': 'is read-only: this process must be able to write to it and '
                'to its directory',
    'PERM': 'may not be opened by this process',
    'CANTOPEN': 'cannot be opened: if there is none yet, run "stampman '
                'migrate"; else this process must be able to write to it '
                'and to its directory',
    'NOTADB': f'is not an SQLite database, or is damaged. {RESTORE}.',
    'CORRUPT': f'is damaged. {RESTORE}, or recover it with "sqlite3" and '
               'its command ".recover".',
    'NOMEM': 'cannot be read: there is no memory left',
}
# After these the file may be replaced, by a backup for instance.
OPEN_ANEW = ('IOERR', 'READONLY', 'CANTOPEN', 'NOTADB', 'CORRUPT')
_OLD_SCHEMA = ('no such table', 'no such column', 'has no column')


def told(code: str, path: Path) -> str:
    """Return what a person is told of a primary result code, or ''."""
    if code == 'SCHEMA':
        return 'the schema is not this program\'s: run "stampman migrate"'
    return f'the database file {path.name} {_TROUBLES[code]}' \
        if code in _TROUBLES else ''


def is_full(error: Exception) -> bool:
    """Whether the file may not grow, but is what it was: it is read on."""
    return errorname(error) in (
        'SQLITE_IOERR_WRITE', 'SQLITE_IOERR_FSYNC', 'SQLITE_IOERR_TRUNCATE')


def errorname(error: Exception) -> str:
    """Return SQLite's result code, the extended one if the driver has it."""
    return getattr(getattr(error, 'orig', error), 'sqlite_errorname', '')


def primary_code(error: Exception) -> str:
    """Return SQLite's primary result code as a word, or '' for a bug."""
    told = getattr(error, 'orig', error)
    name = errorname(error)
    if name == 'SQLITE_ERROR' and any(
            words in str(told) for words in _OLD_SCHEMA):
        return 'SCHEMA'
    return '_'.join(name.split('_')[1:2])
