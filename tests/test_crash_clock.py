"""The wall clock jumps in mid-send: nobody sends it again for that."""

import threading
import time

import pytest

from stampman.helpers.delivery import Clock, State
from stampman.simulator import Simulator

from crashing.cases import side_by_side
from crashing.program import replace_text, wall_clock
from crashing.running import POOLS, Program, Site, until
from crashing.wire import Wire

HOUR = 3600.0           # seconds
JUMPS = {'an hour ahead': HOUR, 'an hour back': -HOUR,
         'ten years ahead': 87_660 * HOUR}
CALL = 4.0              # seconds that a call may take
WHILE = 2.0             # seconds in which the other worker looks many times


def jump(folder, kind, name):
    """Let the clock jump while a provider has the request; return the
    oracle's history."""
    wrong, answer = folder / 'clock', threading.Event()
    replace_text(wrong, '0')
    orders = {'clock': str(wrong)}
    clock = Clock(lambda: wall_clock(wrong), time.monotonic)
    with Simulator(clock=clock) as simulator, Wire(simulator) as wire, \
            Site(folder, simulator, wire.url, call=CALL) as site:
        wire.strike('taken', lambda: answer.wait(30))
        with Program(site, 'web', **orders) as web, \
                Program(site, 'worker', 'first', **orders) as first, \
                Program(site, 'worker', 'second', **orders) as second:
            if kind == 'web':
                thread = web.send_meanwhile(POOLS['failover'], 'Order 1')
            else:
                site.accept(POOLS['failover'], 'Order 1')
                thread = None
            assert wire.struck.wait(10)
            replace_text(wrong, str(JUMPS[name]))
            time.sleep(WHILE)
            answer.set()
            until(site.is_quiet, lambda: first.log + second.log)
            if thread:
                thread.join()
            told = web.send(POOLS['failover'], 'Order 2')
            assert told.state == 'accepted'
        return site.judge()


jumps = side_by_side(jump)


@pytest.mark.long
@pytest.mark.parametrize('case', [
    (kind, name) for kind in ('web', 'worker') for name in JUMPS],
    ids=' '.join)
def test_no_jump_of_the_clock_ends_a_lease(jumps, case):
    history = jumps[case].result()
    assert len(history.ledger) == len(history.stored) == 2
    for message, _ in history.stored:
        assert message.state is State.accepted
        assert len(message.attempts) == 1
        assert not message.possible_duplicate
