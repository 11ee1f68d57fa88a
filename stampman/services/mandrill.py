"""Mandrill (Mailchimp Transactional), by its API 1.4.

A service needs an `api_key`, which stands in the body of every call.

Mandrill says 200 with a list that tells how each recipient fares, with an
`_id` for each for whom it took the email. An error is an object whose `name`
counts more than the status: older behaviour is HTTP 500 for all of them. It
keeps no idempotency key. It may take an email into a backlog that is never
sent, and says so: its account then rests. An inline part must be an image,
and has its content id for a name there.
"""

import base64
import re

from stampman.helpers.config import Secret, ServiceSettings
from stampman.helpers.delivery import Kind
from stampman.services import _mandrill_results, _mime
from stampman.services.base import (
    ALERT, THROTTLED, Capabilities, HttpEmailService, ProbeResult, Rule,
    all_of, over, to_json)
from stampman.services.transport import MAX_BODY, Request

BASE_URL = 'https://mandrillapp.com'
MAX_SUBJECT = 998               # characters
# Bytes of an answer's body: an entry with the longest address has 600.
ANSWER_PER_RECIPIENT = 640
ANSWER_OF_DOMAINS = 800_000
# A key can be limited to some calls; how that is said is not documented.
FORBIDDEN = re.compile(
    'permission|permitted|not allowed|restrict|authori[sz]ed', re.IGNORECASE)


class Settings(ServiceSettings):
    """What a Mandrill service can be told."""

    api_key: Secret


class MandrillEmailService(HttpEmailService):
    """One Mandrill account."""

    provider = 'mandrill'
    Settings = Settings
    needed_probes = 1
    capabilities = Capabilities(
        max_request=25_000_000, max_recipients=1000, max_tag_length=50,
        inline_images_only=True, notes=(
            'A subject has at most 998 characters; a tag cannot begin with '
            '"_".', 'An inline part has its content id for a name.',
            'More than 10 recipients are handled in the background: whom it '
            'rejects is not said at once.'))
    # The words are `name: message`. Codes repeat, and any status may come.
    rules = (
        Rule(Kind.refused, (), r'^Invalid_Key\b', ALERT,
             note='the key is not valid'),
        Rule(Kind.unsupported, (), r'^ValidationError\b', ALERT),
        Rule(Kind.refused, (), r'^PaymentRequired\b', ALERT,
             note='it needs a paid plan, or a balance'),
        Rule(Kind.refused, (), r'^Unknown_Subaccount\b', ALERT),
        Rule(Kind.unsupported, (), r'^Unknown_Template\b', ALERT),
        Rule(Kind.refused, (), r'^PoorReputation\b', ALERT),
        Rule(Kind.deferred, (), r'^RequestLimitExceeded\b', THROTTLED),
        Rule(Kind.deferred, (), r'^(ServiceUnavailable|GeneralError)\b'),
    )

    @property
    def base_url(self):
        return self.settings.base_url or BASE_URL

    def credential(self):
        return self.settings.api_key.get_secret_value()

    def objection(self, email, context):
        return super().objection(email, context) or next(
            (f'{field}: {text}' for field, text in _objections(email)
             if text), '')

    def build(self, email, context):
        most = ANSWER_PER_RECIPIENT * len(context.recipients_of(email))
        return self._call(
            'messages/send', max(most, MAX_BODY),
            {'message': _message(email, context), 'async': False})

    def accepted(self, answer):
        """The proof stands beside each recipient: see `interpret`."""
        return None

    def interpret(self, answer, email, context):
        """A list that names the recipients counts before the status."""
        outcome = _mandrill_results.outcome_of(
            answer.json, context.recipients_of(email),
            lambda word: self.masked(word, email), self.shown_id)
        if outcome is None:
            return super().interpret(answer, email, context)
        return outcome.model_copy(update={'http_status': answer.status})

    def words(self, answer):
        return ': '.join(filter(None, _error(answer))) or answer.text

    def code(self, answer):
        return _error(answer)[0]

    def build_probes(self):
        return [self._call('users/info', MAX_BODY),
                self._call('senders/domains', ANSWER_OF_DOMAINS)]

    def interpret_probe(self, account, domains):
        return all_of(self._of_account(account), self._of_domain(domains))

    def _call(self, path, max_answer, fields={}):
        return Request(
            'POST', f'{self.base_url}/api/1.4/{path}',
            {'Content-Type': 'application/json'},
            to_json({'key': self.credential(), **fields}), max_answer)

    def _of_account(self, answer):
        """A key that may not ask may still send."""
        told = _told(answer, dict) or {}
        quota, backlog = told.get('hourly_quota'), told.get('backlog')
        if type(quota) is int and type(backlog) is int:
            if backlog > 0 and quota <= 0:
                return ProbeResult(
                    False, f'the quota is used up: {backlog:,} emails wait')
            return ProbeResult(
                True, f'the key is valid, for {quota:,} emails an hour')
        name, message = _error(answer)
        if answer.status == 403 or FORBIDDEN.search(message):
            return self.refuses(
                answer, 'the key may not ask that')._replace(ok=None)
        return self.refuses(answer, 'the key is not valid'
                            if name == 'Invalid_Key' else 'no account')

    def _of_domain(self, answer):
        known = _told(answer, list)
        if known is None:
            return ProbeResult(None, f'whether {self.domain} is verified '
                               'there cannot be known')
        domain = next((one for one in known if isinstance(one, dict)
                       and str(one.get('domain')).lower() == self.domain), {})
        problem = next((problem for problem, is_well in (
            ('is not known there', bool(domain)),
            ('is not verified there', bool(domain.get('verified_at'))),
            ('has no valid DKIM there', _is_signed(domain)))
            if not is_well), '')
        return ProbeResult(
            not problem, f'{self.domain} '
            f'{problem or "is verified there, with DKIM"}',
            domain_only=bool(problem))


