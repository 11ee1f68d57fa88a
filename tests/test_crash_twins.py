"""The same request three hundred times at once, to two servers."""

import threading
from collections import Counter

import pytest

from stampman.helpers.delivery import State
from stampman.simulator import Simulator

from crashing.running import POOLS, Program, Site

TWINS = 300
KEY = 'order-1-of-ada'
UNHURRIED = {'lease': 30.0, 'recording': 10.0, 'request': 25.0}


@pytest.mark.long
def test_three_hundred_twins_are_one_message(tmp_path, capsys):
    with Simulator(faults=['*:slow=0.2']) as simulator, \
            Site(tmp_path, simulator, call=10.0) as site, \
            Program(site, 'web', 'one', timing=UNHURRIED) as one, \
            Program(site, 'web', 'other', timing=UNHURRIED) as other:
        answers = []
        gate = threading.Barrier(TWINS)

        def twin(program):
            gate.wait()
            answers.append(program.exchange(
                POOLS['hold'], 'Order 1', key=KEY, patience=60.0))

        threads = [threading.Thread(target=twin, args=[(one, other)[n % 2]])
                   for n in range(TWINS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        one.recover()
        history = site.judge()
        [(message, _)] = history.stored
        assert message.state is State.accepted
        assert len(message.attempts) == len(simulator.ledger.calls()) == 1
    with capsys.disabled():
        print('', Counter(told.status for told, _ in answers))
    assert_about(answers, message)


def assert_about(answers, message):
    """Hold every answer against the one message."""
    originals = 0
    for told, headers in answers:
        if told.status == 409:
            assert int(headers['Retry-After']) > 0
            continue
        assert told.status in (200, 202), told
        assert told.id == message.id
        originals += headers.get('Idempotent-Replayed') != 'true'
    assert originals == 1
