"""What goes wrong: rules that are switched on and off while it runs.

On the command line a rule is `provider:what=value,name=value,...`, such as
`sendgrid:status=503,percent=50` or `mandrill:error=RATE_LIMIT,times=3`; as
JSON it is an object of the fields of `Rule`. `*` stands for every provider.

| what | value | what is done |
|---|---|---|
| `status` | a status | it is answered, with `body` and `headers` |
| `error` | a class | the provider's own answer for that class |
| `hang` | seconds, or none | no answer, then the end of the connection |
| `slow` | seconds | the true answer, after that time |
| `drip` | seconds a byte | the true answer, byte by byte |
| `reset` | `before`, `after` | a reset before reading, or after taking |
| `close` | | the end of the connection in the place of an answer |
| `garbage` | | bytes that are not the protocol's |
| `reject` | a pattern | recipients like `*@example.net` are refused |
| `defer` | a pattern | the same for now; SMTP only |
| `rate_limit` | a number | more requests than that a second are throttled |
| `redirect` | a URL | a redirect to it |
| `huge` | bytes | the true answer with a body of that size |
| `endless` | | the true answer with a body that does not end |
| `truncated` | bytes, or none | the true answer, cut off |
"""

import fnmatch
import math
import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

PROVIDERS = ('sendgrid', 'mailgun', 'amazon_ses', 'mandrill',
             'smtp')
CLASSES = ('AUTH', 'ACCOUNT', 'RATE_LIMIT', 'UNAVAILABLE', 'RECIPIENT',
           'SUPPRESSED', 'SENDER', 'CONTENT', 'PAYLOAD', 'TOO_LARGE')
TELL_SUPPRESSED = ('mandrill', 'smtp')     # when it is sent
STAGES = ('connect', 'ehlo', 'auth', 'mail', 'rcpt', 'data', 'dot')
LONGEST = 3600.0        # seconds
LARGEST = 1_000_000_000     # bytes of a huge answer


class WrongFault(ValueError):
    """Raised where a rule cannot be; its text says what is wrong with it."""


@dataclass(frozen=True)
class Rule:
    """One fault; `value` is what the table above says.

    `percent` of the requests meet it, `times` at most (None: no end).
    `took` says whether the message enters the ledger before the fault.
    `on` is `send`, `probe` or `any`; `stage` is where SMTP does it (None:
    where it belongs). `body` is also the text of an SMTP reply.
    """

    provider: str
    what: str
    value: Any = None
    percent: float = 100.0
    times: int | None = None
    took: bool = False
    on: str = 'send'
    stage: str | None = None
    body: str = ''
    headers: Mapping[str, str] = field(default_factory=dict)
    number: int = 0

    def matches(self, address: str) -> bool:
        """Whether a `reject` or `defer` is about this recipient."""
        return self.what in PATTERNS and fnmatch.fnmatchcase(
            address.lower(), self.value.lower())

    def can_be_said_by(self, provider: str) -> bool:
        """Whether a provider has an answer for this error."""
        return (self.value != 'SUPPRESSED' or self.what != 'error'
                or provider in TELL_SUPPRESSED)

    def shown(self) -> dict[str, Any]:
        """Return the rule as JSON has it."""
        return asdict(self)


def from_spec(spec: str) -> Rule:
    """Return the rule that a word of the command line is; raises
    WrongFault."""
    provider, colon, rest = spec.partition(':')
    first, *more = rest.split(',')
    what, has_value, value = first.partition('=')
    if not colon or not what:
        raise WrongFault(f'{spec!r} is not like '
                         '"sendgrid:status=503,percent=50"')
    fields = {'provider': provider.strip(), 'what': what.strip()}
    if has_value:
        fields['value'] = value.strip()
    for item in more:
        name, equals, value = (part.strip() for part in item.partition('='))
        if not equals:
            raise WrongFault(f'{item!r} is not like "name=value"')
        if name.startswith('header.'):
            fields.setdefault('headers', {})[name[7:]] = value
        elif name in fields:
            raise WrongFault(f'{name!r} is given twice')
        else:
            fields[name] = value
    return from_json(fields)


