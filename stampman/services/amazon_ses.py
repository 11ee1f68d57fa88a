"""Amazon SES, by its API v2 with Signature V4.

A service needs a `region`, and an `access_key_id` with its
`secret_access_key`, for temporary keys also the `session_token`. Without
them AWS's own credential chain is asked: environment, shared files, role of
the machine or container. The IAM policy allows `ses:SendEmail` and
`ses:SendRawEmail`, for the probe `ses:GetAccount` and
`ses:GetEmailIdentity`. `configuration_set` is named in every email; without
one, or one of the identity's own, SES reports no events.

SES says 200 with a `MessageId`, or it has not taken the email. It keeps no
idempotency key. What its simple form cannot carry whole goes as MIME.
Metadata and tags travel as EmailTags of few characters: a value with others
goes as `b64_` and its base64url, tags are named `stampman_tag_1` and so on.
"""

import os
import re
from typing import Annotated
from urllib.parse import quote

from pydantic import AfterValidator, Field, StrictStr, field_validator

from stampman.helpers.config import Secret, ServiceSettings
from stampman.helpers.delivery import Kind
from stampman.services import _ses_payload
from stampman.services.base import (
    ALERT, DOMAIN_ONLY, FALLBACK, THROTTLED, Capabilities, HttpEmailService,
    ProbeResult, Rule, all_of, rule_for, to_json)
from stampman.services.transport import Request

SERVICE = 'ses'         # as Signature V4 knows it
# What a region's host ends in, where it is not `amazonaws.com`.
SUFFIXES = {'cn': 'amazonaws.com.cn', 'eusc': 'amazonaws.eu'}
# Keys that are not valid any more: the credential chain may have new ones.
OUTDATED = ('ExpiredToken', 'ExpiredTokenException',
            'UnrecognizedClientException', 'InvalidClientTokenId')
# A probe asks at most four questions: SES likes one in a second.
MAX_PARENTS = 2
# In which a MAIL FROM domain is not used, by SES's `BehaviorOnMxFailure`.
NOT_SET_UP = ('PENDING', 'FAILED', 'TEMPORARY_FAILURE')
BAD_ADDRESS = (
    r"Missing final '@domain'|Missing (local name|domain)\b|Illegal address"
    r'|Illegal whitespace in address|Empty address|User name is missing'
    r'|Invalid domain name|(Local address|Domain) (contains|starts|ends)\b')


def _matching(pattern, message):
    def check(text):
        if not re.fullmatch(pattern, text):
            raise ValueError(message)
        return text
    return Annotated[StrictStr, AfterValidator(check)]


def _has_ses(region):
    if '-iso' in region:
        raise ValueError(f'there is no Amazon SES in "{region}"')
    return region


Region = Annotated[
    _matching('[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}',
              'must be an AWS region like "eu-west-1"'),
    AfterValidator(_has_ses)]
KeyId = _matching('[A-Za-z0-9_]{1,128}',
                  'must be an access key id: letters and digits')
SetName = _matching('[A-Za-z0-9_-]{1,64}', 'must be the name of a '
                    'configuration set: letters, digits, "_" and "-"')


class Settings(ServiceSettings):
    """What an Amazon SES service can be told."""

    region: Region
    access_key_id: KeyId | None = None
    secret_access_key: Secret | None = Field(None, validate_default=True)
    session_token: Secret | None = None
    configuration_set: SetName | None = None

    @field_validator('secret_access_key')
    @classmethod
    def _is_one_of_a_pair(cls, secret, info):
        if 'access_key_id' in info.data and (
                (secret is None) != (info.data['access_key_id'] is None)):
            raise ValueError('belongs to "access_key_id": set both or none')
        return secret

    @field_validator('session_token')
    @classmethod
    def _is_of_a_pair(cls, token, info):
        if token is not None and info.data.get('access_key_id', '') is None:
            raise ValueError('belongs to "access_key_id": set that too')
        return token