def _message(email, context):
    """Return the `message`; what is not there is left out."""
    headers = {**email.headers, **context.headers}
    if email.reply_to:
        headers['Reply-To'] = _mime.mailboxes(email.reply_to)
    return _present({
        'from_email': email.from_email, 'from_name': email.from_name,
        'to': [_present({'email': one.email, 'name': one.name, 'type': kind})
               for kind, group in (('to', email.recipients),
                                   ('cc', email.cc), ('bcc', email.bcc))
               for one in group],
        'preserve_recipients': True,
        'headers': headers,
        'subject': email.subject, 'text': email.content, 'html': email.html,
        'attachments': [_file(part, part.filename)
                        for part in email.attached],
        'images': [_file(part, part.content_id) for part in email.inline],
        'tags': email.tags,
        'metadata': {**email.metadata, **context.metadata},
        'track_opens': email.track_opens,
        'track_clicks': email.track_clicks})


def _present(fields):
    return {name: value for name, value in fields.items()
            if value or value is False}


def _file(part, name):
    return {'type': part.content_type, 'name': name,
            'content': base64.b64encode(part.content).decode()}


def _objections(email):
    """Yield each field that may not do, and why it does not, if so."""
    yield 'subject', over(len(email.subject), MAX_SUBJECT, 'characters')
    yield 'tags', (any(tag.startswith('_') for tag in email.tags)
                   and 'a tag cannot begin with "_"')


def _error(answer):
    """Return an error's name and message; '' for what is not there."""
    told = answer.json if isinstance(answer.json, dict) else {}
    return tuple(word if isinstance(word, str) else '' for word
                 in (told.get('name'), told.get('message')))


def _told(answer, kind):
    """Return what a probe was answered, if it is of that kind."""
    told = answer.json if answer and answer.status == 200 else None
    return told if isinstance(told, kind) else None


def _is_signed(domain):
    """An answer may say it of the domain, or of its DKIM alone."""
    dkim = domain.get('dkim')
    return True is domain.get(
        'valid_signing', isinstance(dkim, dict) and dkim.get('valid'))