def from_json(fields: Any) -> Rule:
    """Return the rule that an object of JSON is; raises WrongFault."""
    if not isinstance(fields, Mapping):
        raise WrongFault('a fault is an object')
    for name in ('provider', 'what'):
        if name not in fields:
            raise WrongFault(f'{name!r} is missing')
    if unknown := sorted(set(fields) - {*READERS, 'value', 'took'}):
        raise WrongFault(f'{unknown[0]!r} is not known; known are: '
                         f'{", ".join(READERS)}, value, took')
    read = {name: READERS[name](name, fields[name])
            for name in READERS if name in fields}
    kind = WHATS[read['what']]
    value = kind.read(f'the value of {read["what"]!r}', fields.get('value'))
    took = _took(read['what'], kind, value, fields)
    rule = Rule(**read, value=value, took=took)
    _check_provider(rule)
    return rule


def _took(what, kind, value, fields):
    if kind.took is not None:
        if 'took' in fields:
            raise WrongFault(f'{what!r} cannot be told "took"')
        return kind.took
    if what == 'reset':
        took = value == 'after'
        if 'took' in fields and _boolean('took', fields['took']) != took:
            raise WrongFault(f'a reset {value!r} cannot be told this "took"')
        return took
    return _boolean('took', fields.get('took', False))


def _check_provider(rule):
    if rule.stage and rule.provider not in ('smtp', '*'):
        raise WrongFault(f'{rule.provider!r} has no stages')
    if rule.what == 'defer' and rule.provider not in ('smtp', '*'):
        raise WrongFault(f'{rule.provider!r} does not defer one recipient')
    if not rule.provider == '*' and not rule.can_be_said_by(rule.provider):
        raise WrongFault(f'{rule.provider!r} takes suppressed recipients, '
                         f'and tells later: it has no error {rule.value!r}')
    if rule.what in HTTP_ONLY and rule.provider == 'smtp':
        raise WrongFault(f'{rule.what!r} is nothing that smtp can do')
    if (rule.body or rule.headers) and rule.what != 'status':
        raise WrongFault(f'{rule.what!r} has no "body" and no "headers"')
    if rule.what in PATTERNS and rule.on != 'send':
        raise WrongFault(f'{rule.what!r} is about sending only')


def _none(name, value):
    if value is not None:
        raise WrongFault(f'{name} must not be there')


def _number(lowest, highest, whole=False):
    kind = 'a whole number' if whole else 'a number'

    def read(name, value):
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                value = None
        if (isinstance(value, bool) or not isinstance(value, (int, float))
                or not math.isfinite(value) or whole and value % 1
                or not lowest <= value <= highest):
            raise WrongFault(
                f'{name} must be {kind} from {lowest:g} to {highest:g}')
        return int(value) if whole else float(value)
    return read


def _optional(reader):
    return lambda name, value: None if value is None else reader(name, value)


def _one_of(*words):
    def read(name, value):
        if value not in words:
            raise WrongFault(f'{name} must be one of {", ".join(words)}, '
                             f'not {value!r}')
        return value
    return read


def _text(name, value):
    if not isinstance(value, str) or not value:
        raise WrongFault(f'{name} must be a text that is not empty')
    return value


def _url(name, value):
    if not isinstance(value, str) or not re.fullmatch(
            r'https?://[!-~]+', value):
        raise WrongFault(f'{name} must be a URL')
    return value


def _boolean(name, value):
    words = {'true': True, 'false': False, True: True, False: False}
    if not isinstance(value, (str, bool)) or value not in words:
        raise WrongFault(f'{name!r} must be true or false')
    return words[value]


def _header_fields(name, value):
    if not isinstance(value, Mapping) or not all(
            isinstance(key, str) and isinstance(text, str)
            and re.fullmatch('[A-Za-z0-9-]+', key)
            and re.fullmatch('[\t -~]*', text)
            for key, text in value.items()):
        raise WrongFault(f'{name!r} must be an object of texts, each of '
                         'which can be a header')
    return dict(value)


