"""The contract of an email service, and the shared half of those over HTTP.

A provider's file holds one subclass with the provider's facts: `Settings`,
`capabilities`, `build` (an email as the provider's request), `rules` (its
error table), `accepted` (its proof of acceptance) and the two halves of its
probe. All else is here.
"""

import functools
import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlsplit

from pydantic import SecretStr

from stampman.helpers import masking
from stampman.helpers.config import ServiceSettings
from stampman.helpers.delivery import Clock, Kind, Outcome
from stampman.helpers.mail import Email
from stampman.services.transport import (
    Answer, Fault, Request, Stage, Transport)

# A large email takes longer: seconds a call gets for each byte above 256 KiB.
SECONDS_PER_BYTE = 1 / 250_000
FREE_BYTES = 262_144
MAX_REASON = 300        # characters of a provider's words that we keep
MAX_ID = 255            # characters of a provider's message id
# Seconds. Who tells us to wait longer does not speak of our pace any more:
# a quota is used up.
LONGEST_THROTTLE = 600


class CannotCarry(ValueError):
    """Raised by `build` where only building shows that an email will not do.

    Its text is an outcome's reason: no address, no part of the email.
    """


class SendContext(NamedTuple):
    """What one delivery is about, beside the email.

    `deadline`, in seconds of the monotonic clock, is when the call must be
    over; a call that has not written its first byte by then writes none.
    """

    message_id: str
    attempt_id: str
    deadline: float

    @property
    def metadata(self) -> dict[str, str]:
        """Our ids, for the provider's metadata: its events bring them."""
        return {'stampman_id': self.message_id,
                'stampman_attempt': self.attempt_id}

    @property
    def headers(self) -> dict[str, str]:
        """Our ids, for the email's own headers."""
        return {'X-Stampman-Id': f'{self.message_id}/{self.attempt_id}'}


class ProbeResult(NamedTuple):
    """What a provider says of our credentials.

    `ok` is None where it cannot be known without sending.
    """

    ok: bool | None
    detail: str


@dataclass(frozen=True)
class Capabilities:
    """What a provider can carry; what it cannot makes it `unsupported`.

    Sizes are in bytes. `max_request` is the size of the provider's request
    as built; the others are counted on the email, `max_metadata` as JSON
    and with our own ids.
    """

    max_request: int | None = None
    max_recipients: int | None = None
    max_tags: int | None = None
    max_tag_length: int | None = None
    max_metadata: int | None = None
    ascii_tags: bool = False
    smtputf8: bool = False
    needs_to: bool = False
    needs_subject: bool = False
    needs_plain_types: bool = False

    def objection(self, email: Email, context: SendContext) -> str:
        """Return what in `email` cannot be carried, by field, or ''."""
        return next((f'{name}: {text}' for name, text in
                     self._objections(email, context) if text), '')

    def _objections(self, email, context):
        yield 'recipients', over(
            len(email.everyone), self.max_recipients, 'recipients')
        yield 'recipients', (
            self.needs_to and not email.recipients
            and 'at least one To is needed beside Cc and Bcc')
        yield 'subject', (self.needs_subject and not email.subject
                          and 'a subject is needed')
        if not self.smtputf8:
            for name, addresses in (
                    ('from_email', (email.sender,)),
                    ('recipients', email.recipients), ('cc', email.cc),
                    ('bcc', email.bcc), ('reply_to', email.reply_to)):
                yield name, (not all(a.is_ascii for a in addresses) and
                             'an address needs SMTPUTF8 (RFC 6531)')
        yield 'tags', over(len(email.tags), self.max_tags, 'tags')
        yield 'tags', over(max(map(len, email.tags), default=0),
                           self.max_tag_length, 'characters in a tag')
        yield 'tags', (self.ascii_tags and not ''.join(email.tags).isascii()
                       and 'only ASCII is carried')
        yield 'metadata', over(
            len(to_json({**email.metadata, **context.metadata})),
            self.max_metadata, 'bytes of metadata')
        for number, part in enumerate(email.attachments):
            yield f'attachments[{number}].content_type', (
                self.needs_plain_types and ';' in part.content_type
                and 'parameters are not carried')


def over(count: int, most: int | None, what: str) -> str:
    """Return what to say where `count` is over the limit `most`, else ''."""
    if most is None or count <= most:
        return ''
    return f'at most {most} {what} are carried, not {count}'


