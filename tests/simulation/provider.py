"""A provider at the other end of the wire, which only we can look into.

It decides at its own time, whatever becomes of who asked it; what it took
stands in the ledger.
"""

import json
import random
from typing import NamedTuple

from stampman.services.transport import Answer

from simulation.ledger import Taken

REPLAY_WINDOW = 86400.0     # seconds for which it keeps idempotency keys
AT_ONCE = (0.02, 0.3)       # seconds until a provider decides, and answers

# How a call may go while there are faults, and how likely beside each other.
SCRIPTS = {
    'refuse': 8, 'connect_hangs': 3, 'reset_in_write': 5,
    'answer_lost': 12, 'answer_late': 6, 'taken_late': 6,
    'not_taken_lost': 8, 'hangs': 4,
    'no_proof': 3, 'gateway_timeout': 4, 'gateway_timeout_taken': 4,
    'error_500': 4, 'error_503': 4, 'throttled': 4, 'unauthorized': 2,
    'wrong_domain': 2, 'too_large': 3, 'rejected': 2, 'mixed': 14}
TROUBLED = {'refuses': 'refuse', 'hangs': 'hangs',
            'unavailable': 'error_503', 'unauthorized': 'unauthorized',
            'loses': 'answer_lost'}
# What is answered to whom nothing was taken from.
ERRORS = {
    'error_500': (500, 'internal'), 'error_503': (503, 'unavailable'),
    'throttled': (429, 'slow down'), 'unauthorized': (401, 'who are you'),
    'wrong_domain': (403, 'domain not verified'),
    'too_large': (413, 'too large'), 'rejected': (400, 'rejected: virus'),
    'gateway_timeout': (504, 'gateway time-out')}


class Exchange(NamedTuple):
    """How one call goes, known before it begins.

    `decides` and `answers` are seconds after the last byte; `answer_lost`
    says that the connection ends instead.
    """

    script: str
    decides: float
    answers: float
    answer_lost: bool = False


class Provider:
    """One account somewhere."""

    def __init__(self, world, name: str):
        self._world = world
        self.name = name
        self._by_key = {}       # what came of an idempotency key's first call
        self._by_attempt = {}
        self._calls = {}        # letter: how many calls there were
        self.replays = dict(world.plan.evidence).get(name) == 'replay'

    # -- before the wire -----------------------------------------------------

    def exchange(self, letter) -> Exchange:
        """Return how the next call for a letter goes."""
        count = self._calls[letter.number] = self._calls.get(
            letter.number, 0) + 1
        world = self._world
        chance = random.Random(f'call/{world.plan.seed}/{self.name}/'
                               f'{letter.number}/{count}')
        script = self._script(letter, chance)
        decides, answers = (chance.uniform(*AT_ONCE) for _ in range(2))
        if script == 'taken_late':
            decides = chance.uniform(5.0, 120.0)
        if script in ('answer_late', 'hangs'):
            answers = chance.uniform(8.0, 100.0)
        return Exchange(script, decides, answers, script in (
            'answer_lost', 'not_taken_lost'))

    def _script(self, letter, chance):
        world = self._world
        if world.healed:
            return 'ok'
        trouble = next((one.mode for one in world.plan.troubles
                        if one.service == self.name
                        and one.at <= world.scheduler.time < one.until), None)
        if trouble:
            return TROUBLED[trouble]
        if chance.random() < letter.trust:
            return 'ok'
        return chance.choices(*zip(*SCRIPTS.items()))[0]

    def is_serving(self) -> bool:
        """Whether a probe is answered well."""
        return not any(
            one.service == self.name and one.mode == 'unauthorized'
            and one.at <= self._world.scheduler.time < one.until
            for one in self._world.plan.troubles) or self._world.healed

    # -- at the other end ----------------------------------------------------

    def decide(self, script: str, call: dict) -> Answer:
        """Take the email or not, and return the answer to it.

        A front door that is closed comes before the idempotency key.
        """
        world = self._world
        if script in ERRORS:
            return _answer(*ERRORS[script])
        at, answer = self._by_key.get(call['key'], (None, None))
        if self.replays and at is not None \
                and world.scheduler.time < at + REPLAY_WINDOW:
            world.history.counts['replays answered'] += 1
            return answer
        if script == 'not_taken_lost':
            return _answer(*ERRORS['error_500'])
        if world.plan.letters[call['letter']].is_bad:
            return _answer(*ERRORS['rejected'])
        answer = self._take(script, call)
        if script == 'no_proof':
            return _answer(200, '')
        if script == 'gateway_timeout_taken':
            return _answer(*ERRORS['gateway_timeout'])
        return answer

    def _take(self, script, call):
        world, attempt = self._world, call['attempt']
        results = {address: self._result(address, call, script)
                   for address in call['to']}
        taken = [one for one, kind in results.items() if kind == 'accepted']
        self._by_attempt[attempt] = results
        answer = _answer(202, '', id=f'{self.name}-{attempt}') \
            if len(taken) == len(results) \
            else _answer(207, '', results=results)
        if taken:
            self._by_key[call['key']] = world.scheduler.time, answer
        if script == 'mixed' and len(taken) < len(results):
            # It does not tell how one fared, this time.
            silent = random.Random(attempt).choice(sorted(results))
            answer = _answer(207, '', results={
                **results, silent: 'uncertain'})
        for address in taken:
            world.took(Taken(world.scheduler.time, self.name,
                             call['message'], attempt, address))
        return answer

    def _result(self, address, call, script):
        name = address.partition('-')[0]
        if name == 'bad':
            return 'rejected'
        busy = name == 'busy' and not self._world.healed or script == 'mixed'
        chance = random.Random(
            f'{self._world.plan.seed}/{call["attempt"]}/{address}')
        return 'deferred' if busy and chance.random() < 0.6 else 'accepted'

    def knows(self, attempt_id: str) -> dict[str, str] | None:
        """Return how the recipients of an attempt fared, if it took it."""
        return self._by_attempt.get(attempt_id)


def _answer(status, error, **body):
    return Answer(status, {'Content-Type': 'application/json'},
                  json.dumps({**body, 'error': error}).encode())
