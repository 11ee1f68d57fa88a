"""What each call and each statement of a store costs, as it fills.

`python -m bench.statements --stored 1000,100000,1000000` prints two tables: of
what the store offers, and of the SQL behind it; microseconds in the first
store, and how many times that in the others. Messages go their whole way in
each store in turn, so that whatever else the machine does befalls all. The
first has some, so that a page is as full as elsewhere.
"""

import argparse
import itertools
import logging
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median

from sqlalchemy import Engine, Select, UpdateBase, event

from bench import fill, mail, rounds, stores
from bench.processes import ROOT, end_all_at_exit
from stampman.helpers.delivery import (
    Attempt, IdempotencyKey, Kind, Message, Outcome, Recipient, State)
from stampman.helpers.mail import submission
from stampman.store import AbstractStore, open_store
from stampman.store import _statements as sql
from stampman.store._hot import Hot
from stampman.store.base import Filter, HealthRow

DAY = 86400.0
LEASE = 60.0
NAMES = {
    **{one: name for name, one in vars(sql).items()
       if name[0] != '_' and isinstance(one, Select | UpdateBase | Hot)},
    **{page: f'PAGES[state={state}, recipient={recipient}]'
       for (state, recipient), page in sql.PAGES.items()}}
EMAIL = submission({**mail.EMAIL, 'attachments': [
    {'filename': 'a.txt', 'content': 'QUJD'}]}).email()
RESULTS = {kind: Outcome(kind=kind, http_status=code)
           for kind, code in ((Kind.accepted, 202), (Kind.deferred, 503),
                              (Kind.uncertain, 504))}


class Times:
    """Seconds by name, of one store."""

    def __init__(self):
        self.calls = defaultdict(list)
        self.statements = defaultdict(list)


class Walk:
    """Takes messages their whole way in a store, and notes what it took."""

    def __init__(self, store: AbstractStore, times: Times):
        self._store = store
        self._times = times
        self._numbers = itertools.count()

    def __getattr__(self, name):
        """Return a method of the store that notes how long it takes."""
        method = getattr(self._store, name)

        def call(*given, **options):
            began = time.perf_counter()
            found = method(*given, **options)
            self._times.calls[name].append(time.perf_counter() - began)
            return found
        return call

    def message(self) -> None:
        """Take one that is put off, doubted, and then accepted; and one
        that a person withdraws, sets going again and erases.
        And one whose process dies."""
        now = time.time()
        one = self._stored(now)
        self._looked_at(one, now)
        for kind, state in ((Kind.deferred, State.deferred),
                            (Kind.uncertain, State.uncertain),
                            (Kind.accepted, None)):
            self._tried(one, now, kind, state)
        self.email(one.id)
        other = self._stored(now)
        for expected, state, more in (
                (State.queued, State.cancelled, {}),
                (State.cancelled, State.queued, {
                    'restart': True, 'next_attempt_at': now + DAY}),
                (State.queued, State.cancelled, {})):
            self.change(mail.DOMAIN, other.id, [expected], state, **more)
        self.erase(mail.DOMAIN, other.id, now)
        self._crashed(now)

    def _crashed(self, now):
        """Let an attempt's process die, and a person say what became of
        the message."""
        one = self._stored(now)
        self._begun(now, now - 1)
        [(claim, _)] = self.claim_due('bench', now, now + LEASE)
        self.finish(claim, State.uncertain, round=1)
        self.change(mail.DOMAIN, one.id, [State.uncertain], State.failed,
                    resolved='not_sent')

    def _stored(self, now):
        number = next(self._numbers)
        message_id = fill.new_id(now, time.perf_counter_ns() & 2 ** 59 - 1)
        one = Message(
            id=message_id, pool=mail.DOMAIN, state=State.queued,
            created_at=now, expires_at=now + DAY, on_uncertain='failover',
            next_attempt_at=now, recipients=[Recipient(
                email=mail.RECIPIENT, kind='to', status='queued')])
        key = IdempotencyKey(f'{message_id}-{number}', 'a' * 64)
        self.add(one, EMAIL, rate=1e6, key=key)
        self.known(mail.DOMAIN, key, now)
        return one

    def _tried(self, one, now, kind, state):
        claim, begun = self._begun(now, now + LEASE)
        self.end(begun.model_copy(update={
            'ended_at': now, 'outcome': RESULTS[kind]}), one.id, claim)
        if state:
            self.finish(claim, state, round=1, next_attempt_at=now)

    def _begun(self, now, lease_until):
        [(claim, _)] = self.claim_due('bench', now, now + LEASE)
        begun = Attempt(
            id=fill.new_id(now, time.perf_counter_ns() & 2 ** 59 - 1),
            service='sendgrid', provider='sendgrid', round=0, started_at=now)
        return self.begin(claim, begun, lease_until), begun

    def _looked_at(self, one, now):
        self._store.message(mail.DOMAIN, one.id)
        for state in (None, State.accepted):
            for recipient in (None, 'someone7@example.org'):
                self.page(mail.DOMAIN, Filter(
                    state, recipient, now - 30 * DAY, now + 1, None))

    def second(self) -> None:
        """Do what is done each second, or at each look."""
        now = time.time()
        self.waiting()
        self.claim_due('bench', now - DAY, now)
        self.hasten([mail.DOMAIN], now)
        self.bring_back(now, 7200.0)
        version = self.health().get('bench', HealthRow('bench', 0, {}))
        self.put_health(HealthRow('bench', version.version + 1, {}), now)
        self.beat('bench', now)
        self.last_beat()
        self.check_writable(now)
        self.forget_keys(now)

    def prune(self) -> None:
        """Give up the oldest: ten messages, and the content of ten."""
        later = time.time() + 100 * DAY
        self.forget_bodies(later, DAY)
        self.forget_messages(later, DAY)


