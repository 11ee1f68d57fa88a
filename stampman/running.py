"""Files beside a config that tell which processes serve and work by it.

The number in such a file proves nothing, its lock does: a process that is
killed leaves the one, never the other.
"""

import fcntl
import glob
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

_held = []      # open and locked for as long as this process lives


def of_server(config: Path) -> Path:
    """Return where a server keeps its process id."""
    return config.with_suffix('.pid')


def hold(path: Path) -> bool:
    """Write our process id to `path` and lock it, for good; False where
    another process holds it. Raises OSError."""
    file = open(path, 'a')
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return False
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    _held.append(file)
    return True


def hold_of_worker(config: Path) -> None:
    """Do the same with the first file of a worker that nobody holds."""
    for number in itertools.count(1):
        if hold(config.with_suffix(f'.worker-{number}.pid')):
            return


def holder(path: Path) -> int | None:
    """Return the id of the process that holds `path`."""
    try:
        with open(path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None
            except BlockingIOError:
                return int(file.read())
    except (OSError, ValueError):
        return None


def holders_of_workers(config: Path) -> Iterator[int]:
    """Give the ids of the workers of a config, on this machine."""
    name = f'{glob.escape(config.stem)}.worker-*.pid'
    for path in sorted(config.parent.glob(name)):
        if pid := holder(path):
            yield pid
