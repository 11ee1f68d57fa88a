"""The contract of an email service, and the shared half of those over HTTP.

A provider's file holds one subclass with the provider's facts: `Settings`,
`capabilities`, `build` (an email as the provider's request), `rules` (its
error table), `accepted` (its proof of acceptance) and the two halves of its
probe. All else is here.
"""

import functools
import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple
from urllib.parse import urlsplit

from pydantic import SecretStr

from stampman.helpers import masking
from stampman.helpers.config import ServiceSettings
from stampman.helpers.delivery import MAX_REASON, Clock, Kind, Outcome
from stampman.helpers.mail import Email
from stampman.services._capabilities import Capabilities, over, to_json
from stampman.services._context import (
    CannotCarry, NoCredentials, SendContext)
from stampman.services._evidence import Evidence
from stampman.services._rules import (
    ALERT, DOMAIN_ONLY, FALLBACK, THROTTLED, Rule, rule_for)
from stampman.services.transport import (
    Answer, Fault, Request, Stage, Transport)

__all__ = [
    'ALERT', 'DOMAIN_ONLY', 'FALLBACK', 'THROTTLED', 'AbstractEmailService',
    'CannotCarry', 'Capabilities', 'Evidence', 'HttpEmailService',
    'NoCredentials', 'ProbeResult', 'Rule', 'SendContext', 'all_of', 'over',
    'rule_for', 'to_json']

# A large email takes longer: seconds a call gets for each byte above 256 KiB.
SECONDS_PER_BYTE = 1 / 250_000
FREE_BYTES = 262_144
MAX_ID = 255            # characters of a provider's message id
# Seconds. Who tells us to wait longer does not speak of our pace any more:
# a quota is used up.
LONGEST_THROTTLE = 600


class ProbeResult(NamedTuple):
    """What a provider says of our credentials.

    `ok` is None where it cannot be known without sending. `domain_only`:
    what speaks against us is the sender's domain, not the account.
    """

    ok: bool | None
    detail: str
    domain_only: bool = False


def all_of(*parts: ProbeResult) -> ProbeResult:
    """Return what the parts of a probe come to: all that speaks against
    us, else the first one's word with the details of all."""
    against = [part for part in parts if part.ok is False]
    return ProbeResult(
        False if against else parts[0].ok,
        '; '.join(part.detail for part in against or parts),
        bool(against) and all(part.domain_only for part in against))


class AbstractEmailService(ABC):
    """One configured provider in a pool.

    `name` is the service's in its pool, `account` (provider, base URL and
    credential, hashed) what its health belongs to.
    """

    provider: ClassVar[str] = ''
    Settings: ClassVar[type[ServiceSettings]] = ServiceSettings
    capabilities: ClassVar[Capabilities] = Capabilities()
    evidence: ClassVar[Evidence] = Evidence()
    # Seconds for which an answer is waited for beyond `seconds_for`, where
    # there is time.
    patience: ClassVar[float] = 0.0

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

    def look_up(self, context: SendContext) -> Outcome | None:
        """Return what the provider knows of an earlier attempt, by
        `context.deadline`; None where it proves nothing.

        Asked only of services whose `evidence` says so. What is merely not
        found is no proof: an index may lag behind.
        """
        return None

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
        return self._set_secrets

    @functools.cached_property
    def _set_secrets(self):
        """They are asked for at every send, and settings do not change."""
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

    def objection(self, email: Email, context: SendContext) -> str:
        """Return what of `email` this provider cannot carry, or ''."""
        return self.capabilities.objection(email, context)

    def masked(self, words: str, email: Email | None = None) -> str:
        """Return a provider's words on one line, without secrets, addresses
        and what it echoes of `email`."""
        hidden = (*self.secrets, *(_content(email) if email else ()))
        words = masking.redact(masking.one_line(words), hidden)
        return masking.mask_addresses(words)

    def shown_id(self, proof: str) -> str:
        """Return a provider's message id as it is kept: on one line, not
        endless, and nothing that we told it in confidence."""
        return masking.redact(
            masking.one_line(proof), self.secrets)[:MAX_ID]

    def seconds_for(self, email: Email) -> float:
        """Return how long one call may take for `email`, in seconds."""
        size = sum(len(part.content) for part in email.attachments)
        size += len(email.content or '') + len(email.html or '')
        return self.settings.timeout + max(
            0, size - FREE_BYTES) * SECONDS_PER_BYTE


