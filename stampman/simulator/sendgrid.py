"""SendGrid's Mail Send v3, as SendGrid documents it."""

import secrets

from stampman.simulator import _sendgrid_mail
from stampman.simulator.addresses import domain_of
from stampman.simulator.exchange import (
    Provider, Refused, Reply, Verdict, as_json)
from stampman.simulator.ledger import Ids, Recipient, Taken

MAX_BODY = 30_000_000       # bytes; a message stays below
SEND = 'mail.send'          # the scope
TO_MESSAGE = 'Does not contain a valid address.'
NOT_VERIFIED = (
    'The from address does not match a verified Sender Identity. Mail cannot '
    'be sent until this error is resolved.')


def problem(status, message, field=None, headers=()):
    """Return SendGrid's body for an error."""
    return as_json(status, {'errors': [
        {'message': message, 'field': field, 'help': None}]}, headers)


UNAUTHORIZED = problem(
    401, 'The provided authorization grant is invalid, expired, or revoked')
FORBIDDEN = problem(403, 'access forbidden')
TOO_LARGE = problem(413, 'The message is too large')
ERRORS = {
    'AUTH': UNAUTHORIZED,
    'ACCOUNT': problem(401, 'Maximum credits exceeded'),
    'UNAVAILABLE': problem(503, 'Service Unavailable'),
    'RECIPIENT': problem(400, TO_MESSAGE, 'personalizations.0.to.0.email'),
    'SENDER': problem(400, TO_MESSAGE, 'from.email'),
    'CONTENT': problem(400, 'The content is not allowed', 'content.0.value'),
    'PAYLOAD': problem(400, 'Bad Request'),
    'TOO_LARGE': TOO_LARGE,
}
# What a read-only route answers, and the scope that it takes.
READS = {
    '/v3/scopes': (None, '_scopes'),
    '/v3/whitelabel/domains': ('whitelabel.read', '_domains'),
    '/v3/verified_senders': ('sender_verification_eligible', '_senders'),
    '/v3/user/credits': ('user.credits.read', '_credits'),
    '/v3/user/account': ('user.account.read', '_user_account'),
}


class Sendgrid(Provider):
    """One SendGrid account."""

    name = prefix = 'sendgrid'

    def is_sending(self, method, path):
        return path == '/v3/mail/send'

    def judge(self, request):
        sending = self.is_sending(request.method, request.path)
        if not sending and request.path not in READS:
            raise Refused(problem(404, 'not found'))
        if request.method != ('POST' if sending else 'GET'):
            raise Refused(problem(405, 'method not allowed'))
        if not _accepts_json(request.headers.get('accept', '*/*')):
            raise Refused(problem(406, 'the accept header is not allowed'))
        if (request.headers.get('authorization')
                != f'Bearer {self.account.key}'):
            raise Refused(UNAUTHORIZED)
        scope, read = (SEND, '_send') if sending else READS[request.path]
        if scope and scope not in self._allowed():
            raise Refused(FORBIDDEN)
        if sending and self.is_on('quota'):
            raise Refused(ERRORS['ACCOUNT'])
        answered = getattr(self, read)(request)
        return answered if sending else Verdict(as_json(200, answered))

    def error(self, word, taken):
        """A throttle ends at X-RateLimit-Reset."""
        if word == 'RATE_LIMIT':
            reset = str(int(self.now()) + 2)
            return problem(429, 'too many requests', headers=(
                ('X-RateLimit-Limit', '600'), ('X-RateLimit-Remaining', '0'),
                ('X-RateLimit-Reset', reset)))
        return ERRORS[word]

    def rejecting(self, verdict, is_rejected):
        """All are refused for one; a number counts within to, cc or bcc."""
        everyone = verdict.taken.recipients
        first = next(one for one in everyone if is_rejected(one.email))
        number = [one for one in everyone
                  if one.kind == first.kind].index(first)
        return Verdict(problem(
            400, TO_MESSAGE,
            f'personalizations.0.{first.kind}.{number}.email'))

    def settings(self, base_url):
        return {'api_key': self.account.key, 'base_url': base_url}

    def _allowed(self):
        lost = (SEND,) if self.is_on('scope') else ()
        return [scope for scope in self.account.scopes if scope not in lost]

    def _send(self, request):
        if request.media_type != 'application/json':
            raise Refused(problem(415, 'Content-Type should be '
                                  'application/json.'))
        if len(request.body) >= MAX_BODY:
            raise Refused(TOO_LARGE)
        mail, errors = _sendgrid_mail.read(request.body, self.now())
        if errors:
            raise Refused(as_json(400, {'errors': errors}))
        if not self.account.may_send(domain_of(mail['from']['email'])):
            raise Refused(problem(403, NOT_VERIFIED, 'from'))
        if _sandboxed(mail):
            return Verdict(Reply(200))
        taken = _taken(mail, len(request.body))
        return Verdict(Reply(202, b'', (
            ('X-Message-Id', taken.provider_ids[0]),)), taken)

    def _scopes(self, request):
        return {'scopes': self._allowed()}

    def _domains(self, request):
        return [{'id': number, 'domain': domain, 'valid': True,
                 'dns': {'dkim1': {'valid': True}}}
                for number, domain in enumerate(
                    self.account.asked_for(request.query), 1)]

    def _senders(self, request):
        return {'results': []}

    def _credits(self, request):
        used = 1000 if self.is_on('quota') else 0
        return {'remain': 1000 - used, 'total': 1000, 'overage': 0,
                'used': used, 'last_reset': '2026-01-01',
                'next_reset': '2026-02-01', 'reset_frequency': 'monthly'}

    def _user_account(self, request):
        return {'type': 'paid', 'reputation': 100}


def _accepts_json(accept):
    ranges = {word.partition(';')[0].strip() for word in accept.split(',')}
    return bool(ranges & {'*/*', 'application/*', 'application/json'})


def _sandboxed(mail):
    mode = mail.get('mail_settings', {}).get('sandbox_mode', {})
    return mode.get('enable') is True


def _taken(mail, size):
    parts = {part['type']: part['value'] for part in mail.get('content', ())}
    first = mail['personalizations'][0]
    custom = {**mail.get('custom_args', {}), **first.get('custom_args', {})}
    return Taken(
        provider_ids=(secrets.token_urlsafe(16),),
        sender=mail['from']['email'],
        recipients=tuple(
            Recipient(mailbox['email'], kind)
            for group in mail['personalizations']
            for kind in ('to', 'cc', 'bcc')
            for mailbox in group.get(kind, ())),
        subject=first.get('subject', mail.get('subject', '')), size=size,
        ids=Ids.of_metadata(custom), text=parts.get('text/plain', ''),
        html=parts.get('text/html', ''))
