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
| `quota` | | the quota is used up, for who sends and who asks |
| `scope` | | the key lacks what sending needs; not Mailgun, SMTP |

`quota` and `scope` are how things stand until they are switched off: they
have no `percent`, `times`, `on` or `took`.
"""

import fnmatch
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from stampman.simulator._fault_values import (
    WrongFault, boolean, header_fields, none, number, one_of, optional, text,
    url)

PROVIDERS = ('sendgrid', 'mailgun', 'amazon_ses', 'mandrill',
             'smtp')
CLASSES = ('AUTH', 'ACCOUNT', 'RATE_LIMIT', 'UNAVAILABLE', 'RECIPIENT',
           'SUPPRESSED', 'SENDER', 'CONTENT', 'PAYLOAD', 'TOO_LARGE')
OF_AN_EMAIL = ('RECIPIENT', 'SUPPRESSED', 'SENDER', 'CONTENT')
TELL_SUPPRESSED = ('mandrill', 'smtp')     # when it is sent
WITH_SCOPES = ('sendgrid', 'amazon_ses', 'mandrill')
STAGES = ('connect', 'ehlo', 'auth', 'mail', 'rcpt', 'data', 'dot')
BEFORE_SENDING = STAGES[:3]     # a probe goes no further
# Where SMTP does what it is not told a stage for; all else at `dot`.
USUAL_STAGES = {
    'AUTH': 'auth', 'ACCOUNT': 'mail', 'RATE_LIMIT': 'mail',
    'UNAVAILABLE': 'mail', 'RECIPIENT': 'rcpt', 'SUPPRESSED': 'rcpt',
    'SENDER': 'mail', 'PAYLOAD': 'mail', 'reject': 'rcpt', 'defer': 'rcpt',
    'rate_limit': 'mail'}
LONGEST = 3600.0        # seconds
LARGEST = 1_000_000_000     # bytes of a huge answer


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

    @property
    def smtp_stage(self) -> str:
        """Where SMTP does it."""
        if self.what == 'reset' and not self.took:
            return self.stage or 'mail'
        return self.stage or USUAL_STAGES.get(
            self.value if self.what == 'error' else self.what, 'dot')

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
    if rule.what in STATES:
        if told := sorted(set(fields) - {'provider', 'what', 'value'}):
            raise WrongFault(f'{rule.what!r} cannot be told {told[0]!r}')
        rule = replace(rule, on='any')
    if wrong := next((why for is_so, why in _objections(rule) if is_so), ''):
        raise WrongFault(wrong)
    return rule


def _took(what, kind, value, fields):
    if kind.took is not None:
        if 'took' in fields:
            raise WrongFault(f'{what!r} cannot be told "took"')
        return kind.took
    if what == 'reset':
        took = value == 'after'
        if 'took' in fields and boolean('took', fields['took']) != took:
            raise WrongFault(f'a reset {value!r} cannot be told this "took"')
        return took
    return boolean('took', fields.get('took', False))


def _objections(rule):
    """Yield (whether it is so, what is wrong with that)."""
    provider, what, of_smtp = rule.provider, rule.what, rule.provider == 'smtp'
    may_be_smtp = provider in ('smtp', '*')
    yield rule.stage and not may_be_smtp, f'{provider!r} has no stages'
    yield (what == 'defer' and not may_be_smtp,
           f'{provider!r} does not defer one recipient')
    yield (provider != '*' and not rule.can_be_said_by(provider),
           f'{provider!r} takes suppressed recipients, and tells later: it '
           f'has no error {rule.value!r}')
    yield (what == 'scope' and provider not in ('*', *WITH_SCOPES),
           f'{provider!r} has no keys with scopes')
    yield (what in HTTP_ONLY and of_smtp,
           f'{what!r} is nothing that smtp can do')
    yield ((rule.body or rule.headers) and what != 'status',
           f'{what!r} has no "body" and no "headers"')
    yield (what in PATTERNS and rule.on != 'send',
           f'{what!r} is about sending only')
    yield (what in PATTERNS and rule.stage not in (None, 'rcpt'),
           f'{what!r} is at the stage "rcpt" only')
    yield (rule.on == 'probe' and rule.value in OF_AN_EMAIL,
           f'{rule.value!r} is about an email, and a probe has none')
    yield (of_smtp and rule.on == 'probe'
           and rule.smtp_stage not in BEFORE_SENDING,
           f'a probe of smtp does not come by {rule.smtp_stage!r}: say '
           f'"stage", one of {", ".join(BEFORE_SENDING)}')
    yield (of_smtp and rule.took and WHATS[what].took is None
           and rule.smtp_stage != 'dot',
           'smtp takes a message at the stage "dot" only')


class What(NamedTuple):
    """How the value of a fault is read, and whether the message is taken;
    None where a rule may say so."""

    read: Callable[[str, Any], Any]
    took: bool | None


WHATS = {
    'status': What(number(100, 599, whole=True), None),
    'error': What(one_of(*CLASSES), False),
    'hang': What(optional(number(0, LONGEST)), None),
    'slow': What(number(0, LONGEST), True),
    'drip': What(number(0, LONGEST), True),
    'reset': What(one_of('before', 'after'), None),
    'close': What(none, None),
    'garbage': What(none, None),
    'reject': What(text, True),
    'defer': What(text, True),
    'rate_limit': What(number(0, 1_000_000, whole=True), False),
    'redirect': What(url, None),
    'huge': What(number(1, LARGEST, whole=True), True),
    'endless': What(none, True),
    'truncated': What(optional(number(0, LARGEST, whole=True)), True),
    'quota': What(none, False),
    'scope': What(none, False),
}
PATTERNS = ('reject', 'defer')
STATES = ('quota', 'scope')     # how things stand: no request uses them up
HTTP_ONLY = ('redirect', 'huge', 'endless', 'truncated')
READERS = {
    'provider': one_of('*', *PROVIDERS),
    'what': one_of(*WHATS),
    'percent': number(0, 100),
    'times': optional(number(1, 1_000_000_000, whole=True)),
    'on': one_of('send', 'probe', 'any'),
    'stage': optional(one_of(*STAGES)),
    'body': text,
    'headers': header_fields,
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
                         and rule.what not in STATES
                         and rule.can_be_said_by(provider)
                         and applies(rule) and self._happens(rule)), None)

    def is_on(self, provider: str, state: str) -> bool:
        """Whether `quota` or `scope` is on for `provider`."""
        with self._lock:
            return any(rule.what == state and rule.provider in (
                '*', provider) for rule in self._rules)

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
