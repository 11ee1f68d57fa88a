"""Any SMTP server, by submission (RFC 6409).

A service needs a `host`. `tls` is how the connection is secured: `starttls`
(port 587, the default), `tls` (465), or `none` (25), for a relay nearby;
`port` says otherwise. `username` and `password` go together, and never over
a network in the clear. `vendor` names the company behind the server, where
its own headers shall tell it of tags, metadata and tracking. Logins are
PLAIN, LOGIN and CRAM-MD5.

A server takes an email with its 250 after the final dot; no reply there may
mean either. Each recipient has a reply of its own; those that are too many
at once get a transaction of their own. SMTP keeps no key against a second
copy, and reports nothing later.
"""

import base64
import ipaddress
import re
from typing import Annotated, Literal

from pydantic import (
    AfterValidator, Field, StrictStr, field_validator, model_validator)

from stampman.helpers.config import (
    Secret, ServiceSettings, Whole, domain_name)
from stampman.helpers.delivery import MAX_REASON, Kind, Outcome
from stampman.helpers.mail import Email
from stampman.services._smtp import (
    Conversation, Refused, Reply, Server, Unfit)
from stampman.services._smtp_delivery import Delivery, Fate
from stampman.services._smtp_kept import Connections
from stampman.services._smtp_rules import Step, rule_at
from stampman.services._smtp_vendors import VENDORS
from stampman.services._wire import Trouble
from stampman.services.base import (
    ALERT, AbstractEmailService, CannotCarry, ProbeResult, Rule)
from stampman.services.transport import Stage, means_of

SECONDS_PER_RECIPIENT = 0.2
PORTS = {'starttls': 587, 'tls': 465, 'none': 25}


def host_name(text: str) -> str:
    """Return a host's name or address; ValueError if it is neither."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        if re.fullmatch('[A-Za-z0-9-]{1,63}', text):
            return text.lower()     # `localhost`, or of one's own network
        return domain_name(text)


class Settings(ServiceSettings):
    """What an SMTP service can be told."""

    host: Annotated[StrictStr, AfterValidator(host_name)]
    port: Annotated[Whole, Field(ge=1, le=65_535)] | None = None
    username: Annotated[StrictStr, Field(min_length=1)] | None = None
    password: Secret | None = None
    tls: Literal['starttls', 'tls', 'none'] = 'starttls'
    vendor: Literal['sendgrid', 'mailgun', 'amazon_ses', 'mandrill',
                    'postmark'] | None = None

    @field_validator('base_url', 'proxy', mode='before')
    @classmethod
    def _does_not_apply(cls, value):
        raise ValueError('does not apply here: SMTP has "host" and "port", '
                         'and knows no proxy')

    @field_validator('username', 'password')
    @classmethod
    def _no_null(cls, value):
        """RFC 4616 puts one between the two."""
        text = value if isinstance(value, str) else value.get_secret_value()
        if '\0' in text:
            raise ValueError('must not contain U+0000')
        return value

    @model_validator(mode='after')
    def _login_is_whole_and_safe(self):
        if (self.username is None) != (self.password is None):
            raise ValueError('needs both "username" and "password", or '
                             'neither')
        if self.username and self.tls == 'none' and not self._is_near():
            raise ValueError('with "tls": "none" a password may go to this '
                             'machine only')
        return self

    def _is_near(self):
        if self.host == 'localhost':
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class SmtpEmailService(AbstractEmailService):
    """One account at one SMTP server."""

    provider = 'smtp'
    Settings = Settings
    capabilities = VENDORS[None].capabilities
    patience = 60.0

    def __init__(self, name, settings, domain, clock, **means):
        """`means` are those of `means_of`: whom to trust, and limits."""
        super().__init__(name, settings, domain, clock)
        self.capabilities = VENDORS[settings.vendor].capabilities
        self.connections = Connections(
            Server(settings.host, self.port, settings.tls,
                   settings.username or '', self._password, domain),
            lambda: means_of(clock, **means))

    @property
    def port(self) -> int:
        return self.settings.port or PORTS[self.settings.tls]

    @property
    def base_url(self):
        host = self.settings.host
        return f'smtp://{f"[{host}]" if ":" in host else host}:{self.port}'

    @property
    def secrets(self):
        """The password also as the logins carry it."""
        if not self._password:
            return super().secrets
        carried = (self._password, self.settings.username,
                   f'\0{self.settings.username}\0{self._password}')
        return (*super().secrets, *(
            base64.b64encode(text.encode()).decode() for text in carried))

    def credential(self):
        return f'{self.settings.username or ""} {self._password}'

    def seconds_for(self, email):
        """Each recipient is a question of its own."""
        return (super().seconds_for(email)
                + SECONDS_PER_RECIPIENT * (len(email.everyone) - 1))

    def send_email(self, email, context):
        if objection := self.objection(email, context):
            return Outcome(kind=Kind.unsupported, reason=objection)
        try:
            return Delivery(self, email, context).outcome()
        except CannotCarry as error:
            return Outcome(kind=Kind.unsupported, reason=str(error))

    def probe(self):
        """Ask for all that a message needs, up to its sender."""
        until = self.clock.monotonic() + self.settings.timeout
        conversation = self.connections.fresh(until)
        try:
            conversation.open()
            sender = f'postmaster@{self.domain}'
            for step, command in (
                    (Step.mail, f'MAIL FROM:<{sender}>'),
                    (Step.rset, 'RSET'), (Step.noop, 'NOOP')):
                reply = conversation.ask(step, command)
                if reply.code != 250:
                    raise Refused(step, reply)
            conversation.putcmd('QUIT')
        except (OSError, Refused, Unfit) as error:
            fate = self.fate_of(error, conversation)
            is_for_now = (isinstance(error, Refused)
                          and fate.rule.kind is Kind.deferred)
            return ProbeResult(
                None if is_for_now else False, fate.reason,
                fate.rule.flags.get('domain_only', False))
        finally:
            conversation.drop()
        return ProbeResult(True, f'{self.settings.host} would take mail from '
                           f'{self.domain}')

    def fate_of(self, error: Exception, conversation: Conversation,
                email: Email | None = None) -> Fate:
        """Return what the end of a conversation means for those of whom
        nothing is known yet."""
        if isinstance(error, Refused):
            return self.fate_by(error.step, error.reply, email)
        if isinstance(error, Unfit):
            return Fate(Rule(Kind.refused, flags=ALERT), str(error))
        taken = conversation.stage is not Stage.nothing
        return Fate(
            Rule(Kind.uncertain if taken else Kind.deferred,
                 flags={'alert': getattr(error, 'alert', False)}),
            self.masked(_why(error, conversation.step)))

    def fate_by(self, step: Step, reply: Reply,
                email: Email | None) -> Fate:
        """Return what `reply` means at `step`."""
        words = self.masked(reply.text, email)
        rule = rule_at(step, reply.code, words)
        parts = (f'{step}: {reply.code}', rule.note, words)
        return Fate(rule, ': '.join(filter(None, parts))[:MAX_REASON],
                    reply.enhanced or str(reply.code))

    @property
    def _password(self):
        password = self.settings.password
        return password.get_secret_value() if password else ''


def _why(error, step):
    """Say it without what the server or the message said."""
    if isinstance(error, TimeoutError):
        return f'{step}: no reply in time'
    told = (str(error) if isinstance(error, Trouble) else
            f'the connection broke: {error.strerror}')
    return told if step is Step.connect else f'{step}: {told}'
