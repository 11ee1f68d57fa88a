"""The contract of an email service, and the shared half of those over HTTP.

A provider's file holds one subclass with the provider's facts: `Settings`,
`capabilities`, `build` (an email as the provider's request), `rules` (its
error table) and `accepted` (its proof of acceptance). All else is here.
"""

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

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


class SendContext(NamedTuple):
    """What one delivery is about, beside the email.

    `deadline`, in seconds of the monotonic clock, is when the call must be
    over; a call that has not written its first byte by then writes none.
    """

    message_id: str
    attempt_id: str
    deadline: float


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
    as built; the others are counted on the email.
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
    reserved_headers: frozenset[str] = field(default=frozenset())

    def objection(self, email: Email) -> str:
        """Return what in `email` cannot be carried, by field, or ''."""
        return next((f'{name}: {text}' for name, text in
                     self._objections(email) if text), '')

    def _objections(self, email):
        everyone = email.everyone
        yield 'recipients', _over(
            len(everyone), self.max_recipients, 'recipients')
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
        yield 'tags', _over(len(email.tags), self.max_tags, 'tags')
        yield 'tags', _over(max(map(len, email.tags), default=0),
                            self.max_tag_length, 'characters in a tag')
        yield 'tags', (self.ascii_tags and not ''.join(email.tags).isascii()
                       and 'only ASCII is carried')
        yield 'metadata', _over(
            len(json.dumps(email.metadata, ensure_ascii=False).encode()),
            self.max_metadata, 'bytes of metadata')
        for header in email.headers:
            yield f'headers.{header}', (
                header.lower() in self.reserved_headers
                and 'this header is the provider\'s own')
        for number, part in enumerate(email.attachments):
            yield f'attachments[{number}].content_type', (
                self.needs_plain_types and ';' in part.content_type
                and 'parameters are not carried')


def _over(count, most, what):
    return most is not None and count > most and (
        f'at most {most} {what} are carried, not {count}')


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
    def secrets(self) -> tuple[str, ...]:
        """What must never be shown of the settings."""
        return tuple(value.get_secret_value()
                     for _, value in self.settings
                     if isinstance(value, SecretStr))

    @property
    def account(self) -> str:
        """The key of this account's health; holds no secret."""
        identity = f'{self.settings.base_url or ""} {self.credential()}'
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

    `statuses` are HTTP statuses, `pattern` is searched in the answer's
    text without regard to case; what is not given fits everything. `flags`
    are fields of the `Outcome`.
    """

    kind: Kind
    statuses: tuple[int, ...] = ()
    pattern: str = ''
    flags: Mapping[str, Any] = {}

    def fits(self, answer: Answer) -> bool:
        return ((not self.statuses or answer.status in self.statuses)
                and re.search(self.pattern, answer.text,
                              re.IGNORECASE | re.DOTALL) is not None)


_ALERT = {'alert': True}
# What a status means where the provider's sheet does not say better. A
# status that is not proved safe here or there is `uncertain`.
FALLBACK = (
    Rule(Kind.refused, (401, 402, 403, 404, 405, 406, 407, 415, 420, 451),
         flags=_ALERT),
    Rule(Kind.refused, tuple(range(300, 400)), flags=_ALERT),
    Rule(Kind.deferred, (425, 429), flags={'throttled': True}),
    Rule(Kind.deferred, (421, 500, 503)),
    Rule(Kind.unsupported, (413,)),
    Rule(Kind.uncertain, (408, 502, 504)),
    Rule(Kind.unsupported, tuple(range(400, 500)), flags=_ALERT),
    Rule(Kind.uncertain),
)


class HttpEmailService(AbstractEmailService):
    """A provider spoken to over HTTP: one request, one answer."""

    rules: ClassVar[tuple[Rule, ...]] = ()

    def __init__(self, name, settings, domain, clock):
        super().__init__(name, settings, domain, clock)
        self.transport = Transport(clock, proxy=settings.proxy)

    @abstractmethod
    def build(self, email: Email, context: SendContext) -> Request:
        """Return the provider's request that carries `email` whole."""

    @abstractmethod
    def accepted(self, answer: Answer) -> str | None:
        """Return the provider's message id where `answer` proves that it
        took the email, else None."""

    def objection(self, email: Email) -> str:
        """Return what of `email` this provider cannot carry, or ''."""
        return self.capabilities.objection(email)

    def reason(self, answer: Answer) -> str:
        """Return the provider's own words for why; may be ''."""
        return answer.text

    def retry_after(self, answer: Answer) -> float | None:
        """Return when to try again, in seconds, where the answer says so."""
        return answer.retry_after

    def send_email(self, email, context):
        if objection := self.objection(email):
            return Outcome(kind=Kind.unsupported, reason=objection)
        request = self.build(email, context)
        limit = self.capabilities.max_request
        if too_large := _over(len(request.body), limit, 'bytes'):
            return Outcome(kind=Kind.unsupported, reason=too_large)
        answer = self.transport.call(request, context.deadline)
        if isinstance(answer, Fault):
            return self._of_fault(answer)
        return self.interpret(answer)

    def interpret(self, answer: Answer) -> Outcome:
        """Return what a whole answer means; the body is read first."""
        if 200 <= answer.status < 300 and answer.complete:
            if proof := self.accepted(answer):
                return Outcome(kind=Kind.accepted,
                               http_status=answer.status,
                               provider_message_id=proof)
            return Outcome(
                kind=Kind.uncertain, http_status=answer.status, alert=True,
                reason='a success without the provider\'s message id')
        rule = next(rule for rule in (*self.rules, *FALLBACK)
                    if rule.fits(answer))
        return Outcome(
            kind=rule.kind, http_status=answer.status,
            reason=self._told(answer),
            retry_after=(self.retry_after(answer)
                         if rule.kind is Kind.deferred else None),
            **rule.flags)

    def _told(self, answer):
        words = masking.one_line(self.reason(answer)[:4 * MAX_REASON])
        words = masking.mask_addresses(masking.redact(words, self.secrets))
        return f'HTTP {answer.status}: {words}'[:MAX_REASON]

    @staticmethod
    def _of_fault(fault):
        """What is not written whole is surely not taken."""
        taken = fault.stage is not Stage.nothing
        return Outcome(
            kind=Kind.uncertain if taken else Kind.deferred,
            reason=fault.reason, alert=fault.alert)
