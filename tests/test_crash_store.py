"""A store that is full, read-only or locked, under a running program."""

import threading
import time
from contextlib import contextmanager

import pytest

from stampman.helpers.delivery import Clock, Kind, State
from stampman.simulator import Simulator

from crashing import troubles
from crashing.cases import by_name, side_by_side
from crashing.program import replace_text, wall_clock
from crashing.running import POOLS, Program, Site, until
from crashing.wire import Wire

pytestmark = pytest.mark.long

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


@contextmanager
def a_site(folder):
    wrong = folder / 'clock'
    replace_text(wrong, '0')
    clock = Clock(lambda: wall_clock(wrong), time.monotonic)
    with Simulator(clock=clock) as simulator, Wire(simulator) as wire, \
            Site(folder, simulator, wire.url) as site:
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


def in_trouble(folder, name):
    """Begin a trouble and end it; return the oracle's history."""
    with a_site(folder) as site:
        return outlived(site, trouble_of(name, site))


def outlived(site, trouble):
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
    return history


def serves(program):
    try:
        return program.ask('GET', '/healthz')[0] == 200
    except OSError:
        return False


def space_comes_back(folder, kind):
    """Fill the disk in mid-call and give space while it tries to record the
    end; return the oracle's history, and what clients were told."""
    with a_site(folder) as site:
        return recorded_late(site, troubles.NoFileGrows(site), kind)


def recorded_late(site, trouble, kind):
    with a_program(site, trouble, kind, recording=30.0) as program:
        site.wire.strike('taken', lambda: trouble.begin(program))
        threads = send(site, program, 'hold')
        assert site.wire.written.wait(10)
        time.sleep(WHILE)
        trouble.end(program)
        until(site.is_quiet, lambda: program.log)
        for thread in threads:
            thread.join()
    return site.judge(), site.told


def space_comes_late(folder, kind, policy):
    """Give space when it has given up to record the end; return the
    oracle's history."""
    with a_site(folder) as site:
        return unrecorded(site, troubles.NoFileGrows(site), kind, policy)


def unrecorded(site, trouble, kind, policy):
    with a_program(site, trouble, kind, recording=0.5) as program:
        site.wire.strike('taken', lambda: trouble.begin(program))
        threads = send(site, program, policy)
        until(lambda: 'left to a rescue' in program.log)
        trouble.end(program)
        for thread in threads:
            thread.join()
        until(site.is_quiet, lambda: program.log)
    return site.judge()


def send(site, program, policy) -> list[threading.Thread]:
    """Have one message sent; return what is to be joined."""
    if program.kind == 'web':
        return [program.send_meanwhile(POOLS[policy], 'Order 1')]
    site.accept(POOLS[policy], 'Order 1')
    return []


def only_asks(folder):
    """Start it on connections that may only ask; return the oracle's
    history."""
    with a_site(folder) as site:
        trouble = troubles.Trouble(site)
        with a_program(site, trouble) as program:
            known = program.send(POOLS['hold'], 'before')
        with Program(site, store={
                'pragmas': {'query_only': 'ON'}}) as program:
            assert_refuses(program, trouble, known)
        return site.judge()


RUNS = {'in trouble': in_trouble, 'space comes back': space_comes_back,
        'space comes late': space_comes_late, 'only asks': only_asks}


runs = side_by_side(by_name(RUNS))


def cases(what, *abouts):
    return pytest.mark.parametrize('case', [
        pytest.param((what, *about), id='-'.join(about) or what)
        for about in abouts])


@cases('in trouble', *([name] for name in TROUBLES))
def test_a_store_in_trouble_takes_nothing_and_then_goes_on(runs, case):
    history = runs[case].result()
    assert sorted(one.email.subject for one in history.stored) == [
        'after', 'waits']
    assert len(history.ledger) == 2


@cases('space comes back', ['web'], ['worker'])
def test_an_end_is_recorded_when_space_comes_back(runs, case):
    history, told = runs[case].result()
    [(message, _)] = history.stored
    assert message.state is State.accepted
    assert len(message.attempts) == 1
    if case[1] == 'web':
        assert told[0].status == 200


@cases('space comes late', *(
    (kind, policy) for kind in ('web', 'worker') for policy in POOLS))
def test_an_end_that_could_not_be_recorded_is_uncertain(runs, case):
    history = runs[case].result()
    [(message, _)] = history.stored
    assert message.attempts[0].outcome.kind is Kind.uncertain
    assert (message.state, len(history.ledger)) == {
        'hold': (State.uncertain, 1),
        'failover': (State.accepted, 2)}[case[2]]


@cases('only asks', [])
def test_a_connection_that_may_only_ask_refuses_too(runs, case):
    assert len(runs[case].result().ledger) == 1
