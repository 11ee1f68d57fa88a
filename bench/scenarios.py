"""What is measured: each scenario gives rows of the table.

A row's ratio is formed within each round, in which all its sides were
measured one after another; it is shown as the median of the rounds, and how
far they lie apart.
"""

import http.client
import itertools
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench import mail, stores
from bench.processes import (
    Measured, Peer, Process, Provider, Server, measure)
from bench.rounds import Row, Spread, against, interleaved, ratios
from bench.stores import Store

CLIENTS = 64
SLOW = 200              # clients, and milliseconds of the provider
CEILING = SLOW / (SLOW / 1000)      # sends a second that these allow
BATCH = 100             # messages
BATCH_CLIENTS = 8
LOAD = 0.3              # of what a Stampman can do, in the open loop
EARLY, LATE = 0.1, 0.9  # of a backlog: what is between them is measured
ASYNC = {'Prefer': 'respond-async'}


class Bench(NamedTuple):
    """What the scenarios are told; `filled` is a store with many messages,
    `postgres` makes a store in a new database."""

    folder: Path
    rounds: int = 5
    seconds: float = 3.0        # of each measurement
    backlog: int = 2000         # messages
    sends: int = 20_000         # for the memory
    filled: Store | None = None
    postgres: Callable[[Path], Store] | None = None

    def empty_stores(self, provider: Provider) -> list[Store]:
        """Return new stores, one for each backend."""
        found = [stores.sqlite(self._new_folder('sqlite'))]
        if self.postgres:
            found.append(self.postgres(self._new_folder('postgres')))
        return [store.migrate(provider) for store in found]

    def all_stores(self, provider: Provider) -> list[Store]:
        """Return those, and the one that is filled."""
        return self.empty_stores(provider) + (
            [self.filled] if self.filled else [])

    def _new_folder(self, name):
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    def of_filled(self, scenario: str, found: dict[str, list[Measured]],
                  empty: str = 'SQLite') -> Iterator[Row]:
        """Give the row of what the many messages cost, if there are any."""
        if self.filled:
            yield against(scenario, f'{self.filled.name} ÷ {empty}',
                          '≥ 0.95', found[self.filled.name], found[empty])


def post(server: Server, body: object, path: str, **headers: str) -> dict:
    """Send one message, or batch, and return the answer; raises where it is
    not taken: then nothing is worth measuring."""
    connection = http.client.HTTPConnection(
        '127.0.0.1', server.port, timeout=30)
    connection.request('POST', path, json.dumps(body), {
        'Authorization': f'Bearer {mail.POOL_KEY}',
        'Content-Type': 'application/json', **headers})
    answer = connection.getresponse()
    told = json.loads(answer.read())
    connection.close()
    if answer.status not in (200, 202):
        raise RuntimeError(f'{answer.status}: {told}')
    return told


def sends(bench: Bench) -> Iterator[Row]:
    """Durable synchronous sends: stored, delivered, recorded, answered."""
    with ExitStack() as stack:
        provider = stack.enter_context(Provider(bench.folder))
        bare = stack.enter_context(
            Peer('bare:app', bench.folder, provider.url))
        asked = mail.request(bare.url, mail.SENDGRID)
        variants = {'BARE': lambda: measure(
            bare, asked, clients=CLIENTS, seconds=bench.seconds)}
        for store in bench.all_stores(provider):
            variants[store.name] = _sending(bench, stack, store, provider)
        found = interleaved(variants, bench.rounds)
    for name, target in (('SQLite', '≥ 0.75'), ('PostgreSQL', '≥ 0.6')):
        if name in found:
            yield against('sends', f'{name} ÷ BARE', target, found[name],
                          found['BARE'], _latencies(found[name]))
    yield from bench.of_filled('sends', found)


def _sending(bench, stack, store, provider):
    server = stack.enter_context(store.serve(provider))
    if post(server, mail.EMAIL, server.path)['status'] != 'accepted':
        raise RuntimeError('a message was not accepted')
    request = mail.request(f'{server.url}{server.path}', mail.EMAIL)
    return lambda: measure(
        server, request, clients=CLIENTS, seconds=bench.seconds)


def _latencies(found):
    """Return the time that an answer took under this load."""
    return ' / '.join(
        f'{name} {median(getattr(one.load, name) for one in found):.0f}'
        for name in ('p50', 'p99')) + ' ms'