@contextmanager
def noted(times: Times) -> Iterator[None]:
    """Note how long each statement takes that is run meanwhile."""
    def before(connection, cursor, text, parameters, context, many):
        context.began = time.perf_counter()

    def after(connection, cursor, text, parameters, context, many):
        name = NAMES.get(context.invoked_statement)
        if name:
            times.statements[name].append(
                time.perf_counter() - context.began)

    def run(self, connection, values):      # which SQLAlchemy does not see
        began = time.perf_counter()
        found = run_hot(self, connection, values)
        times.statements[NAMES[self]].append(time.perf_counter() - began)
        return found

    event.listen(Engine, 'before_cursor_execute', before)
    event.listen(Engine, 'after_cursor_execute', after)
    run_hot, Hot.run = Hot.run, run
    try:
        yield
    finally:
        Hot.run = run_hot
        event.remove(Engine, 'before_cursor_execute', before)
        event.remove(Engine, 'after_cursor_execute', after)


def measured(url: str, messages: int, times: Times) -> None:
    """Take some messages their whole way in the store of a URL."""
    store = open_store(url)
    first = Walk(store, Times())
    first.message()             # what is prepared once, and read first
    first.second()
    walk = Walk(store, times)
    with noted(times):
        for number in range(messages):
            walk.message()
            if number % 5 == 0:
                walk.second()
        walk.prune()
    store.close()


def tables(stored: Sequence[int], of: Sequence[Times]) -> Iterator[str]:
    """Give the lines of both tables."""
    for title in ('calls', 'statements'):
        found = [getattr(times, title) for times in of]
        yield ''
        yield rounds.line([
            title, f'{stored[0]:,} stored, µs',
            *(f'{count:,} stored' for count in stored[1:])])
        yield rounds.line(['---'] * (len(stored) + 1))
        for name in sorted(found[0]):
            first, *others = [median(each[name]) for each in found]
            yield rounds.line([
                name, f'{first * 1e6:.0f}',
                *(f'× {other / first:.2f}' for other in others)])


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('--stored', default='1000,100000,1000000')
    parser.add_argument('--size', type=int, default=0)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--messages', type=int, default=40)
    parser.add_argument('--folder', type=Path, default=ROOT / 'build')
    parser.add_argument('--postgres', action='store_true',
                        help='instead of SQLite')
    asked = parser.parse_args(words)
    end_all_at_exit()
    logging.disable()       # of the attempts that are left on purpose
    asked.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix='bench-', dir=asked.folder))
    try:
        with stores.postgres_server() if asked.postgres else (
                nullcontext(stores.sqlite)) as new:
            print_all(asked, {int(count): new(folder / count).url
                              for count in asked.stored.split(',')})
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def print_all(asked, urls):
    """Fill the stores of some URLs with so many messages, and measure."""
    for count, url in urls.items():
        store = open_store(url)
        store.migrate()
        store.close()
        engine = fill.engine_for(url)
        for _ in fill.fill(engine, count, size=asked.size):
            pass
        engine.dispose()
    everything = {count: Times() for count in urls}
    rounds.interleaved({
        count: lambda count=count, url=url: measured(
            url, asked.messages, everything[count])
        for count, url in urls.items()}, asked.rounds)
    for line in tables([*urls], [*everything.values()]):
        print(line)
    first, *_ = everything.values()
    missing = {*NAMES.values()} - first.statements.keys()
    print(f'\nNot run here: {", ".join(sorted(missing))}.')


if __name__ == '__main__':
    main(sys.argv[1:])
