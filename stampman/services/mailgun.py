"""Mailgun, by its HTTP API v3.

A service needs an `api_key`: the account's, or a domain's sending key, which
cannot be probed. `region` is where the domain lives, `us` or `eu`;
`sending_domain` is the domain's name at Mailgun, if not the pool's.

Mailgun says 200 with an `id` in JSON, or it may not have taken the email:
an error of its own (5xx) was seen on emails that went out. It takes an email
for all its recipients or for none, and keeps no idempotency key. An inline
part has its content id for a file name there. An email with nobody in To, or
for some of its recipients alone, goes as MIME, which Mailgun takes for any
recipients.

The probe asks for the domain's state, and whether its queue is disabled.
"""

import base64
import re
from typing import Literal
from urllib.parse import quote

from stampman.helpers.config import Domain, Secret, ServiceSettings
from stampman.helpers.delivery import MAX_REASON, Kind
from stampman.services import _mime
from stampman.services.base import (
    ALERT, DOMAIN_ONLY, FALLBACK, Capabilities, HttpEmailService,
    ProbeResult, Rule, all_of, over, rule_for)
from stampman.services.transport import Request

BASE_URLS = {
    'us': 'https://api.mailgun.net',
    'eu': 'https://api.eu.mailgun.net',
}
MAX_OPTIONS = 16_384    # bytes of all fields that begin with o: h: v: t:
OPTIONS = ('o:', 'h:', 'v:', 't:')
YES_NO = {True: 'yes', False: 'no'}
# What `domain.state` says of whether we may send.
DOMAIN_STATES = {'active': True, 'unverified': False, 'disabled': False}


class Settings(ServiceSettings):
    """What a Mailgun service can be told."""

    api_key: Secret
    region: Literal['us', 'eu'] = 'us'
    sending_domain: Domain | None = None


class MailgunEmailService(HttpEmailService):
    """One sending domain at Mailgun."""

    provider = 'mailgun'
    Settings = Settings
    needed_probes = 1
    capabilities = Capabilities(
        max_request=25_000_000, max_recipients=1000, ascii_tags=True,
        envelope=True, notes=(
            'Headers, metadata, tags and reply_to: at most 16,384 bytes '
            'together.', 'An inline part has its content id for a name.'))
    rules = (
        Rule(Kind.rejected, (400,),
             r'\b(to|cc|bcc)\b\W* parameter is not (a )?valid'),
        Rule(Kind.rejected, (400,), r'\bfrom\b\W* parameter is not (a )?valid',
             note='the sender is not valid'),
        Rule(Kind.refused, (401,), '', ALERT,
             note='the key is wrong, or of the other region'),
        Rule(Kind.refused, (403,), 'domain .{,300}is not allowed to send',
             DOMAIN_ONLY),
        Rule(Kind.refused, (404,), 'domain not found', DOMAIN_ONLY,
             note='the settings "sending_domain" or "region" may be wrong'),
        Rule(Kind.uncertain, (500, 502, 503, 504)),
    )
    quota_used_up = Rule(
        Kind.refused, flags=DOMAIN_ONLY, note='the quota is used up')

    @property
    def base_url(self):
        return self.settings.base_url or BASE_URLS[self.settings.region]

    @property
    def sending_domain(self) -> str:
        """The name of the domain at Mailgun."""
        return self.settings.sending_domain or self.domain

    @property
    def secrets(self):
        return (*super().secrets, self._basic())

    def credential(self):
        return self.settings.api_key.get_secret_value()

    def objection(self, email, context):
        size = sum(len(f'{name}{value}'.encode())
                   for name, value in _options(email, context)
                   if name.startswith(OPTIONS))
        too_large = over(size, MAX_OPTIONS, 'bytes')
        return super().objection(email, context) or too_large and (
            f'headers, metadata, tags, reply_to: {too_large}')

    def build(self, email, context):
        if email.recipients and context.envelope is None:
            path, parts = 'messages', _parts(email, context)
        else:
            path, parts = 'messages.mime', self._mime_parts(email, context)
        boundary, body = _multipart(parts, context.attempt_id)
        return Request(
            'POST', f'{self.base_url}/v3/{self._domain_path}/{path}',
            {**self._auth(),
             'Content-Type': f'multipart/form-data; boundary={boundary}'},
            body)

    def accepted(self, answer):
        """A path that is wrong has a 200 too, in plain text."""
        told = answer.json
        proof = told.get('id') if isinstance(told, dict) else None
        return proof.strip(' <>') if isinstance(proof, str) else None

    def words(self, answer):
        return _message(answer) or answer.text

    def retry_after(self, answer):
        """Mailgun says it in words."""
        told = re.search(r'after (\d{1,9}) seconds?', self.words(answer))
        return float(told[1]) if told else answer.retry_after

    def build_probes(self):
        domain = self._domain_path
        return [Request('GET', f'{self.base_url}/{path}', self._auth())
                for path in (f'v4/domains/{domain}',
                             f'v3/domains/{domain}/sending_queues')]

    def interpret_probe(self, domain, queues):
        return all_of(self._of_domain(domain), self._of_queue(queues))

    def _of_domain(self, answer):
        name = self.sending_domain
        if answer.status == 404:
            return self.refuses(answer, f'{name} is not known there'
                                )._replace(domain_only=True)
        rule = rule_for(answer.status, self.words(answer), self.rules,
                        FALLBACK)
        if rule.flags.get('domain_only'):
            return self.refuses(answer, rule.note)._replace(domain_only=True)
        if answer.status in (401, 403):
            return ProbeResult(None, f'HTTP {answer.status}: a domain\'s '
                               'sending key, or a wrong one: cannot be probed')
        state = _told(answer, 'domain').get('state')
        if not isinstance(state, str) or state not in DOMAIN_STATES:
            return self.refuses(answer, 'no state of the domain')
        return ProbeResult(DOMAIN_STATES[state], f'{name} is {state}',
                           domain_only=not DOMAIN_STATES[state])

    def _of_queue(self, answer):
        """The queue of what is to be sent at once."""
        queue = _told(answer, 'regular')
        if not isinstance(queue.get('is_disabled'), bool):
            return ProbeResult(
                None, 'whether its queue is disabled cannot be known')
        if not queue['is_disabled']:
            return ProbeResult(True, 'its queue is open')
        why = queue.get('disabled')
        told = [f'until {why["until"]}' if why.get('until') else '',
                str(why.get('reason') or '')] if isinstance(why, dict) else ()
        return ProbeResult(False, self.masked(': '.join(filter(None, (
            f'the queue of {self.sending_domain} is disabled', *told)))
            )[:MAX_REASON], domain_only=True)

    def _mime_parts(self, email, context):
        """`to` is the envelope here; whom the email names stands in it."""
        yield from (_part('to', a.email)
                    for a in context.recipients_of(email))
        yield from (_part(name, value)
                    for name, value in _options(email, context)
                    if not name.startswith('h:'))
        yield _part('message', _mime.render(
            email, self.clock.now(),
            f'{context.message_id}@{self.sending_domain}', context.headers),
            'message.eml', 'message/rfc822')

    @property
    def _domain_path(self):
        return quote(self.sending_domain, safe='')

    def _auth(self):
        return {'Authorization': f'Basic {self._basic()}'}

    def _basic(self):
        return base64.b64encode(f'api:{self.credential()}'.encode()).decode()


