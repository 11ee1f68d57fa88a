"""What the simulated providers took, and every request they saw.

Times are seconds since the epoch, UTC. All of it may be used from any
thread.
"""

import json
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

KEPT_CONTENTS = 1000    # messages whose text and html are kept
KEPT_CALLS = 10_000     # requests that are remembered


class Ids(NamedTuple):
    """The ids that Stampman planted; '' where the message has none."""

    message: str = ''
    attempt: str = ''

    @classmethod
    def of_header(cls, value: str | None) -> 'Ids':
        """Return what `X-Stampman-Id: <message id>/<attempt id>` says."""
        message, _, attempt = (value or '').strip().partition('/')
        return cls(message, attempt)

    @classmethod
    def of_metadata(cls, pairs: dict[str, str]) -> 'Ids':
        """Return what `stampman_id` and `stampman_attempt` say."""
        return cls(str(pairs.get('stampman_id', '')),
                   str(pairs.get('stampman_attempt', '')))


@dataclass(frozen=True)
class Recipient:
    """Whom a message goes to; `kind` is `to`, `cc`, `bcc` or `envelope`,
    which is all that SMTP and a raw MIME call know."""

    email: str
    kind: str


@dataclass(frozen=True)
class Taken:
    """A message as a provider took it; `size` is in bytes on the wire.

    `text` and `html` are not part of the entry that is shown.
    """

    provider_ids: tuple[str, ...]
    sender: str
    recipients: tuple[Recipient, ...]
    subject: str = ''
    size: int = 0
    ids: Ids = Ids()
    text: str = field(default='', repr=False)
    html: str = field(default='', repr=False)


@dataclass(frozen=True)
class Entry:
    """One message that a provider took responsibility for, whether or not
    its answer arrived."""

    number: int
    provider: str
    time: float
    provider_ids: tuple[str, ...]
    stampman_id: str
    stampman_attempt: str
    sender: str
    recipients: tuple[Recipient, ...]
    subject: str
    size: int


@dataclass(frozen=True)
class Call:
    """One request: `answered` is the status, or what was done instead;
    `took` says whether a message entered the ledger by it."""

    number: int
    provider: str
    time: float
    path: str
    answered: int | str
    took: bool


class Ledger:
    """What was taken, in its order, and the latest calls.

    With a `path` each entry is appended to that file as one line of JSON,
    which has reached the operating system before `take` returns.
    """

    def __init__(self, path: str | Path | None = None, now=time.time):
        """Raises OSError where the file cannot be opened."""
        self._now = now
        self._lock = threading.Lock()
        self._file = open(path, 'a', encoding='utf-8') if path else None
        self._entries = []
        self._contents = OrderedDict()
        self._calls = deque(maxlen=KEPT_CALLS)
        self._taken = self._called = 0

    def take(self, provider: str, taken: Taken) -> Entry:
        """Write down that `provider` took a message, and return the entry.

        Call it before the answer: from here on the message is taken.
        """
        with self._lock:
            self._taken += 1
            entry = Entry(
                self._taken, provider, self._now(), taken.provider_ids,
                taken.ids.message, taken.ids.attempt, taken.sender,
                taken.recipients, taken.subject, taken.size)
            if self._file:
                self._file.write(json.dumps(asdict(entry)) + '\n')
                self._file.flush()
            self._entries.append(entry)
            self._contents[entry.number] = {
                'text': taken.text, 'html': taken.html}
            if len(self._contents) > KEPT_CONTENTS:
                self._contents.popitem(last=False)
        return entry

    def call(self, provider: str, path: str, answered: int | str,
             took: bool) -> None:
        """Write down how a request was answered, or not answered."""
        with self._lock:
            self._called += 1
            self._calls.append(Call(self._called, provider, self._now(),
                                    path, answered, took))

    def entries(self, provider: str | None = None) -> Sequence[Entry]:
        """Return what was taken, by one provider or by all."""
        with self._lock:
            return [entry for entry in self._entries
                    if provider in (None, entry.provider)]

    def calls(self, provider: str | None = None) -> Sequence[Call]:
        """Return the latest calls, of one provider or of all."""
        with self._lock:
            return [call for call in self._calls
                    if provider in (None, call.provider)]

    def content(self, number: int) -> dict[str, str] | None:
        """Return `text` and `html` of an entry; None where they are not
        kept any more."""
        with self._lock:
            return self._contents.get(number)

    def clear(self) -> None:
        """Forget entries and calls; a file stays as it is, and numbers go
        on."""
        with self._lock:
            self._entries.clear()
            self._contents.clear()
            self._calls.clear()

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()
