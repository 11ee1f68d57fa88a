"""What goes wrong in the simulated SMTP relay, at each stage."""

from collections.abc import Callable

from stampman.simulator._smtp_words import NO_ROOM, Reply, reply
from stampman.simulator.faults import (
    BEFORE_SENDING, HTTP_ONLY, PATTERNS)

GARBAGE = b'\x00\xff\x13 this is no reply \xfe\x00\r\n' * 3
# Each class as relays answer it.
ERRORS = {
    'AUTH': reply(535, '5.7.8 Authentication credentials invalid'),
    'ACCOUNT': reply(550, '5.7.1 The from address does not match a verified '
                     'Sender Identity'),
    'RATE_LIMIT': reply(454, '4.7.0 Throttling failure: Maximum sending rate '
                        'exceeded'),
    'UNAVAILABLE': reply(451, '4.3.0 Temporary system problem, try again '
                         'later'),
    'RECIPIENT': reply(550, '5.1.1 No such user here'),
    'SUPPRESSED': reply(550, '5.2.1 The mailbox is on the suppression list'),
    'SENDER': reply(553, '5.1.7 The sender address is not valid'),
    'CONTENT': reply(554, '5.7.1 Message rejected as spam'),
    'PAYLOAD': reply(501, '5.5.4 Syntax error in parameters'),
    'TOO_LARGE': reply(552, f'5.3.4 {NO_ROOM}'),
}


class Over(Exception):
    """The connection ends."""


class Fault(Over):
    """It ends by a fault, whose `last` is to be done once that is noted."""

    def __init__(self, what: str, last: Callable[[], None]):
        self.what = what
        self.last = last


def answer_at(session, stage: str, act: Callable[[], Reply],
              address: str = '') -> Reply:
    """Return what `act` does and answers, or do the fault that is on.

    `address` is the recipient that it is about, if it is about one. Raises
    Fault where there is no answer.
    """
    rule = session.door.faults.choose(
        'smtp', lambda rule: _belongs(rule, stage, address))
    return DONE[rule.what](session, rule, act) if rule else act()


def _belongs(rule, stage, address):
    if rule.what in HTTP_ONLY or (
            rule.what in PATTERNS and not rule.matches(address)):
        return False
    if rule.on == 'probe' and stage not in BEFORE_SENDING:
        return False
    return stage == rule.smtp_stage


def _status(session, rule, act):
    if rule.took:
        act()
    code = rule.value
    return reply(code, *(rule.body.splitlines() or (
        f'{code // 100}.0.0 This fault is switched on',)))


def _slow(session, rule, act):
    answer = act()
    session.wait(rule.value)
    return answer


def _ending(last):
    """Return what ends a connection by `last`, without a true answer."""
    def end(session, rule, act):
        if rule.took:
            act()
        raise Fault(rule.what, lambda: last(session, rule))
    return end


DONE = {
    'status': _status,
    'error': lambda session, rule, act: ERRORS[rule.value],
    'rate_limit': lambda session, rule, act: ERRORS['RATE_LIMIT'],
    'reject': lambda session, rule, act: ERRORS['RECIPIENT'],
    'defer': lambda session, rule, act: reply(
        450, '4.2.1 The mailbox is not available now'),
    'slow': _slow,
    'drip': lambda session, rule, act: act()._replace(pace=rule.value),
    'hang': _ending(lambda session, rule:
                    session.door.faults.wait(rule.value)),
    'reset': _ending(lambda session, rule: session.reset()),
    'close': _ending(lambda session, rule: None),
    'garbage': _ending(lambda session, rule: session.send(GARBAGE))}