def accepted(bench: Bench) -> Iterator[Row]:
    """Messages that are stored for later, beside an app that echoes them.

    Each Stampman is started anew for each round, and what it left to be
    sent is forgotten after it.
    """
    with ExitStack() as stack:
        provider = stack.enter_context(Provider(bench.folder))
        echo = stack.enter_context(Peer('echo:app', bench.folder))
        asked = mail.request(echo.url, mail.EMAIL)
        variants = {'echo': lambda: measure(
            echo, asked, clients=CLIENTS, seconds=bench.seconds)}
        for store in bench.all_stores(provider):
            for worker in ('off', 'embedded'):
                variants[store.name, worker] = _taking_in(
                    bench, store, provider, worker)
        found = interleaved(variants, bench.rounds)
    for name, worker in [*variants][1:]:
        if bench.filled and name == bench.filled.name:
            continue
        yield against(
            'accepted', f'{name} ÷ echo', '≥ 0.4', found[name, worker],
            found['echo'], f'worker: {worker}')
    if bench.filled:
        for worker in ('off', 'embedded'):
            yield against(
                'accepted', f'{bench.filled.name} ÷ SQLite', '≥ 0.95',
                found[bench.filled.name, worker], found['SQLite', worker],
                f'worker: {worker}')


def _taking_in(bench, store, provider, worker):
    def once():
        with store.serve(provider, worker) as server:
            request = mail.request(
                f'{server.url}{server.path}', mail.EMAIL, **ASYNC)
            found = measure(server, request, '202', clients=CLIENTS,
                            seconds=bench.seconds)
        store.forget_waiting()
        return found
    return once


def batch(bench: Bench) -> Iterator[Row]:
    """Messages stored in batches, beside those stored singly."""
    with ExitStack() as stack:
        provider = stack.enter_context(Provider(bench.folder))
        variants = {}
        for store in bench.all_stores(provider):
            server = stack.enter_context(store.serve(provider, 'off'))
            stack.callback(store.forget_waiting)
            variants[store.name, 'single'] = _singly(bench, server)
            variants[store.name, 'batch'] = _in_batches(bench, server)
        found = interleaved(variants, bench.rounds)
    for name in dict.fromkeys(name for name, _ in variants):
        yield against(
            'batch', f'{name}, {BATCH} at once ÷ singly', '≥ 5',
            found[name, 'batch'], found[name, 'single'],
            f'{BATCH_CLIENTS} clients ÷ {CLIENTS}; worker: off')
    yield from bench.of_filled('batch', {
        name: each for (name, how), each in found.items() if how == 'batch'})


def _singly(bench, server):
    request = mail.request(f'{server.url}{server.path}', mail.EMAIL, **ASYNC)
    return lambda: measure(server, request, '202', clients=CLIENTS,
                           seconds=bench.seconds)


def _in_batches(bench, server):
    path, body = f'{server.path}/batch', {'emails': [mail.EMAIL] * BATCH}
    if post(server, body, path)['stored'] != BATCH:
        raise RuntimeError('a batch was not taken whole')
    request = mail.request(f'{server.url}{path}', body)
    return lambda: measure(server, request, messages=BATCH,
                           clients=BATCH_CLIENTS, seconds=bench.seconds)


def latency(bench: Bench) -> Iterator[Row]:
    """What a send takes longer than a direct call, at a load that comes
    when it likes. Each round lasts three times as long as others."""
    seeds = itertools.count(1)

    def at_times(server, request, good, rate):
        return lambda: measure(server, request, good, rate=rate, seconds=3
                               * bench.seconds, seed=next(seeds))

    with ExitStack() as stack:
        provider = stack.enter_context(Provider(bench.folder))
        bare = stack.enter_context(
            Peer('bare:app', bench.folder, provider.url))
        for store in bench.all_stores(provider):
            server = stack.enter_context(store.serve(provider))
            request = mail.request(f'{server.url}{server.path}', mail.EMAIL)
            most = measure(server, request, clients=CLIENTS,
                           seconds=bench.seconds).rate
            direct = mail.request(
                f'{provider.url}/v3/mail/send', mail.SENDGRID)
            found = interleaved({
                'direct': at_times(provider, direct, '202', LOAD * most),
                'BARE': at_times(
                    bare, mail.request(bare.url, mail.SENDGRID), '200',
                    LOAD * most),
                store.name: at_times(server, request, '200', LOAD * most)},
                bench.rounds)
            yield from _added(store.name, found, LOAD * most)


def _added(store, found, rate):
    direct = found['direct']
    for name, what, target in (
            ('BARE', 'p50', ''), (store, 'p50', '≤ 4.5 ms'),
            ('BARE', 'p99', ''), (store, 'p99', '≤ 13 ms')):
        sides = [[getattr(one.load, what) for one in side]
                 for side in (found[name], direct)]
        yield Row(
            'latency', f'{name}, added {what}', target,
            Spread.of(it - other for it, other in zip(*sides)).told(
                1, ' ms'),
            ' − '.join(Spread.of(side).told(1) for side in sides) + ' ms',
            f'{median(one.each for one in found[name]):.2f} ms',
            f'{rate:.0f} /s, {LOAD:.0%} of what {store} can do')