class AmazonSesEmailService(HttpEmailService):
    """One AWS account in one region."""

    provider = 'amazon_ses'
    Settings = Settings
    needed_probes = 1
    capabilities = Capabilities(
        max_message=_ses_payload.MAX_MESSAGE, max_recipients=50,
        max_tag_length=_ses_payload.MAX_TAG, envelope=True,
        tag_words='with others than A-Z, a-z, 0-9, "_" and "-" of up to 189 '
        'bytes', metadata_words='a key of up to 256 of A-Z, a-z, 0-9, "_" '
        'and "-", a value as a tag', notes=(
            'Metadata and tags become EmailTags.',))
    # The words are `Type: message`; a type is believed whatever the status,
    # but never against a success or a redirect.
    rules = (
        *FALLBACK[:2],
        Rule(Kind.refused, (), r'^(RequestExpired|RequestTimeTooSkewed)\b|'
             r'^\w*Signature\w*: Signature (expired|not yet current)', ALERT,
             note='the clock here may be wrong'),
        Rule(Kind.refused, (), r'^ExpiredToken(Exception)?\b', ALERT,
             note='the session token has expired'),
        Rule(Kind.refused, (),
             r'^(UnrecognizedClientException|InvalidClientTokenId'
             r'|(InvalidSignature|MissingAuthenticationToken)(Exception)?'
             r'|SignatureDoesNotMatch|IncompleteSignature(Exception)?)\b',
             ALERT, note='the access key or its secret is wrong'),
        Rule(Kind.refused, (), r'^AccessDenied(Exception)?\b', ALERT,
             note='the IAM policy does not allow it'),
        Rule(Kind.deferred, (), r'^TooManyRequests(Exception)?\b', THROTTLED),
        Rule(Kind.refused, (), r'^Throttling(Exception)?\b.*daily message '
             'quota', ALERT, note='the quota of 24 hours is used up'),
        Rule(Kind.deferred, (), r'^Throttling(Exception)?\b', THROTTLED),
        Rule(Kind.refused, (), r'^(LimitExceeded|AccountSuspended'
             r'|SendingPaused)(Exception)?\b', ALERT),
        Rule(Kind.refused, (), r'^MailFromDomainNotVerified(Exception)?\b',
             DOMAIN_ONLY),
        Rule(Kind.refused, (), r'^MessageRejected\b.*not verified',
             DOMAIN_ONLY, note='the sender is not verified there, or the '
             'account is in the sandbox'),
        Rule(Kind.unsupported, (), r'^MessageRejected\b'),
        Rule(Kind.refused, (), r'^NotFoundException\b', ALERT,
             note='the setting "configuration_set" may be wrong'),
        Rule(Kind.rejected, (), rf'^BadRequestException\b.*({BAD_ADDRESS})'),
        Rule(Kind.unsupported, (), r'^BadRequestException\b', ALERT),
        Rule(Kind.unsupported, (),
             r'^RequestEntityTooLarge(Exception)?\b'),
        Rule(Kind.uncertain, (), r'^RequestTimeout(Exception)?\b'),
        Rule(Kind.deferred, (), r'^(InternalFailure|InternalServiceError'
             r'|ServiceUnavailable)(Exception)?\b'),
    )

    def __init__(self, name, settings, domain, clock):
        super().__init__(name, settings, domain, clock)
        self._from_chain = ()       # its last two keys, the newest first
        self._chains = {}

    @property
    def base_url(self):
        region = self.settings.region
        suffix = SUFFIXES.get(region.partition('-')[0], 'amazonaws.com')
        return self.settings.base_url or f'https://email.{region}.{suffix}'

    @property
    def secrets(self):
        return (*super().secrets, *(
            secret for keys in self._from_chain
            for secret in (keys.secret_key, keys.token) if secret))

    def credential(self):
        """The chain is not asked: that may take a call."""
        return self.settings.access_key_id or 'the credential chain'

    def objection(self, email, context):
        return (super().objection(email, context)
                or _ses_payload.tag_objection(email))

    def build(self, email, context):
        request = Request(
            'POST', f'{self.base_url}/v2/email/outbound-emails',
            {'Content-Type': 'application/json'},
            to_json(_ses_payload.payload(
                email, context, self.settings.configuration_set,
                self.clock.now(), self.domain)))
        return self._signed(request, self._keys(context.deadline))

    def accepted(self, answer):
        proof = _object(answer).get('MessageId')
        if answer.status == 200 and isinstance(proof, str):
            return proof.strip()
        return None

    def words(self, answer):
        return ': '.join(filter(None, (
            self.code(answer), _said(answer) or answer.text)))

    def code(self, answer):
        """The type of the error, without its namespace and its URL."""
        said = (answer.headers.get('x-amzn-ErrorType')
                or _object(answer).get('__type'))
        said = said if isinstance(said, str) else ''
        return said.partition(':')[0].rpartition('#')[2].strip()

    def interpret(self, answer, email, context):
        self._distrust_keys(answer)
        return super().interpret(answer, email, context)

    def build_probes(self):
        keys = self._keys(self.clock.monotonic() + self.settings.timeout)
        return [self._signed(
            Request('GET', f'{self.base_url}/v2/email/{path}', {}), keys)
            for path in ('account', *(f'identities/{quote(name, safe="")}'
                                      for name in self._asked()))]

    def interpret_probe(self, account, *identities):
        self._distrust_keys(account)
        parts = dict.fromkeys((      # both say the same of a wrong key
            self._of_account(account), self._of_domain(identities)))
        # What cannot be known comes first: then the whole cannot be.
        return all_of(*sorted(parts, key=lambda part: part.ok is True))

    def _asked(self):
        """The domain, and of those above it the highest, where the one that
        was registered is."""
        return [self.domain, *_parents(self.domain)[-MAX_PARENTS:]]

    def _of_account(self, answer):
        told = _object(answer)
        if answer.status != 200:
            return self._without(answer, 'ses:GetAccount')
        if not isinstance(told.get('SendingEnabled'), bool):
            return self.refuses(answer, 'no state of the account')
        quota, is_used_up = _quota(told)
        status = told.get('EnforcementStatus')
        against = '; '.join(_those((
            ('sending is not enabled for the account',
             not told['SendingEnabled']),
            ('the account is shut down', status == 'SHUTDOWN'),
            (f'the quota is used up: {quota}', is_used_up))))
        return ProbeResult(not against, against or '; '.join(_those((
            ('the account may send', True), (quota, quota),
            ('it is on probation', status == 'PROBATION'),
            ('in the sandbox: only to verified recipients',
             told.get('ProductionAccessEnabled') is False)))))

    def _of_domain(self, answers):
        """A domain that is verified speaks for all below it that are not
        known; the nearest counts."""
        name, answer = next(
            ((name, answer) for name, answer
             in zip(self._asked(), answers, strict=True)
             if not (answer and self.code(answer) == 'NotFoundException')),
            (None, None))
        if name is None:
            return self._unknown()
        part = self._of_identity(name, answer)
        return part if name == self.domain else part._replace(
            detail=f'{self.domain} is not known there; {part.detail}')

    def _unknown(self):
        parents = _parents(self.domain)
        if len(parents) > MAX_PARENTS:
            return ProbeResult(None, f'{self.domain} is not known there: it '
                               'can be sent from if one above it is verified')
        return ProbeResult(
            False, f'{self.domain} is not known there'
            f'{", nor one above it" if parents else ""}', domain_only=True)

    def _of_identity(self, name, answer):
        if answer is None or answer.status >= 500:
            return ProbeResult(
                None, f'whether {name} is verified cannot be known')
        if answer.status != 200:
            return self._without(answer, 'ses:GetEmailIdentity')
        told = _object(answer)
        verified = told.get('VerifiedForSendingStatus')
        if not isinstance(verified, bool):
            return self.refuses(answer, f'no state of {name}')
        if verified and _lacks_mail_from(told.get('MailFromAttributes')):
            return ProbeResult(False, f'the MAIL FROM domain of {name} is '
                               'not set up', domain_only=True)
        return ProbeResult(
            verified, f'{name} is {"" if verified else "not "}verified',
            domain_only=not verified)

    def _without(self, answer, action):
        """Return what an answer that is none says of us."""
        if self.code(answer).startswith('AccessDenied'):
            return ProbeResult(None, 'cannot be known: the IAM policy does '
                               f'not allow {action}')
        rule = rule_for(answer.status, self.words(answer), self.rules,
                        FALLBACK)
        return self.refuses(answer, rule.note)

    def _signed(self, request, keys):
        from stampman.services import _aws      # botocore loads slowly
        return _aws.signed(request, keys, SERVICE, self.settings.region,
                           self.clock.now())

    def _keys(self, deadline):
        """Keys of the chain are waited for until half of the time is over:
        a call that begins too late may end as uncertain."""
        own = self.settings
        if own.access_key_id is None:
            keys = self._chain.keys((deadline - self.clock.monotonic()) / 2)
            self._from_chain = tuple(
                dict.fromkeys((keys, *self._from_chain)))[:2]
            return keys
        from stampman.services._aws import Keys
        token = own.session_token and own.session_token.get_secret_value()
        return Keys(own.access_key_id,
                    own.secret_access_key.get_secret_value(), token)

    @property
    def _chain(self):
        """The chain of this process: a fork's child has none of its
        threads."""
        from stampman.services._aws import Chain
        pid = os.getpid()
        if pid not in self._chains:
            self._chains = {pid: self._chains.setdefault(
                pid, Chain(self.clock))}
        return self._chains[pid]

    def _distrust_keys(self, answer):
        if (self.settings.access_key_id is None
                and self.code(answer) in OUTDATED):
            self._chain.forget()


def _parents(domain):
    """Return the domains above `domain`, the nearest first."""
    labels = domain.split('.')
    return ['.'.join(labels[first:]) for first in range(1, len(labels) - 1)]


def _those(cases):
    return [text for text, found in cases if found]


def _lacks_mail_from(told):
    """Whether SES refuses emails for want of a MAIL FROM domain."""
    return (isinstance(told, dict)
            and told.get('BehaviorOnMxFailure') == 'REJECT_MESSAGE'
            and told.get('MailFromDomainStatus') in NOT_SET_UP)


def _object(answer):
    return answer.json if isinstance(answer.json, dict) else {}


def _said(answer):
    told = _object(answer)
    said = told.get('message') or told.get('Message')
    return said if isinstance(said, str) else ''


def _quota(told):
    """Return the quota of 24 hours in words, and whether it is used up."""
    quota = told.get('SendQuota')
    most, sent = (quota.get('Max24HourSend'), quota.get('SentLast24Hours')
                  ) if isinstance(quota, dict) else (None, None)
    if not (isinstance(most, int | float) and isinstance(sent, int | float)
            and most > 0):
        return '', False        # SES says -1 where there is none
    return f'{sent:.0f} of {most:.0f} emails in 24 hours', sent >= most