class HttpEmailService(AbstractEmailService):
    """A provider spoken to over HTTP: one request, one answer."""

    rules: ClassVar[tuple[Rule, ...]] = ()
    # How many of the probes must be answered; None: all. What the later
    # ones would tell is just not known without an answer.
    needed_probes: ClassVar[int | None] = None
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
    def build_probes(self) -> Sequence[Request]:
        """Return requests that only read, and tell whether we may send."""

    @abstractmethod
    def interpret_probe(self, *answers: Answer | None) -> ProbeResult:
        """Return what the answers to the probes, in their order, say of our
        credentials, and of this domain. None is a later one than
        `needed_probes` that was not answered."""

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
        except NoCredentials as error:
            return Outcome(kind=error.kind, reason=str(error), alert=True)
        if too_large := over(
                len(request.body), self.capabilities.max_request, 'bytes'):
            return Outcome(kind=Kind.unsupported,
                           reason=f'the whole email: {too_large}')
        answer = self.transport.call(request, context.deadline)
        if isinstance(answer, Fault):
            return self._of_fault(answer)
        return self.interpret(answer, email, context)

    def interpret(self, answer: Answer, email: Email,
                  context: SendContext) -> Outcome:
        """Return what a whole answer to `email` means.

        The proof is looked for first, then the provider's words, and only
        then the status alone. A provider that answers for each recipient
        finds that first, and leaves the rest to this.
        """
        if 200 <= answer.status < 300 and (proof := self.accepted(answer)):
            return Outcome(kind=Kind.accepted, http_status=answer.status,
                           provider_message_id=self.shown_id(proof))
        words = self.words(answer)
        rule = rule_for(answer.status, words, self.rules, FALLBACK)
        wait = self.retry_after(answer) if rule.kind is Kind.deferred else None
        if wait and wait > LONGEST_THROTTLE and rule.flags.get('throttled'):
            rule, wait = self.quota_used_up, None
        return Outcome(
            kind=rule.kind, http_status=answer.status,
            reason=self._told(answer.status, rule.note, words, email),
            code=self.masked(self.code(answer), email)[:MAX_REASON],
            retry_after=None if wait is None else max(1.0, wait),
            **rule.flags)

    def probe(self):
        deadline = self.clock.monotonic() + self.settings.timeout
        try:
            answers = []
            for request in self.build_probes():
                answer = self.transport.call(request, deadline)
                if isinstance(answer, Fault):
                    if len(answers) < (self.needed_probes or math.inf):
                        return ProbeResult(False, self.masked(answer.reason))
                    answer = None
                answers.append(answer)
        except NoCredentials as error:
            return ProbeResult(False, str(error))
        return self.interpret_probe(*answers)

    def refuses(self, answer: Answer, note: str = '') -> ProbeResult:
        """Return that the probe's answer speaks against us, in its words;
        one that only slows us down tells nothing of us."""
        words = self.words(answer)
        rule = rule_for(answer.status, words, self.rules, FALLBACK)
        if rule.flags.get('throttled'):
            return ProbeResult(None, 'cannot be known now: too many requests')
        return ProbeResult(False, self._told(answer.status, note, words))

    def _of_fault(self, fault):
        """What is not written whole is surely not taken."""
        taken = fault.stage is not Stage.nothing
        return Outcome(
            kind=Kind.uncertain if taken else Kind.deferred,
            reason=self.masked(fault.reason), alert=fault.alert)

    def _told(self, status, note, words, email=None):
        parts = (f'HTTP {status}', note, self.masked(words, email))
        return ': '.join(filter(None, parts))[:MAX_REASON]


def _content(email):
    """Every string of an email that is nobody's but its reader's."""
    yield from (email.from_name, email.subject, email.content or '',
                email.html or '')
    yield from (a.name for a in email.everyone + email.reply_to)
    yield from (a.filename for a in email.attachments)
    yield from email.headers.values()
    yield from email.metadata.values()
    yield from email.tags
