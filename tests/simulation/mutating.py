"""Testing the tests: each mutant of the program must be found.

A mutant is a copy of the package with some text changed, in a process of its
own.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import stampman

from simulation.mutants import MUTANTS, Mutant

PACKAGE = Path(stampman.__file__).parent
TESTS = Path(__file__).parent.parent
LONGEST = 1200      # seconds for one mutant


class Found(NamedTuple):
    """By what a mutant was found; `seed` is None where it was not."""

    mutant: Mutant
    seed: int | None
    policy: str
    invariant: str
    detail: str


def changed(mutant: Mutant) -> dict[str, str]:
    """Return the text of each file of the package that a mutant changes.

    Raises ValueError where the old text does not stand there exactly once.
    """
    texts = {}
    for path, old, new in mutant.changes:
        text = texts.get(path) or (PACKAGE / path).read_text('utf-8')
        if text.count(old) != 1:
            raise ValueError(f'"{mutant.name}": the old text stands '
                             f'{text.count(old)} times in {path}')
        texts[path] = text.replace(old, new)
    return texts


def mutate(folder: Path, mutant: Mutant) -> None:
    """Put a copy of the package, changed, into a folder."""
    shutil.copytree(PACKAGE, folder / 'stampman',
                    ignore=shutil.ignore_patterns('__pycache__'))
    for path, text in changed(mutant).items():
        (folder / 'stampman' / path).write_text(text, 'utf-8')


def hunt(mutant: Mutant) -> Found:
    """Run seeds against a mutant until one finds it, in what time nobody
    else wants."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mutate(folder, mutant)
        ran = subprocess.run(
            ['nice', '-n', '19', sys.executable, '-m', 'simulation', '--quick',
             '--seeds', str(mutant.seeds), '--store', mutant.store],
            cwd=TESTS, capture_output=True, text=True, timeout=LONGEST,
            env={**os.environ, 'PYTHONPATH': str(folder)})
        if ran.returncode == 0:
            return Found(mutant, None, '', '', '')
        where, *found = ran.stdout.splitlines()[-1:][0].split('\t') \
            if ran.stdout else ('',)
        if not where.startswith(str(folder)) or len(found) != 4:
            raise RuntimeError(f'"{mutant.name}" did not run: '
                               f'{ran.stdout}{ran.stderr}')
        return Found(mutant, int(found[0]), *found[1:])


def main(only: list[str] | None = None) -> int:
    """Print a table of all mutants, or of those with such words in their
    names; return 1 where one is not found."""
    survived = 0
    for mutant in MUTANTS:
        if only and not any(words in mutant.name for words in only):
            continue
        began = time.monotonic()
        found = hunt(mutant)
        survived += found.seed is None
        by = f'seed {found.seed} {found.policy}: {found.invariant}' \
            if found.seed is not None else f'NOT FOUND in {mutant.seeds}'
        print(f'{mutant.name:<58} {by:<32} '
              f'{time.monotonic() - began:6.1f} s', flush=True)
    print(f'{survived} not found' if survived else 'each was found')
    return int(bool(survived))