def to_json(value: Any) -> bytes:
    """Return `value` as compact JSON in UTF-8, as providers count it."""
    return json.dumps(
        value, ensure_ascii=False, separators=(',', ':')).encode()


class AbstractEmailService(ABC):
    """One configured provider in a pool.

    `name` is the service's in its pool, `account` (provider, base URL and
    credential, hashed) what its health belongs to.
    """

    provider: ClassVar[str] = ''
    Settings: ClassVar[type[ServiceSettings]] = ServiceSettings
    capabilities: ClassVar[Capabilities] = Capabilities()

    def __init__(self, name: str, settings: ServiceSettings, domain: str,
                 clock: Clock):
        """`domain` is the pool's; `settings` an instance of `Settings`."""
        self.name = name
        self.settings = settings
        self.domain = domain
        self.clock = clock

    @abstractmethod
    def send_email(self, email: Email, context: SendContext) -> Outcome:
        """Deliver `email` once, by `context.deadline`, and say how it went.

        What the provider answers is a value, never an exception.
        """

    @abstractmethod
    def probe(self) -> ProbeResult:
        """Ask, without sending, whether the provider would serve us."""

    def credential(self) -> str:
        """Return what tells this account from another of the provider."""
        return ''

    @property
    def base_url(self) -> str:
        """Where this account is spoken to; without a last slash."""
        return self.settings.base_url or ''

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be shown of the settings, in any spelling."""
        proxy = urlsplit(self.settings.proxy or '').password
        return (proxy or '', *(
            value.get_secret_value() for _, value in self.settings
            if isinstance(value, SecretStr)))

    @functools.cached_property
    def account(self) -> str:
        """The key of this account's health; holds no secret."""
        identity = f'{self.base_url} {self.credential()}'
        digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
        return f'{self.provider}:{digest}'

    def seconds_for(self, email: Email) -> float:
        """Return how long one call may take for `email`, in seconds."""
        size = sum(len(part.content) for part in email.attachments)
        size += len(email.content or '') + len(email.html or '')
        return self.settings.timeout + max(
            0, size - FREE_BYTES) * SECONDS_PER_BYTE


class Rule(NamedTuple):
    """One line of a provider's error table: the first that fits decides.

    `statuses` are HTTP statuses, `pattern` is searched in the provider's
    words without regard to case; what is not given fits everything. `flags`
    are fields of the `Outcome`, `note` tells people what it comes to.
    """

    kind: Kind
    statuses: tuple[int, ...] = ()
    pattern: str = ''
    flags: Mapping[str, Any] = {}
    note: str = ''

    def fits(self, status: int, words: str) -> bool:
        return ((not self.statuses or status in self.statuses)
                and re.search(self.pattern, words,
                              re.IGNORECASE | re.DOTALL) is not None)


ALERT = {'alert': True}
THROTTLED = {'throttled': True}
DOMAIN_ONLY = {'alert': True, 'domain_only': True}
# What a status means where the provider's sheet does not say better. A
# status that is not proved safe here or there is `uncertain`.
FALLBACK = (
    Rule(Kind.uncertain, tuple(range(200, 300)), flags=ALERT,
         note='a success without the provider\'s message id'),
    Rule(Kind.refused, tuple(range(300, 400)), flags=ALERT,
         note='a redirect is not followed'),
    Rule(Kind.refused, (401, 402, 403, 404, 405, 406, 407, 415, 420, 451),
         flags=ALERT),
    Rule(Kind.deferred, (425, 429), flags=THROTTLED),
    Rule(Kind.deferred, (421, 500, 503)),
    Rule(Kind.unsupported, (413,)),
    Rule(Kind.uncertain, (408, 502, 504)),
    Rule(Kind.unsupported, tuple(range(400, 500)), flags=ALERT),
    Rule(Kind.uncertain),
)


