"""SendGrid (Twilio), by its Mail Send API v3.

A service needs an `api_key` with the scope `mail.send`. `region` is `eu` for
a subuser pinned to the EU, whose mail the global host refuses, and else
`global`.

SendGrid says 202 with the header `X-Message-Id`, or it has not taken the
email; it takes one for all its recipients or for none. It keeps no
idempotency key. A display name reaches it without `;` and `,`, which it does
not allow. An email without a To or without a subject, and an attachment that
is empty or whose type has parameters, it cannot carry.

The probe asks for the scopes, which any key may read, and as far as the key
may for the authenticated domains, the verified senders and the credits.
"""

import base64
import re
from email.utils import parsedate_to_datetime
from typing import Literal
from urllib.parse import quote

from stampman.helpers.config import Secret, ServiceSettings
from stampman.helpers.delivery import Kind
from stampman.services.base import (
    ALERT, DOMAIN_ONLY, FALLBACK, Capabilities, HttpEmailService,
    ProbeResult, Rule, all_of, over, rule_for, to_json)
from stampman.services.transport import Request

BASE_URLS = {
    'global': 'https://api.sendgrid.com',
    'eu': 'https://api.eu.sendgrid.com',
}
SCOPE = 'mail.send'
MAX_REPLY_TO = 1000
ANSWER_OF_PROBE = 800_000    # bytes: lists of domains and senders
MAX_DATE = 30           # characters of the day when a quota is new
LONGEST_RESET = 3600    # seconds; a later X-RateLimit-Reset is not a time


class Settings(ServiceSettings):
    """What a SendGrid service can be told."""

    api_key: Secret
    region: Literal['global', 'eu'] = 'global'


class SendgridEmailService(HttpEmailService):
    """One SendGrid account."""

    provider = 'sendgrid'
    Settings = Settings
    needed_probes = 1
    capabilities = Capabilities(
        max_request=29_999_999, max_recipients=1000, max_tags=10,
        max_tag_length=255, max_metadata=10_000, needs_to=True,
        needs_subject=True, needs_plain_types=True, needs_full_files=True,
        notes=('Display names lose "," and ";".',
               f'At most {MAX_REPLY_TO:,} addresses in reply_to.'))
    # The words are `field: message`, one error after another.
    rules = (
        Rule(Kind.rejected, (400,),
             r'(^|; )personalizations\S{,9}\b(to|cc|bcc)\b\S{,9}\bemail: '),
        Rule(Kind.rejected, (400,), r'(^|; )from(\.email)?: ',
             note='the sender is not valid'),
        Rule(Kind.rejected, (400,), 'does not contain a valid address'),
        Rule(Kind.refused, (401,), 'maximum credits exceeded', ALERT,
             note='the quota is used up'),
        Rule(Kind.refused, (403,),
             r'(^|; )from(\.email)?: |match a verified sender identity',
             DOMAIN_ONLY, note='the sender is not verified there'),
        Rule(Kind.refused, (451,), '', ALERT,
             note='the setting "region" may be wrong'),
    )

    @property
    def base_url(self):
        return self.settings.base_url or BASE_URLS[self.settings.region]

    def credential(self):
        return self.settings.api_key.get_secret_value()

    def objection(self, email, context):
        too_many = over(len(email.reply_to), MAX_REPLY_TO, 'addresses')
        return super().objection(email, context) or too_many and (
            f'reply_to: {too_many}')

    def build(self, email, context):
        return Request(
            'POST', f'{self.base_url}/v3/mail/send',
            {**self._auth(), 'Content-Type': 'application/json'},
            to_json(_payload(email, context)))

    def accepted(self, answer):
        """A 200 is what the sandbox says: no proof."""
        if answer.status == 202:
            return answer.headers.get('X-Message-Id', '').strip()
        return None

    def words(self, answer):
        told = (filter(None, (error.get('field'), error.get('message')))
                for error in _errors(answer))
        return '; '.join(': '.join(map(str, error))
                         for error in told) or answer.text

    def code(self, answer):
        words = (error.get('field') or error.get('error_id')
                 for error in _errors(answer))
        return next((str(word) for word in words if word), '')

    def retry_after(self, answer):
        """`X-RateLimit-Reset` is a time, by SendGrid's own clock."""
        reset = answer.headers.get('X-RateLimit-Reset', '')
        if answer.retry_after is not None or not re.fullmatch(
                '[0-9]{1,12}', reset):
            return answer.retry_after
        wait = int(reset) - self._now_there(answer)
        return wait if 0 <= wait <= LONGEST_RESET else None

    def _now_there(self, answer):
        try:
            return parsedate_to_datetime(answer.headers['Date']).timestamp()
        except (KeyError, ValueError):
            return self.clock.now()

    def build_probes(self):
        """Any key may read its own scopes; the rest not every key may."""
        domain = quote(self.domain, safe='')
        paths = ('scopes', f'whitelabel/domains?domain={domain}',
                 'verified_senders', 'user/credits')
        return [Request('GET', f'{self.base_url}/v3/{path}', self._auth(),
                        max_answer=ANSWER_OF_PROBE) for path in paths]

    def interpret_probe(self, scopes, domains, senders, balance):
        parts = [self._of_scopes(scopes), self._of_domain(domains, senders),
                 self._of_balance(balance)]
        # The key may send, but it is not known from whom.
        doubtful = _told(domains) is not None and _told(senders) is None
        return all_of(*sorted(parts, key=lambda part: not (
            doubtful and part is parts[1] and part.ok is None)))

    def _of_scopes(self, answer):
        if answer.status == 401:
            rule = rule_for(401, self.words(answer), self.rules, FALLBACK)
            return self.refuses(answer, rule.note or 'the key is not valid')
        if answer.status == 403:
            return self.refuses(answer, 'the key or the account is barred')
        scopes = _object(_told(answer)).get('scopes')
        if not isinstance(scopes, list):
            return self.refuses(answer, 'no list of scopes')
        if SCOPE not in scopes:
            return ProbeResult(False, f'the key lacks the scope {SCOPE}')
        return ProbeResult(True, f'the key has the scope {SCOPE}')

    def _of_domain(self, domains, senders):
        """An address can be verified where its domain is not."""
        known = _told(domains)
        if not isinstance(known, list):
            return ProbeResult(None, f'whether {self.domain} is '
                               'authenticated there cannot be known')
        if any(one.get('valid') is True and self._is_domain(one.get('domain'))
               for one in _objects(known)):
            return ProbeResult(True, f'{self.domain} is authenticated there')
        told = f'{self.domain} is not authenticated there'
        results = _object(_told(senders)).get('results')
        if not isinstance(results, list):
            return ProbeResult(None, f'{told}, and whether a single sender '
                               'of it is cannot be known')
        if any(one.get('verified') is True and self._is_domain(
                str(one.get('from_email')).rpartition('@')[2])
               for one in _objects(results)):
            return ProbeResult(None, f'{told}, but single senders of it are')
        return ProbeResult(False, told, domain_only=True)

    def _is_domain(self, name):
        return isinstance(name, str) and name.lower() == self.domain

    def _of_balance(self, answer):
        """Who is over the quota already is allowed to be."""
        told = _object(_told(answer))
        remain, overage = told.get('remain'), told.get('overage', 0)
        if type(remain) is not int or type(overage) is not int:
            return ProbeResult(
                None, 'how many credits are left cannot be known')
        if remain > 0 or overage > 0:
            return ProbeResult(True, f'{remain:,} credits are left')
        until = self.masked(str(told.get('next_reset') or ''))[:MAX_DATE]
        return ProbeResult(False, 'the quota is used up' + (
            f' until {until}' if until else ''))

    def _auth(self):
        return {'Authorization': f'Bearer {self.credential()}'}


