"""`python -m bench`: print a table of ratios; `make bench` runs it."""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from bench import machine, rounds, stores
from bench.processes import ROOT, Provider, end_all_at_exit, stop_all
from bench.scenarios import LONG, SCENARIOS, Bench


def parsed(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='make bench ARGS=', description='Print a table of ratios.')
    parser.add_argument(
        '--only', metavar='NAMES', default=','.join(
            name for name in SCENARIOS if name not in LONG),
        help=f'of these, with commas between: {", ".join(SCENARIOS)}')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--seconds', type=float, default=3.0,
                        help='that each measurement lasts')
    parser.add_argument('--backlog', type=int, default=2000,
                        help='messages for the worker')
    parser.add_argument('--sends', type=int, default=100_000,
                        help='after which memory is looked at')
    parser.add_argument('--stored', type=int, default=0, metavar='MESSAGES',
                        help='measure a store with so many beside an empty')
    parser.add_argument('--size', type=int, default=0,
                        help='of the text of those, in bytes')
    parser.add_argument('--no-postgres', action='store_true',
                        help='measure SQLite alone')
    parser.add_argument('--folder', type=Path, default=ROOT / 'build',
                        help='where to put stores: on the disk that counts')
    asked = parser.parse_args(words)
    asked.only = asked.only.split(',')
    if unknown := set(asked.only) - SCENARIOS.keys():
        parser.error(f'there is no scenario {", ".join(unknown)}')
    return asked


def filled(folder: Path, messages: int, size: int) -> stores.Store:
    """Make a store of so many messages."""
    store = stores.sqlite(folder / 'filled', f'SQLite, {messages:,} stored')
    with Provider(folder) as provider:
        store.migrate(provider)
    began = time.monotonic()
    store.fill(messages, size)
    print(f'- {messages:,} messages were stored in '
          f'{time.monotonic() - began:.0f} s', flush=True)
    return store


def main(words: Sequence[str]) -> int:
    asked = parsed(words)
    end_all_at_exit()
    asked.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix='bench-', dir=asked.folder))
    try:
        with nullcontext() if asked.no_postgres else (
                stores.postgres_server()) as postgres:
            print_all(asked, folder, postgres)
    except KeyboardInterrupt:
        return 130
    finally:
        stop_all()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def print_all(asked, folder, postgres):
    places = [folder, postgres.place] if postgres else [folder]
    for line in machine.lines(postgres.version if postgres else ''):
        print(line, flush=True)
    for place in places:
        print(machine.disk_line(place), flush=True)
    bench = Bench(
        folder, asked.rounds, asked.seconds, asked.backlog, asked.sends,
        filled(folder, asked.stored, asked.size) if asked.stored else None,
        postgres)
    print(f'- {asked.rounds} rounds of {asked.seconds:g} s\n\n'
          f'{rounds.heading()}', flush=True)
    for name in asked.only:
        for row in SCENARIOS[name](bench):
            print(rounds.line(row), flush=True)
    print()
    for place in places:
        print(machine.disk_line(place), flush=True)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
