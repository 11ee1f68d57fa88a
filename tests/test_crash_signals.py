"""Processes that are frozen for longer than a lease, or told to stop."""

import os
import re
import signal
import threading
import time
from contextlib import contextmanager

import pytest

from stampman.helpers.delivery import Kind, State
from stampman.simulator import Simulator

from crashing.cases import side_by_side
from crashing.running import POOLS, Program, Site, until
from crashing.wire import Wire

KINDS = ('web', 'worker')
LONG_CALL = 5.0         # seconds, longer than a process may take to stop
GONE = 8.0              # seconds after which it must be gone all the same
TOLD = re.compile(r'the (process \d+|worker) stops')


@contextmanager
def a_site(folder, **fields):
    with Simulator() as simulator, Wire(simulator) as wire, \
            Site(folder, simulator, wire.url, **fields) as site:
        yield site, wire


def send(site, program, pool):
    """Have a message sent by the program; return what ends the sending."""
    if program.kind == 'web':
        return program.send_meanwhile(pool, 'Order 1').join
    site.accept(pool, 'Order 1')
    return lambda: None


def freeze(folder, where, kind, policy):
    """Freeze a process, let another one rescue, thaw it; return history and
    calls by the first service."""
    with a_site(folder) as (site, wire):
        frozen = Program(site, kind, 'frozen', timing={'rounds': 60.0})
        answer = threading.Event()
        with frozen:
            # Who is frozen in a commit keeps everybody from the store.
            until(site.store.last_beat, lambda: frozen.log)
            time.sleep(0.3)
            if where == 'before the call':
                begins = 'add_all' if kind == 'web' else 'begin'
                frozen.strike(f'after {begins} 1 SIGSTOP process')
            else:
                # It waits for the answer by then.
                wire.strike('taken', lambda: (
                    time.sleep(0.2), os.kill(frozen.pid, signal.SIGSTOP),
                    answer.wait(30)))
            done = send(site, frozen, POOLS[policy])
            until(lambda: is_stopped(frozen.pid))
            with Program(site, 'worker', 'other') as other:
                until(lambda: site.is_quiet(), lambda: other.log)
                other.stop()
            orphan = site.stored()[0].message.attempts[0]
            assert orphan.outcome.kind is Kind.uncertain
            answer.set()
            assert where == 'before the call' or wire.written.wait(10)
            os.kill(frozen.pid, signal.SIGCONT)
            until(lambda: first_attempt(site) != orphan, lambda: frozen.log)
            frozen.recover()
            done()
            assert frozen.stop() == 0
        return site.judge()


def is_stopped(pid):
    with open(f'/proc/{pid}/stat') as stat:
        return stat.read().rpartition(')')[2].split()[0] == 'T'


def first_attempt(site):
    return site.stored()[0].message.attempts[0]


def run(folder, what, kind, policy):
    return outlast(folder, kind, policy) if what == 'outlasts' \
        else freeze(folder, what, kind, policy)


runs = side_by_side(run)


def cases(what):
    return pytest.mark.parametrize('case', [
        pytest.param((what, kind, policy), id=f'{kind}-{policy}')
        for kind in KINDS for policy in POOLS])


@pytest.mark.long
@cases('before the call')
def test_who_was_frozen_before_the_call_calls_nobody(runs, case):
    history = runs[case].result()
    [(message, _)] = history.stored
    first, *others = message.attempts
    assert message.state is State.accepted
    assert first.outcome.kind is Kind.deferred
    assert [entry.stampman_attempt for entry in history.ledger] == [
        others[-1].id]


@pytest.mark.long
@cases('before the answer')
def test_who_was_frozen_in_the_call_has_the_last_word(runs, case):
    history = runs[case].result()
    [(message, _)] = history.stored
    assert message.state is State.accepted
    assert message.attempts[0].outcome.kind is Kind.accepted
    assert history.taken[message.id] == {'hold': 1, 'failover': 2}[case[2]]


@pytest.mark.long
@pytest.mark.parametrize('kind', KINDS)
def test_who_is_told_to_stop_finishes_what_is_in_flight(tmp_path, kind):
    with a_site(tmp_path, call=LONG_CALL) as (site, wire):
        answer = threading.Event()
        wire.strike('taken', lambda: answer.wait(30))
        with Program(site, kind) as program:
            done = send(site, program, POOLS['hold'])
            assert wire.struck.wait(10)
            program.process.terminate()
            until(lambda: TOLD.search(program.log), lambda: program.log)
            site.accept(POOLS['hold'], 'Order 2')
            answer.set()
            assert program.process.wait(GONE) == 0
            done()
        first, second = sorted(site.stored(), key=lambda one: (
            one.email.subject))
        assert first.message.state is State.accepted
        assert second.message.state is State.queued
        assert not second.message.attempts
        if kind == 'web':
            assert [told.status for told in site.told
                    if told.subject == 'Order 1'] == [200]
        with Program(site, 'worker') as program:
            program.recover()
        assert len(site.judge().ledger) == 2


def outlast(folder, kind, policy):
    """Stop a process whose call lasts longer than its drain; return what
    the oracle judged."""
    answer = threading.Event()
    with a_site(folder, call=LONG_CALL) as (site, wire):
        wire.strike('taken', lambda: answer.wait(30))
        with Program(site, kind, timing={'drain': 1.0}) as program:
            done = send(site, program, POOLS[policy])
            assert wire.struck.wait(10)
            program.process.terminate()
            assert program.process.wait(GONE) == 0
            done()
            answer.set()
            program.recover()
        return site.judge()


@pytest.mark.long
@cases('outlasts')
def test_what_lasts_too_long_for_a_stop_is_rescued(runs, case):
    [(message, _)] = runs[case].result().stored
    assert message.attempts[0].outcome.kind is Kind.uncertain
    assert message.state is {'hold': State.uncertain,
                             'failover': State.accepted}[case[2]]