def slow(bench: Bench) -> Iterator[Row]:
    """Many clients, and a provider that takes its time. Each server is
    started anew for each round."""
    with Provider(bench.folder, delay=SLOW) as provider:
        def bare():
            with Peer('bare:app', bench.folder, provider.url) as server:
                return measure(
                    server, mail.request(server.url, mail.SENDGRID),
                    clients=SLOW, seconds=bench.seconds, warm_up=2)

        def sending(store):
            with store.serve(provider) as server:
                found = measure(
                    server, mail.request(
                        f'{server.url}{server.path}', mail.EMAIL),
                    clients=SLOW, seconds=bench.seconds, warm_up=2)
            store.forget_waiting()
            return found

        found = interleaved({'BARE': bare, **{
            store.name: lambda store=store: sending(store)
            for store in bench.all_stores(provider)}}, bench.rounds)
    for name, each in found.items():
        yield against('slow', f'{name} ÷ {CEILING:.0f} /s',
                      '' if name == 'BARE' else '≥ 0.75', each, each,
                      _latencies(each))._replace(
            measured=Spread.of(one.rate / CEILING for one in each).told(),
            seen=f'{Spread.of(one.rate for one in each).told(0)} /s',
            each=f'{median(one.each for one in each):.2f} ms')
    yield from bench.of_filled('slow', found)


def worker(bench: Bench) -> Iterator[Row]:
    """Messages for a second of CPU: `stampman worker` with a backlog, beside
    Anymail in a plain loop. PostgreSQL's own CPU is not counted."""
    with Provider(bench.folder) as provider:
        def anymail():
            with Process(
                    [sys.executable, '-m', 'bench.peers.anymail',
                     provider.url, str(bench.backlog)], bench.folder,
                    'anymail', answers=True) as loop:
                told = loop.popen.stdout.readline()
                if not told:
                    raise RuntimeError(loop.told())
                return bench.backlog / float(told)

        found = interleaved({'Anymail': anymail, **{
            store.name: lambda store=store: _worked_off(
                bench, store, provider)
            for store in bench.all_stores(provider)}}, bench.rounds)
    for name in [*found][1:]:
        of_filled = bench.filled is not None and name == bench.filled.name
        other = 'SQLite' if of_filled else 'Anymail'
        yield Row(
            'worker', f'{name} ÷ {other}',
            '≥ 0.95' if of_filled else '≥ 0.8',
            ratios(found[name], found[other]).told(),
            ' ÷ '.join(Spread.of(found[one]).told(0)
                       for one in (name, other)) + ' per CPU second',
            ' ÷ '.join(f'{1000 / median(found[one]):.2f}'
                       for one in (name, other)) + ' ms',
            f'{bench.backlog} messages')


def _worked_off(bench, store, provider):
    """Return how many messages a worker sends for a second of CPU."""
    store.queue(bench.backlog)
    start = provider.taken()
    with Process([sys.executable, '-m', 'stampman', 'worker'], store.folder,
                 'worker', store.environ(provider)) as process:
        provider.until_taken(start + int(bench.backlog * EARLY))
        before, first = process.cpu(), provider.taken()
        provider.until_taken(start + int(bench.backlog * LATE))
        after, last = process.cpu(), provider.taken()
        provider.until_taken(start + bench.backlog)
    return (last - first) / (after - before)


def memory(bench: Bench) -> Iterator[Row]:
    """What one web process needs more after many sends than after 1 000."""
    with Provider(bench.folder) as provider:
        for store in bench.empty_stores(provider):
            with store.serve(provider, processes=1) as server:
                request = mail.request(
                    f'{server.url}{server.path}', mail.EMAIL)
                start, seen = provider.taken(), []
                for count in (1000, bench.sends):
                    while (left := count - provider.taken() + start) > 0:
                        measure(server, request, clients=CLIENTS,
                                seconds=0.5 if left < 2000 else
                                bench.seconds, warm_up=0)
                    seen.append(server.memory()[0])
            yield Row(
                'memory', f'{store.name}: 1 000 to {bench.sends:,} sends',
                '≤ 5 MB',
                f'{seen[1].rss - seen[0].rss:+.1f} MB',
                f'RSS {seen[0].rss:.1f} → {seen[1].rss:.1f} MB',
                notes=f'PSS {seen[0].pss:.1f} → {seen[1].pss:.1f} MB')


SCENARIOS = {one.__name__: one for one in (
    sends, accepted, batch, latency, slow, worker, memory)}
LONG = {'memory'}       # not by default
