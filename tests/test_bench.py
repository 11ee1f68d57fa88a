"""What measures Stampman is right itself: small, but for real."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bench import fill, machine, mail, processes, rounds, statements, stores
from bench.load import Result, percentile, run, status_of
from bench.processes import Measured, Peer, Process, Provider, measure
from bench.scenarios import LONG, SCENARIOS
from stampman.helpers.delivery import State
from stampman.store import open_store
from stampman.store.base import Filter

from servers import RawServer

ROOT = Path(__file__).parent.parent
ENVIRON = {'PATH': os.environ['PATH'], 'PYTHONPATH': str(ROOT)}


@pytest.fixture
def provider(tmp_path):
    with Provider(tmp_path) as found:
        yield found


def request_to(provider):
    return mail.request(f'{provider.url}/v3/mail/send', mail.SENDGRID)


def address(provider):
    return '127.0.0.1', provider.port


# -- the load and the provider ------------------------------------------------

def test_every_request_that_was_due_is_counted_by_both_ends(provider):
    seen = run(address(provider), request_to(provider), rate=400, seconds=0.5)
    assert seen.failed == 0
    assert seen.statuses == {'202': provider.taken()}
    assert 100 < seen.statuses['202'] < 300
    assert 0 < seen.p50 <= seen.p99 <= seen.longest < 500


def test_clients_that_wait_count_what_was_answered_in_the_time(provider):
    seen = measure(provider, request_to(provider), '202', clients=4,
                   warm_up=0.1, seconds=0.3)
    [(status, count)] = seen.load.statuses.items()
    assert status == '202'
    assert 0 < count <= provider.taken()
    assert seen.rate == pytest.approx(count / 0.3)
    assert 0 < seen.load.own <= 1.1
    assert seen.cpu >= 0


def test_a_provider_takes_its_time(tmp_path):
    with Provider(tmp_path, delay=60) as provider:
        seen = run(address(provider), request_to(provider), clients=20,
                   seconds=0.4)
    assert 60 <= seen.p50 < 200
    assert 20 < seen.statuses['202'] <= 7 * 20


def test_time_counts_from_when_a_request_was_due(provider):
    """Not from when it could be sent: that would hide a stall."""
    def freeze():
        os.kill(provider.popen.pid, signal.SIGSTOP)
        time.sleep(0.3)
        os.kill(provider.popen.pid, signal.SIGCONT)

    freezing = threading.Timer(0.1, freeze)
    freezing.start()
    seen = run(address(provider), request_to(provider), rate=200, seconds=0.6)
    freezing.join()
    assert seen.longest > 250
    assert seen.p99 > 150
    assert seen.statuses['202'] == provider.taken()


def test_requests_that_get_no_answer_are_counted_apart():
    def hang_up(connection, server):
        connection.recv(1 << 16)

    with RawServer(hang_up) as server:
        seen = run(('127.0.0.1', server.port), b'POST / HTTP/1.1\r\n\r\n',
                   clients=1, seconds=0.2)
    assert seen.statuses == {}
    assert seen.failed > 0


@pytest.mark.parametrize('data, status', [
    (b'', 0), (b'HTTP/1.1 202 Accepted\r\nContent-Le', 0),
    (b'HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n', 202),
    (b'HTTP/1.1 200 OK\r\nX: y\r\ncontent-length: 3\r\nA: b\r\n\r\nab', 0),
    (b'HTTP/1.1 503 No\r\nX: y\r\ncontent-length: 3\r\n\r\nabc', 503)])
def test_an_answer_is_read_when_it_is_whole(data, status):
    assert status_of(data) == status


def test_an_answer_that_does_not_tell_its_length_is_refused():
    with pytest.raises(ValueError):
        status_of(b'HTTP/1.1 200 OK\r\n\r\nabc')


@pytest.mark.parametrize('share, value', [
    (0.0, 1), (0.5, 50), (0.99, 99), (0.991, 100), (1.0, 100)])
def test_a_percentile_is_one_of_the_values(share, value):
    assert percentile(range(1, 101), share) == value


# -- rounds and rows ----------------------------------------------------------

def measured(count, cpu=1.0, good='200', messages=1, **others):
    return Measured(Result(2.0, {'200': count, **others}, 1, 1, 2, 3, 0),
                    cpu, good, messages)


def test_rounds_are_interleaved_and_turned_over():
    order = []
    found = rounds.interleaved({
        name: lambda name=name: order.append(name) or len(order)
        for name in 'abc'}, 3)
    assert ''.join(order) == 'abccbaabc'
    assert found == {'a': [1, 6, 7], 'b': [2, 5, 8], 'c': [3, 4, 9]}


def test_a_ratio_is_formed_within_each_round():
    assert rounds.ratios([1, 20, 300], [2, 10, 100]) == (2, 0.5, 3)


def test_a_row_tells_rates_cost_and_what_was_answered_otherwise():
    row = rounds.against(
        'sends', 'a ÷ b', '≥ 0.75', [measured(100, **{'202': 7})],
        [measured(200, cpu=0.1)])
    assert row.measured == '0.50 (0.50–0.50)'
    assert row.seen == '50 (50–50) ÷ 100 (100–100) /s'
    assert row.each == '9.35 ÷ 0.50 ms'
    assert row.notes == '7 × 202, 2 × without an answer'


def test_a_batch_counts_for_its_messages():
    assert measured(10, messages=100).rate == 500
    assert measured(10, messages=100).each == pytest.approx(1.0)


def test_the_heading_names_the_machine_its_disk_and_the_versions(tmp_path):
    told = '\n'.join(machine.lines('18.1')) + machine.disk_line(tmp_path)
    for words in (r'\d cores', r'Python 3\.\d+', r'SQLite 3\.', r'Flask 3\.1',
                  r'gunicorn 25\.', r'SQLAlchemy 2\.1', r'PostgreSQL 18\.1',
                  r'fdatasync: p50 \d+\.\d\d ms'):
        assert re.search(words, told), words


# -- processes ----------------------------------------------------------------

def test_what_a_process_started_ends_with_it(tmp_path):
    with Peer('echo:app', tmp_path) as server:
        members = server.all_of_it()
        assert len(members) == 3        # the master, and two that serve
        assert server.cpu() > 0
        assert all(one.pss > 1 for one in server.memory())
        echoed = measure(
            server, mail.request(server.url, mail.EMAIL), clients=2,
            warm_up=0.0, seconds=0.2)
        assert echoed.load.statuses.keys() == {'200'}
    assert not [one for one in members if alive(one)]


def test_what_is_measured_ends_when_the_bench_is_killed(tmp_path):
    code = 'import sys, time; from pathlib import Path\n' \
        'from bench.processes import Provider\n' \
        'print(Provider(Path(sys.argv[1])).popen.pid, flush=True)\n' \
        'time.sleep(60)'
    bench = subprocess.Popen(
        [sys.executable, '-c', code, str(tmp_path)], env=ENVIRON,
        stdout=subprocess.PIPE)
    one = int(bench.stdout.readline())
    assert alive(one)
    bench.kill()
    bench.wait()
    bench.stdout.close()
    give_up_at = time.monotonic() + 10
    while alive(one):
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def alive(one):
    """Whether a process runs; one that is only not yet waited for does
    not."""
    try:
        return processes._stat(Path(f'/proc/{one}/stat'))[0] != 'Z'
    except OSError:
        return False


def test_a_process_that_cannot_start_tells_why(tmp_path):
    with pytest.raises(RuntimeError, match='no_such_app'):
        Peer('no_such_app:app', tmp_path)
    assert not processes._running


# -- stores -------------------------------------------------------------------

def test_a_store_is_filled_with_what_a_stampman_reads(tmp_path):
    store = stores.sqlite(tmp_path / 'filled')
    opened = open_store(store.url)
    opened.migrate()
    store.fill(30, 0)
    store.queue(7)
    page, more = opened.page(mail.DOMAIN, Filter(State.accepted), 100)
    assert len(page) == 30 and not more
    one = opened.message(mail.DOMAIN, page[0].id)
    assert one.accepted_by.provider == 'sendgrid'
    assert [each.status for each in one.recipients] == ['accepted']
    assert opened.email(one.id).content == mail.TEXT
    assert opened.waiting() == {(mail.DOMAIN, State.queued): 7}
    assert len(opened.claim_due('x', time.time(), time.time() + 9, 99)) == 7
    store.forget_waiting()
    assert opened.waiting() == {}
    assert len(opened.page(mail.DOMAIN, limit=100)[0]) == 30
    opened.close()


def test_ids_are_in_the_order_of_time_and_of_their_own():
    ids = [fill.new_id(at, number) for at in (1e9, 1.8e9)
           for number in (0, 1, 2 ** 59)]
    assert len({*ids}) == len(ids)
    assert ids == sorted(ids)
    assert all(re.fullmatch('[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}'
                            '-8[0-9a-f]{3}-[0-9a-f]{12}', one) for one in ids)


def test_the_cost_of_a_statement_is_noted_under_its_name(tmp_path):
    store, times = stores.sqlite(tmp_path / 'one'), statements.Times()
    opened = open_store(store.url)
    opened.migrate()
    opened.close()
    statements.measured(store.url, 2, times)
    told = '\n'.join(statements.tables([0, 9], [times, times]))
    for name in ('add', 'claim_due', 'begin', 'end', 'page', 'erase',
                 'ADD_MESSAGE', 'CLAIM', 'BEGIN', 'END_OPEN', 'ORPHAN',
                 'PAGES[state=True, recipient=True]', 'FORGET_MESSAGE'):
        assert f'\n| {name} | ' in told
    assert '| × 1.00 |' in told


# -- all of it ----------------------------------------------------------------

def test_every_scenario_is_explained():
    text = (ROOT / 'docs' / 'performance.md').read_text()
    for name in SCENARIOS:
        assert f'`{name}`' in text
    assert LONG < SCENARIOS.keys()


@pytest.mark.long
@pytest.mark.parametrize('only, options', [
    # Not the worker's row: Anymail is not there for tests.
    (SCENARIOS.keys() - {'worker'}, ['--no-postgres']),
    ({'sends'}, ['--stored', '300', '--size', '200'])])
def test_a_table_is_printed_and_nothing_is_left_behind(
        tmp_path, only, options):
    with Process([sys.executable, '-m', 'bench', '--rounds', '1', '--seconds',
                  '0.5', '--sends', '1200', '--only', ','.join(only),
                  '--folder', str(tmp_path / 'build'), *options],
                 tmp_path, 'bench', answers=True) as bench:
        told, _ = bench.popen.communicate(timeout=300)
        assert bench.popen.returncode == 0, bench.told()
    rows = [line.split(' | ')[:2] for line in told.decode().splitlines()
            if line.startswith('| ')][2:]
    assert {name[2:] for name, _ in rows} == only
    assert not [*(tmp_path / 'build').iterdir()]
    if '--stored' in options:
        assert [what for _, what in rows] == [
            'SQLite ÷ BARE', 'PostgreSQL ÷ BARE', 'SQLite, 300 stored ÷ '
            'SQLite']


@pytest.mark.long
@pytest.mark.parametrize('module', ['statements', 'upkeep'])
def test_the_scripts_of_growth_print_a_table(tmp_path, module):
    options = {'statements': ['--stored', '50,500', '--rounds', '1',
                              '--messages', '3'],
               'upkeep': ['--messages', '500', '--seconds', '1']}[module]
    told = subprocess.run(
        [sys.executable, '-m', f'bench.{module}', '--folder', str(tmp_path),
         *options], env=ENVIRON, capture_output=True, text=True, timeout=120)
    assert told.returncode == 0, told.stderr
    assert told.stdout.count('\n| ') > 5
    assert not [*tmp_path.iterdir()]
