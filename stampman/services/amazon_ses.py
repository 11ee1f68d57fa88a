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

import functools
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

# Bytes: a message of 40 MB is base64 once more in the request, and beside it
# there are addresses and tags.
MAX_REQUEST = 40_000_000 * 4 // 3 + 65_536
SERVICE = 'ses'         # as Signature V4 knows it
# What a region's host ends in, where it is not `amazonaws.com`.
SUFFIXES = {'cn': 'amazonaws.com.cn', 'eusc': 'amazonaws.eu'}
# Keys that are not valid any more: the credential chain may have new ones.
OUTDATED = ('ExpiredTokenException', 'UnrecognizedClientException',
            'InvalidClientTokenId')
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


Region = _matching('[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}',
                   'must be an AWS region like "eu-west-1"')
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
        max_request=MAX_REQUEST, max_recipients=50, envelope=True, notes=(
            'A whole message (MIME) has at most 40 MB.',
            'Metadata and tags become EmailTags: a key of A-Z, a-z, 0-9, "_" '
            'and "-"; a value of at most 256 of these, or of at most 189 '
            'bytes.',))
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
        return self._signed(Request(
            'POST', f'{self.base_url}/v2/email/outbound-emails',
            {'Content-Type': 'application/json'},
            to_json(_ses_payload.payload(
                email, context, self.settings.configuration_set,
                self.clock.now(), self.domain))))

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
        domain = quote(self.domain, safe='')
        return [self._signed(Request('GET', f'{self.base_url}/{path}', {}))
                for path in ('v2/email/account',
                             f'v2/email/identities/{domain}')]

    def interpret_probe(self, account, identity):
        self._distrust_keys(account)
        parts = dict.fromkeys((      # both say the same of a wrong key
            self._of_account(account), self._of_identity(identity)))
        # What cannot be known comes first: then the whole cannot be.
        return all_of(*sorted(parts, key=lambda part: part.ok is True))

    def _of_account(self, answer):
        told = _object(answer)
        if answer.status != 200:
            return self._without(answer, 'ses:GetAccount')
        if not isinstance(told.get('SendingEnabled'), bool):
            return self.refuses(answer, 'no state of the account')
        quota, is_used_up = _quota(told)
        status = told.get('EnforcementStatus')
        against = [text for text, found in (
            ('sending is not enabled for the account',
             not told['SendingEnabled']),
            ('the account is shut down', status == 'SHUTDOWN'),
            ('the account is in the sandbox: it sends only to verified '
             'recipients', told.get('ProductionAccessEnabled') is False),
            (f'the quota is used up: {quota}', is_used_up)) if found]
        if against:
            return ProbeResult(False, '; '.join(against))
        trial = 'it is on probation' if status == 'PROBATION' else ''
        return ProbeResult(True, '; '.join(filter(None, (
            'the account may send', quota, trial))))

    def _of_identity(self, answer):
        name = self.domain
        if answer is None or answer.status >= 500:
            return ProbeResult(
                None, f'whether {name} is verified cannot be known')
        if self.code(answer) == 'NotFoundException':
            return self._of_parent()
        if answer.status != 200:
            return self._without(answer, 'ses:GetEmailIdentity')
        verified = _object(answer).get('VerifiedForSendingStatus')
        if not isinstance(verified, bool):
            return self.refuses(answer, f'no state of {name}')
        return ProbeResult(
            verified, f'{name} is {"" if verified else "not "}verified',
            domain_only=not verified)

    def _of_parent(self):
        """A domain that is verified speaks for all below it."""
        if self.domain.count('.') < 2:
            return ProbeResult(False, f'{self.domain} is not known there',
                               domain_only=True)
        return ProbeResult(None, f'{self.domain} is not known there: it can '
                           'be sent from if a domain above it is verified')

    def _without(self, answer, action):
        """Return what an answer that is none says of us."""
        rule = rule_for(answer.status, self.words(answer), self.rules,
                        FALLBACK)
        if self.code(answer).startswith('AccessDenied'):
            return ProbeResult(None, 'cannot be known: the IAM policy does '
                               f'not allow {action}')
        if rule.flags.get('throttled'):
            return ProbeResult(None, 'cannot be known now: too many requests')
        return self.refuses(answer, rule.note)

    def _signed(self, request):
        from stampman.services import _aws      # botocore loads slowly
        return _aws.signed(request, self._keys(), SERVICE,
                           self.settings.region, self.clock.now())

    def _keys(self):
        own = self.settings
        if own.access_key_id is None:
            keys = self._chain.keys()
            self._from_chain = tuple(
                dict.fromkeys((keys, *self._from_chain)))[:2]
            return keys
        from stampman.services._aws import Keys
        token = own.session_token and own.session_token.get_secret_value()
        return Keys(own.access_key_id,
                    own.secret_access_key.get_secret_value(), token)

    @functools.cached_property
    def _chain(self):
        from stampman.services._aws import Chain
        return Chain()

    def _distrust_keys(self, answer):
        if (self.settings.access_key_id is None
                and self.code(answer) in OUTDATED):
            self._chain.forget()


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
