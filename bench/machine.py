"""What the figures depend on: the machine, its disk, and the versions."""

import os
import platform
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.load import percentile
from stampman.store._sqlite import driver, journal_mode_for

PACKAGES = ('Flask', 'Flask-API', 'Werkzeug', 'gunicorn', 'requests',
            'urllib3', 'SQLAlchemy', 'psycopg', 'django-anymail', 'Django')
SYNCS = 200


def syncs(folder: Path) -> list[float]:
    """Return how long it takes to append 4 KB and sync them, in sorted
    milliseconds."""
    path, took = folder / 'syncs', []
    with open(path, 'wb', buffering=0) as file:
        for _ in range(SYNCS):
            began = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - began) * 1000)
    path.unlink()
    return sorted(took)


def disk_line(folder: Path) -> str:
    """Return what a sync costs now, as a line of Markdown."""
    took = syncs(folder)
    return (f'- 4 KB and fdatasync: p50 {percentile(took, 0.5):.2f} ms, '
            f'p99 {percentile(took, 0.99):.2f} ms ({_file_system(folder)}, '
            f'{time.strftime("%H:%M")})')


def _file_system(folder):
    """Return the type of the file system that a folder lies on."""
    best = ('', '')
    for line in Path('/proc/mounts').read_text().splitlines():
        _, place, kind, *_ = line.split()
        if folder.resolve().is_relative_to(place):
            best = max(best, (place, kind), key=lambda one: len(one[0]))
    return best[1]


def _processor():
    for line in Path('/proc/cpuinfo').read_text().splitlines():
        name, _, told = line.partition(':')
        if name.strip() in ('model name', 'Model'):
            return told.strip()
    return platform.machine()


def lines(postgres: str = '') -> Iterator[str]:
    """Give lines of Markdown about the machine and the versions.

    `postgres` is the version of the server, where one is measured.
    """
    cores, (load, *_) = len(os.sched_getaffinity(0)), os.getloadavg()
    yield (f'- {time.strftime("%Y-%m-%d %H:%M")}; {cores} cores, '
           f'{_processor()}; {platform.system()} {platform.release()}; '
           f'load average {load:.1f} at the start')
    found = [f'Python {platform.python_version()}',
             f'SQLite {driver.sqlite_version} '
             f'({journal_mode_for(driver.sqlite_version_info)})']
    for name in PACKAGES:
        try:
            found.append(f'{name} {version(name)}')
        except PackageNotFoundError:
            continue
    if postgres:
        found.append(f'PostgreSQL {postgres}')
    yield f'- {", ".join(found)}'
