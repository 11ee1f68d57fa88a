"""A store that is full, read-only or locked, under a running program."""

import threading
import time

import pytest

from stampman.helpers.delivery import Clock, Kind, State
from stampman.simulator import Simulator

from crashing import troubles
from crashing.program import replace_text, wall_clock
from crashing.running import POOLS, Program, Site, until
from crashing.wire import Wire

HOUR = 3600.0           # seconds
WHILE = 1.0             # second, in which a worker looks many times
LARGE = {'text': 60_000 * 'x'}
TROUBLES = {
    'no page left': troubles.NoPageLeft,
    'no file may grow': troubles.NoFileGrows,
    'no journal may grow': troubles.NoJournalGrows,
    'the disk is full': troubles.DiskIsFull,
    'locked': troubles.Locked,
    'read-only': troubles.ReadOnly}


@pytest.fixture
def site(tmp_path):
    wrong = tmp_path / 'clock'
    replace_text(wrong, '0')
    clock = Clock(lambda: wall_clock(wrong), time.monotonic)
    with Simulator(clock=clock) as simulator, Wire(simulator) as wire, \
            Site(tmp_path, simulator, wire.url) as site:
        site.wire = wire
        site.clock = wrong
        yield site


def trouble_of(name, site):
    kind = TROUBLES[name]
    if kind is troubles.DiskIsFull and not kind.can_be_made(site.folder):
        kind = troubles.NoFileGrows     # no other way to fill one
    return kind(site)


def a_program(site, trouble, kind='web', **timing):
    return Program(site, kind, clock=str(site.clock), timing=timing,
                   **trouble.orders)


def leave_one_waiting(site, program):
    """Have one message stored that is due within the hour."""
    number = site.simulator.faults.add('*:error=RATE_LIMIT').number
    told = program.send(POOLS['hold'], 'waits')
    site.simulator.faults.clear(number)
    assert (told.status, told.state) == (202, 'deferred')
    return told


def assert_refuses(program, trouble, known):
    """It takes nothing in, calls nobody, and says so."""
    for pool in POOLS.values():
        told, headers = program.exchange(
            pool, f'refused by {pool}', body=LARGE)
        assert (told.status, told.id) == (503, None)
        assert int(headers['Retry-After']) > 0
    assert program.ask('GET', '/healthz')[0] == 200
    assert program.ask('GET', '/readyz')[0] == 503 or not trouble.total
    for path in ('', known.id):
        status, _, told = program.ask(
            'GET', f'/{known.pool}/messages/{path}')
        assert status == 200 or status == 503 and not trouble.reads, told


@pytest.mark.long
@pytest.mark.parametrize('name', TROUBLES)
def test_a_store_in_trouble_takes_nothing_and_then_goes_on(site, name):
    trouble = trouble_of(name, site)
    with a_program(site, trouble) as program:
        trouble.started(program)
        known = leave_one_waiting(site, program)
        calls = len(site.simulator.ledger.calls())
        trouble.begin(program)
        until(lambda: serves(program))
        replace_text(site.clock, str(HOUR))         # it is due
        assert_refuses(program, trouble, known)
        time.sleep(WHILE)
        assert not trouble.total or calls == len(
            site.simulator.ledger.calls())
        trouble.end(program)
        until(lambda: program.ask('GET', '/readyz')[0] == 200)
        until(site.is_quiet, lambda: program.log)
        assert program.send(POOLS['hold'], 'after').state == 'accepted'
        history = site.judge()
        assert program.starts == 1
    assert sorted(one.email.subject for one in history.stored) == [
        'after', 'waits']
    assert len(history.ledger) == 2


def serves(program):
    try:
        return program.ask('GET', '/healthz')[0] == 200
    except OSError:
        return False


@pytest.mark.long
@pytest.mark.parametrize('kind', ['web', 'worker'])
def test_an_end_is_recorded_when_space_comes_back(site, kind):
    trouble = troubles.NoFileGrows(site)
    with a_program(site, trouble, kind, recording=10.0) as program:
        site.wire.strike('taken', lambda: trouble.begin(program))
        threads = send(site, program, 'hold')
        assert site.wire.written.wait(10)
        time.sleep(WHILE)
        trouble.end(program)
        until(site.is_quiet, lambda: program.log)
        for thread in threads:
            thread.join()
    [(message, _)] = site.judge().stored
    assert message.state is State.accepted
    assert len(message.attempts) == 1
    if kind == 'web':
        assert site.told[0].status == 200


@pytest.mark.long
@pytest.mark.parametrize('policy', POOLS)
@pytest.mark.parametrize('kind', ['web', 'worker'])
def test_an_end_that_could_not_be_recorded_is_uncertain(site, kind, policy):
    trouble = troubles.NoFileGrows(site)
    with a_program(site, trouble, kind, recording=0.5) as program:
        site.wire.strike('taken', lambda: trouble.begin(program))
        threads = send(site, program, policy)
        until(lambda: 'left to a rescue' in program.log)
        trouble.end(program)
        for thread in threads:
            thread.join()
        until(site.is_quiet, lambda: program.log)
    history = site.judge()
    [(message, _)] = history.stored
    assert message.attempts[0].outcome.kind is Kind.uncertain
    assert (message.state, len(history.ledger)) == {
        'hold': (State.uncertain, 1),
        'failover': (State.accepted, 2)}[policy]


def send(site, program, policy) -> list[threading.Thread]:
    """Have one message sent; return what is to be joined."""
    if program.kind == 'web':
        return [program.send_meanwhile(POOLS[policy], 'Order 1')]
    site.accept(POOLS[policy], 'Order 1')
    return []


@pytest.mark.long
def test_a_connection_that_may_only_ask_refuses_too(site):
    trouble = troubles.Trouble(site)
    with a_program(site, trouble) as program:
        known = program.send(POOLS['hold'], 'before')
    with Program(site, store={'pragmas': {'query_only': 'ON'}}) as program:
        assert_refuses(program, trouble, known)
    assert len(site.judge().ledger) == 1
