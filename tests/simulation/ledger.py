"""What really happened: what every provider took, which the gateway cannot
see, and what was seen while it happened."""

import re
from collections import Counter, defaultdict
from typing import NamedTuple

KEPT = 60       # steps that a failure tells of
_ID = re.compile('[0-9a-f]{8}-[0-9a-f-]{27}')


class Taken(NamedTuple):
    """A provider took an email for a recipient."""

    time: float
    service: str
    message_id: str
    attempt_id: str
    address: str


class Violation(NamedTuple):
    """An invariant that does not hold, and how that is seen."""

    invariant: str
    detail: str

    def __str__(self):
        return f'{self.invariant}: {self.detail}'


class Ledger:
    """The truth, in memory."""

    def __init__(self):
        self.taken = []
        self.by_message = defaultdict(list)

    def take(self, entry: Taken) -> None:
        self.taken.append(entry)
        self.by_message[entry.message_id].append(entry)

    def of(self, message_id: str, address: str) -> list[Taken]:
        return [one for one in self.by_message.get(message_id, ())
                if one.address == address]


class Step(NamedTuple):
    """What somebody did; in capitals what was done to them."""

    time: float
    who: str
    what: str
    about: str


class History:
    """What was done, step by step, and what was found to be wrong."""

    def __init__(self):
        self.steps = []
        self.counts = Counter()
        self.violations = []

    def note(self, time: float, who: str, what: str, about: str = '') -> None:
        self.steps.append(Step(time, who, what, about))

    def violated(self, invariant: str, detail: str) -> None:
        self.violations.append(Violation(invariant, detail))

    def lines(self, whole: bool = False) -> list[str]:
        """Return the steps as text: all, or the last ones that are about
        what went wrong, and the faults between them."""
        steps = self.steps
        wrong = {id for one in self.violations
                 for id in _ID.findall(one.detail)}
        if not whole and wrong:
            steps = [step for step in steps if step.what.isupper()
                     or not wrong.isdisjoint(_ID.findall(step.about))]
        return [f'{one.time:10.3f}  {one.who:<10} {one.what} {one.about}'
                for one in (steps if whole else steps[-KEPT:])]