class What(NamedTuple):
    """How the value of a fault is read, and whether the message is taken;
    None where a rule may say so."""

    read: Callable[[str, Any], Any]
    took: bool | None


WHATS = {
    'status': What(_number(100, 599, whole=True), None),
    'error': What(_one_of(*CLASSES), False),
    'hang': What(_optional(_number(0, LONGEST)), None),
    'slow': What(_number(0, LONGEST), True),
    'drip': What(_number(0, LONGEST), True),
    'reset': What(_one_of('before', 'after'), None),
    'close': What(_none, None),
    'garbage': What(_none, None),
    'reject': What(_text, True),
    'defer': What(_text, True),
    'rate_limit': What(_number(0, 1_000_000, whole=True), False),
    'redirect': What(_url, None),
    'huge': What(_number(1, LARGEST, whole=True), True),
    'endless': What(_none, True),
    'truncated': What(_optional(_number(0, LARGEST, whole=True)), True),
}
PATTERNS = ('reject', 'defer')
HTTP_ONLY = ('redirect', 'huge', 'endless', 'truncated')
READERS = {
    'provider': _one_of('*', *PROVIDERS),
    'what': _one_of(*WHATS),
    'percent': _number(0, 100),
    'times': _optional(_number(1, 1_000_000_000, whole=True)),
    'on': _one_of('send', 'probe', 'any'),
    'stage': _optional(_one_of(*STAGES)),
    'body': _text,
    'headers': _header_fields,
}


class Faults:
    """The rules that are on; the first that meets a request is done."""

    def __init__(self, rules: Sequence[Rule] = (),
                 chance: random.Random | None = None,
                 monotonic: Callable[[], float] = time.monotonic):
        self.stopping = threading.Event()
        self._chance = chance or random.Random()
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._rules, self._left, self._seen = [], {}, {}
        self._numbered = 0
        for rule in rules:
            self.add(rule)

    def add(self, rule: Rule | str) -> Rule:
        """Switch a rule on, behind the others; return it with its number.

        Raises WrongFault for a text that is no rule.
        """
        if isinstance(rule, str):
            rule = from_spec(rule)
        with self._lock:
            self._numbered += 1
            rule = replace(rule, number=self._numbered)
            self._rules.append(rule)
            self._left[rule.number] = rule.times
            self._seen[rule.number] = deque()
        return rule

    def rules(self) -> Sequence[Rule]:
        """Return the rules that are on; `times` are those that are left."""
        with self._lock:
            return [replace(rule, times=self._left[rule.number])
                    for rule in self._rules]

    def clear(self, number: int | None = None) -> int:
        """Switch one rule off, or all; return how many that were."""
        with self._lock:
            kept = [rule for rule in self._rules
                    if number not in (None, rule.number)]
            gone = len(self._rules) - len(kept)
            self._rules = kept
        return gone

    def choose(self, provider: str,
               applies: Callable[[Rule], bool]) -> Rule | None:
        """Return the first rule for `provider` of which `applies` is true
        and that chance and its times let happen; it counts as done."""
        with self._lock:
            return next((rule for rule in self._rules
                         if rule.provider in ('*', provider)
                         and rule.can_be_said_by(provider)
                         and applies(rule) and self._happens(rule)), None)

    def wait(self, seconds: float | None) -> bool:
        """Wait so long (None: for ever), or until the simulator stops;
        return whether it stops."""
        return self.stopping.wait(seconds)

    def _happens(self, rule):
        if rule.what == 'rate_limit' and not self._over(rule):
            return False
        if (rule.percent < 100
                and self._chance.random() * 100 >= rule.percent):
            return False
        left = self._left[rule.number]
        if left is not None:
            self._left[rule.number] = left - 1
            if left == 1:
                self._rules.remove(rule)
        return True

    def _over(self, rule):
        """Whether more requests came within a second than a rule allows."""
        now, seen = self._monotonic(), self._seen[rule.number]
        while seen and seen[0] <= now - 1:
            seen.popleft()
        if len(seen) >= rule.value:
            return True
        seen.append(now)
        return False
