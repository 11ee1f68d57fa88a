"""What a COMMIT that failed has left behind: surely nothing, or nobody knows.

A full disk, and a lock that somebody else has, undo it. An error of the disk
comes from a write, before it can have happened, or from what is done when all
is written; not every driver tells which.

In WAL the last frame of a transaction commits it, and is synced then. Where
that fails SQLite goes on without it, and writes over it next; but whoever
opens the file after a crash finds it whole. So the log is looked into. In a
rollback journal it has happened when the journal is gone: what fails later is
told by name, by the drivers of the libraries that are used with one.
"""

import struct
from pathlib import Path

from stampman.store._sqlite_troubles import driver, errorname, primary_code

_DURING = ('IOERR', 'NOMEM')
_AFTER_THE_JOURNAL = (
    'SQLITE_IOERR_DIR_FSYNC', 'SQLITE_IOERR_DELETE', 'SQLITE_IOERR_UNLOCK',
    'SQLITE_IOERR_RDLOCK')
# https://sqlite.org/fileformat2.html#the_write_ahead_log
_HEAD = struct.Struct('>IIII8sII')      # magic, …, page size, …, salts, sums
_FRAME = struct.Struct('>II8sII')       # page, pages if it commits, …
_BIG_ENDIAN = 1         # a bit of the magic number


class Unanswered(Exception):
    """A COMMIT failed, and may have happened; the cause says how."""


def may_have_happened(connection: driver.Connection,
                      error: driver.Error) -> bool:
    """Say whether a COMMIT of `connection` that failed by `error`, which is
    its last, may be found to have happened, now or later."""
    if primary_code(error) not in _DURING:
        return False
    if errorname(error) in _AFTER_THE_JOURNAL:
        return True
    if errorname(error) == 'SQLITE_IOERR_WRITE':
        return False
    try:
        # Nothing is written: in WAL the length of the log that is known is
        # told, and -1 in another mode.
        _, known, _ = connection.execute(
            'PRAGMA wal_checkpoint(NOOP)').fetchone()
        if known < 0:
            return False
        _, _, path = connection.execute('PRAGMA database_list').fetchone()
        return commits_beyond(Path(f'{path}-wal'), known)
    except (driver.Error, OSError):
        return True


def commits_beyond(log: Path, known: int) -> bool:
    """Say whether a write-ahead log holds a whole transaction behind so many
    frames: who recovers it would find that.

    No other file of a database may be opened: to close one gives up all the
    locks that this process has on it.
    """
    with open(log, 'rb') as file:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return False
        magic, _, size, _, salts, *sums = _HEAD.unpack(head)
        if known:
            file.seek((known - 1) * (_FRAME.size + size), 1)
            *_, first, second = _FRAME.unpack(file.read(_FRAME.size))
            file.seek(size, 1)
            sums = [first, second]
        while frame := file.read(_FRAME.size + size):
            if len(frame) < _FRAME.size + size:
                return False
            page, commits, own_salts, *own_sums = _FRAME.unpack_from(frame)
            sums = _summed(sums, frame[:8] + frame[_FRAME.size:],
                           '>' if magic & _BIG_ENDIAN else '<')
            if not page or own_salts != salts or own_sums != sums:
                return False
            if commits:
                return True
    return False


def _summed(sums, data, order):
    """Return SQLite's checksum of a log, with `data` added to it."""
    first, second = sums
    words = iter(struct.unpack(f'{order}{len(data) // 4}I', data))
    for word in words:
        first = (first + word + second) & 0xffffffff
        second = (second + next(words) + first) & 0xffffffff
    return [first, second]
