"""SIGKILL at every stage of a send: nothing is lost, nothing is hidden."""

from typing import NamedTuple

import pytest

from stampman.helpers.delivery import State
from stampman.simulator import Simulator

from crashing.cases import side_by_side
from crashing.running import POOLS, Program, Site
from crashing.wire import Wire

LARGE = 300_000         # bytes of a text that no single read gets whole
ACCEPTED, UNCERTAIN = State.accepted, State.uncertain


class End(NamedTuple):
    """How a message must end: its state, how often it was taken, and
    whether it is marked."""

    state: State | None
    taken: int
    marked: bool = False


NOTHING = End(None, 0)
ONCE = End(ACCEPTED, 1)
# How it must end under `hold` and under `failover`.
AS_IF_NOTHING = (ONCE, ONCE)
NOT_TAKEN = (End(UNCERTAIN, 0), End(ACCEPTED, 1, True))
TAKEN = (End(UNCERTAIN, 1), End(ACCEPTED, 2, True))
REFUSED = (End(State.rejected, 0),) * 2
REFUSES = 'sendgrid:error=RECIPIENT'


class Stage(NamedTuple):
    """Where it is killed, in turn, and what the providers do wrong."""

    kills: tuple[str, ...]
    ends: tuple[End, End]
    fault: str = ''


ON_THE_WIRE = ('half', 'taken')
# Once its first attempt has begun, by a request or by a worker.
COMMON = {
    'half of the request': Stage(('half',), NOT_TAKEN),
    'taken, not answered': Stage(('taken',), TAKEN),
    'before recording': Stage(('before end',), TAKEN),
    'within recording': Stage(('within end',), TAKEN),
    'after recording': Stage(('after end',), AS_IF_NOTHING),
    'before finish': Stage(('before finish',), REFUSED, REFUSES),
    'within finish': Stage(('within finish',), REFUSED, REFUSES),
    'after finish': Stage(('after finish',), REFUSED, REFUSES)}


def begun(method):
    """Where the commit of a method is that by which an attempt begins."""
    return {
        f'after {method}': Stage((f'after {method}',), NOT_TAKEN),
        'within the rescue': Stage(
            (f'after {method}', 'within claim_due'), NOT_TAKEN),
        'after the rescue': Stage(
            (f'after {method}', 'after claim_due'), NOT_TAKEN)}


STAGES = {
    'request': {
        'before the accept': Stage(('before add_all',), (NOTHING, NOTHING)),
        'within the accept': Stage(('within add_all',), (NOTHING, NOTHING)),
        **begun('add_all'), **COMMON},
    'worker': {
        'within the claim': Stage(('within claim_due',), AS_IF_NOTHING),
        'after the claim': Stage(('after claim_due',), AS_IF_NOTHING),
        'before begin': Stage(('before begin',), AS_IF_NOTHING),
        'within begin': Stage(('within begin',), AS_IF_NOTHING),
        **begun('begin'), **COMMON}}
# A server dies alone, under its master, or with it; a worker is one process.
DOORS = (('request', 'process', POOLS), ('request', 'group', ['failover']),
         ('worker', 'group', POOLS))
CASES = [(door, victim, stage, policy) for door, victim, policies in DOORS
         for stage in STAGES[door] for policy in policies]
QUICK = {('request', 'process', 'after add_all', 'failover'),
         ('worker', 'group', 'taken, not answered', 'hold')}


def crash(folder, door, victim, stage, policy):
    """Kill it at a stage; return the oracle's history, and how the message
    ended."""
    kills, _, fault = STAGES[door][stage]
    with Simulator(faults=[fault] if fault else []) as simulator, \
            Wire(simulator) as wire, \
            Site(folder, simulator, wire.url) as site:
        program = Program(site, 'web' if door == 'request' else 'worker')
        program.strike(*(f'{kill} 1 SIGKILL {victim}' for kill in kills
                         if kill not in ON_THE_WIRE))
        if kills[0] in ON_THE_WIRE:
            wire.strike(kills[0], lambda: program.kill(victim))
        send_and_recover(site, program, door, POOLS[policy], not fault)
        assert wire.struck.is_set() or kills[0] not in ON_THE_WIRE
        return how_it_ended(site.judge())


def send_and_recover(site, program, door, pool, valid):
    with program:
        if door == 'worker':
            site.accept(pool, 'Order 1', valid=valid)
        else:
            told = program.send(pool, 'Order 1', valid=valid,
                                body={'text': LARGE * 'x'})
            assert told.status is None      # it was killed before it answered
        program.recover()
        assert program.stop() == 0, program.log


def how_it_ended(history):
    if not history.stored:
        return End(None, len(history.ledger))
    [(message, _)] = history.stored
    return End(message.state, history.taken[message.id],
               message.possible_duplicate)


crashes = side_by_side(crash)


@pytest.mark.parametrize('case', [
    pytest.param(case, id='-'.join(case), marks=() if case in QUICK
                 else pytest.mark.long) for case in CASES])
def test_after_a_kill_it_goes_on_by_itself(crashes, case):
    door, _, stage, policy = case
    assert crashes[case].result() == STAGES[door][stage].ends[
        list(POOLS).index(policy)]