class HttpEmailService(AbstractEmailService):
    """A provider spoken to over HTTP: one request, one answer."""

    rules: ClassVar[tuple[Rule, ...]] = ()
    # What a throttle of more than LONGEST_THROTTLE comes to.
    quota_used_up: ClassVar[Rule] = Rule(
        Kind.refused, flags=ALERT, note='the quota is used up')

    def __init__(self, name, settings, domain, clock):
        super().__init__(name, settings, domain, clock)
        self.transport = Transport(clock, proxy=settings.proxy)

    @abstractmethod
    def build(self, email: Email, context: SendContext) -> Request:
        """Return the provider's request that carries `email` whole.

        Raises CannotCarry where it cannot be built.
        """

    @abstractmethod
    def accepted(self, answer: Answer) -> str | None:
        """Return the provider's message id where a 2xx `answer` proves that
        it took the email, else None."""

    @abstractmethod
    def build_probe(self) -> Request:
        """Return a request that only reads, and tells whether we may send."""

    @abstractmethod
    def interpret_probe(self, answer: Answer) -> ProbeResult:
        """Return what the answer to the probe says of our credentials."""

    def objection(self, email: Email, context: SendContext) -> str:
        """Return what of `email` this provider cannot carry, or ''."""
        return self.capabilities.objection(email, context)

    def words(self, answer: Answer) -> str:
        """Return the provider's own words, which `rules` search."""
        return answer.text

    def code(self, answer: Answer) -> str:
        """Return the provider's own word for an error, or ''."""
        return ''

    def retry_after(self, answer: Answer) -> float | None:
        """Return when to try again, in seconds, where the answer says so."""
        return answer.retry_after

    def send_email(self, email, context):
        if objection := self.objection(email, context):
            return Outcome(kind=Kind.unsupported, reason=objection)
        try:
            request = self.build(email, context)
        except CannotCarry as error:
            return Outcome(kind=Kind.unsupported, reason=str(error))
        if too_large := over(
                len(request.body), self.capabilities.max_request, 'bytes'):
            return Outcome(kind=Kind.unsupported,
                           reason=f'the whole email: {too_large}')
        answer = self.transport.call(request, context.deadline)
        if isinstance(answer, Fault):
            return self._of_fault(answer)
        return self.interpret(answer, email)

    def interpret(self, answer: Answer, email: Email) -> Outcome:
        """Return what a whole answer to `email` means.

        The proof is looked for first, then the provider's words, and only
        then the status alone.
        """
        if 200 <= answer.status < 300 and (proof := self.accepted(answer)):
            return Outcome(kind=Kind.accepted, http_status=answer.status,
                           provider_message_id=masking.one_line(
                               proof)[:MAX_ID])
        words = self.words(answer)
        rule = next(rule for rule in (*self.rules, *FALLBACK)
                    if rule.fits(answer.status, words))
        wait = self.retry_after(answer) if rule.kind is Kind.deferred else None
        if wait and wait > LONGEST_THROTTLE and rule.flags.get('throttled'):
            rule, wait = self.quota_used_up, None
        return Outcome(
            kind=rule.kind, http_status=answer.status,
            reason=self._told(answer.status, rule.note, words, email),
            code=self._masked(self.code(answer), email)[:MAX_REASON],
            retry_after=None if wait is None else max(1.0, wait),
            **rule.flags)

    def probe(self):
        deadline = self.clock.monotonic() + self.settings.timeout
        answer = self.transport.call(self.build_probe(), deadline)
        if isinstance(answer, Fault):
            return ProbeResult(False, self._masked(answer.reason))
        return self.interpret_probe(answer)

    def refuses(self, answer: Answer, note: str = '') -> ProbeResult:
        """Return that the probe's answer speaks against us, in its words."""
        return ProbeResult(
            False, self._told(answer.status, note, self.words(answer)))

    def _of_fault(self, fault):
        """What is not written whole is surely not taken."""
        taken = fault.stage is not Stage.nothing
        return Outcome(
            kind=Kind.uncertain if taken else Kind.deferred,
            reason=self._masked(fault.reason), alert=fault.alert)

    def _told(self, status, note, words, email=None):
        parts = (f'HTTP {status}', note, self._masked(words, email))
        return ': '.join(filter(None, parts))[:MAX_REASON]

    def _masked(self, words, email=None):
        """A provider may echo what we sent: keys, addresses, content."""
        hidden = (*self.secrets, *(_content(email) if email else ()))
        words = masking.redact(masking.one_line(words), hidden)
        return masking.mask_addresses(words)


def _content(email):
    """Every string of an email that is nobody's but its reader's."""
    yield from (email.from_name, email.subject, email.content or '',
                email.html or '')
    yield from (a.name for a in email.everyone + email.reply_to)
    yield from (a.filename for a in email.attachments)
    yield from email.headers.values()
    yield from email.metadata.values()
    yield from email.tags