def _payload(email, context):
    """One personalization: one envelope, whose To and Cc are seen by all."""
    fields = {
        'personalizations': [_present({
            'to': [_mailbox(a) for a in email.recipients],
            'cc': [_mailbox(a) for a in email.cc],
            'bcc': [_mailbox(a) for a in email.bcc]})],
        'from': _named(email.from_email, email.from_name),
        'subject': email.subject,
        'content': [{'type': kind, 'value': value} for kind, value in (
            ('text/plain', email.content), ('text/html', email.html))
            if value],
        'headers': {**email.headers, **context.headers},
        'attachments': [_file(part) for part in email.attachments],
        'categories': list(dict.fromkeys(email.tags)),
        'custom_args': {**email.metadata, **context.metadata},
        'tracking_settings': _tracking(email),
    }
    replies = [_mailbox(a) for a in email.reply_to]
    if len(replies) == 1:
        fields['reply_to'] = replies[0]
    else:
        fields['reply_to_list'] = replies
    return _present(fields)


def _present(fields):
    """An empty list or object is an error to SendGrid."""
    return {name: value for name, value in fields.items() if value}


def _mailbox(address):
    return _named(address.email, address.name)


def _named(email, name):
    name = re.sub('[;,]', '', name).strip()
    return {'email': email, 'name': name} if name else {'email': email}


def _file(part):
    fields = {'content': base64.b64encode(part.content).decode(),
              'filename': part.filename, 'type': part.content_type}
    if part.content_id:
        return {**fields, 'disposition': 'inline',
                'content_id': part.content_id}
    return {**fields, 'disposition': 'attachment'}


def _tracking(email):
    """What is not said stays as the account has it."""
    settings = {}
    if email.track_opens is not None:
        settings['open_tracking'] = {'enable': email.track_opens}
    if email.track_clicks is not None:
        settings['click_tracking'] = {
            'enable': email.track_clicks, 'enable_text': email.track_clicks}
    return settings


def _errors(answer):
    """The objects in `errors`, as far as they have the form."""
    return _objects(_object(answer.json).get('errors'))


def _told(answer):
    """What a probe was answered, as far as it was."""
    return answer.json if answer and answer.status == 200 else None


def _object(found):
    return found if isinstance(found, dict) else {}


def _objects(found):
    return [one for one in found if isinstance(one, dict)
            ] if isinstance(found, list) else []