def _parts(email, context):
    addresses = (('from', (email.sender,)), ('to', email.recipients),
                 ('cc', email.cc), ('bcc', email.bcc))
    for name, group in addresses:
        yield from (_part(name, _mailbox(address)) for address in group)
    for name, text in (('subject', email.subject), ('text', email.content),
                       ('html', email.html)):
        if text:
            yield _part(name, text)
    yield from (_part(*option) for option in _options(email, context))
    for file in email.attached:
        yield _part('attachment', file.content, file.filename,
                    file.content_type)
    for file in email.inline:
        yield _part('inline', file.content, file.content_id,
                    file.content_type)


def _options(email, context):
    """Every field whose name begins with `o:`, `h:` or `v:`."""
    if email.reply_to:
        yield 'h:Reply-To', ', '.join(map(_mailbox, email.reply_to))
    for name, text in {**email.headers, **context.headers}.items():
        yield f'h:{name}', text
    for tag in email.tags:
        yield 'o:tag', tag
    for name, switch in (('o:tracking-opens', email.track_opens),
                         ('o:tracking-clicks', email.track_clicks)):
        if switch is not None:
            yield name, YES_NO[switch]
    for key, text in {**email.metadata, **context.metadata}.items():
        yield f'v:{key}', text


def _mailbox(address):
    if not address.name:
        return address.email
    return f'{_quoted(address.name)} <{address.email}>'


def _quoted(text):
    """Control characters cannot be here: they were refused at the door."""
    return '"' + re.sub(r'(["\\])', r'\\\1', text) + '"'


def _part(name, content, file_name=None, content_type=None):
    """One part of a form: a text without its own type, or a file."""
    lines = [f'Content-Disposition: form-data; name={_quoted(name)}']
    if file_name is not None:
        lines[0] += f'; filename={_quoted(file_name)}'
        lines.append(f'Content-Type: {content_type}')
    raw = content if isinstance(content, bytes) else content.encode()
    return '\r\n'.join((*lines, '', '')).encode() + raw


def _multipart(parts, seed):
    """The attempt's id was not there yet when the email was written."""
    boundary = f'stampman-{seed}'
    delimiter = f'--{boundary}'.encode()
    return boundary, b'\r\n'.join((
        *(delimiter + b'\r\n' + part for part in parts),
        delimiter + b'--', b''))


def _told(answer, name):
    """The object of that name in a probe's answer, or an empty one."""
    told = answer.json if answer and answer.status == 200 else None
    found = told.get(name) if isinstance(told, dict) else None
    return found if isinstance(found, dict) else {}


def _message(answer):
    told = answer.json
    return str(told.get('message') or '') if isinstance(told, dict) else ''
