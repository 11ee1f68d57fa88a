"""Mandrill's API 1.4, as Mandrill documents it.

What becomes of a recipient can be asked for by its local part:
`reject-hard-bounce`, `reject-spam` and so on, `invalid`, and
`queued-sending-paused` and so on.
"""

import re
import secrets
from dataclasses import replace

from stampman.helpers import strict_json
from stampman.helpers.exceptions import BadRequest
from stampman.simulator import _mandrill_mail
from stampman.simulator.addresses import domain_of, is_address
from stampman.simulator.exchange import (
    Provider, Refused, Reply, Verdict, as_json)

MAX_BODY = 25_000_000       # bytes of a request
MAX_AT_ONCE = 10            # recipients whose results are told at once
IN_BACKGROUND = 'multiple-recipients'
REJECT_REASONS = (
    'hard-bounce', 'soft-bounce', 'spam', 'unsub', 'custom', 'rule',
    'invalid', 'invalid-sender', 'unsigned', 'test-mode-limit',
    'recipient-domain-mismatch')
QUEUED_REASONS = (
    'attachments', IN_BACKGROUND, 'free-trial-sends-exhausted',
    'hourly-quota-exhausted', 'monthly-limit-reached', 'sending-paused',
    'sending-suspended', 'account-suspended', 'sending-backlogged')
_PATH = re.compile(r'/api/1\.[04](/[a-z/-]+?)(\.json)?')


def problem(status, name, code, message):
    """Return Mandrill's body for an error."""
    return as_json(status, {'status': 'error', 'code': code, 'name': name,
                            'message': message})


INVALID_KEY = problem(401, 'Invalid_Key', -1, 'Invalid API key')
# A key can be limited to some calls; the words are not documented.
LIMITED = problem(403, 'PermissionDenied', -1,
                  'This API key is not permitted to make this call')
TOO_LARGE = Reply(413, b'<html><body>Request Entity Too Large</body></html>',
                  (('Content-Type', 'text/html'),))
ERRORS = {
    'AUTH': INVALID_KEY,
    'ACCOUNT': problem(402, 'PaymentRequired', 10,
                       'This feature needs a paid account.'),
    'RATE_LIMIT': problem(429, 'RequestLimitExceeded', -1,
                          'Too many requests'),
    'UNAVAILABLE': problem(503, 'ServiceUnavailable', -2,
                           'The service is not available.'),
    'PAYLOAD': problem(500, 'ValidationError', -2, 'Validation error'),
    'TOO_LARGE': TOO_LARGE,
}
# Classes that are told of each recipient: the status, and why.
OF_RECIPIENTS = {
    'RECIPIENT': ('invalid', None),
    'SUPPRESSED': ('rejected', 'hard-bounce'),
    'SENDER': ('rejected', 'invalid-sender'),
    'CONTENT': ('rejected', 'rule'),
}


class Mandrill(Provider):
    """One Mandrill account."""

    name = prefix = 'mandrill'

    def is_sending(self, method, path):
        found = _PATH.fullmatch(path)
        return bool(found) and found[1] == '/messages/send'

    def judge(self, request):
        """Every call is a POST with the key in its body."""
        routes = {'/messages/send': self._send, '/users/ping': self._ping,
                  '/users/info': self._info,
                  '/senders/domains': self._domains}
        found = _PATH.fullmatch(request.path)
        if not found or found[1] not in routes:
            raise Refused(problem(404, 'Unknown_Method', -1,
                                  'Unknown method'))
        if request.method != 'POST':
            raise Refused(problem(405, 'GeneralError', -1,
                                  'Every call is a POST'))
        if len(request.body) > MAX_BODY:
            raise Refused(TOO_LARGE)
        try:
            sent = strict_json.parse(request.body)
        except BadRequest as error:
            raise Refused(problem(500, 'ValidationError', -2,
                                  str(error))) from None
        if sent.get('key') != self.account.key:
            raise Refused(INVALID_KEY)
        if self.is_on('scope') and found[1] != '/users/ping':
            raise Refused(LIMITED)
        return routes[found[1]](request, sent)

    def error(self, word, taken):
        if word in ERRORS:
            return ERRORS[word]
        status, reason = OF_RECIPIENTS[word]
        return taken and as_json(200, [
            _result(one.email, status, reason) for one in taken.recipients])

    def rejecting(self, verdict, is_rejected):
        """Each recipient fares alone; in the background it is not told."""
        results = strict_json.read(verdict.reply.body)
        return _told([
            _result(one['email'], 'rejected', 'hard-bounce')
            if is_rejected(one['email'])
            and one['queued_reason'] != IN_BACKGROUND else one
            for one in results], verdict.taken)

    def settings(self, base_url):
        return {'api_key': self.account.key, 'base_url': base_url}

    def _send(self, request, sent):
        try:
            asked = _mandrill_mail.read(sent, len(request.body))
        except ValueError as error:
            raise Refused(problem(500, 'ValidationError', -2,
                                  str(error))) from None
        if sent.get('send_at'):
            raise Refused(ERRORS['ACCOUNT'])
        everyone = [one.email for one in asked.recipients]
        if len(everyone) > MAX_AT_ONCE or sent.get('async'):
            results = [_result(email, 'queued', IN_BACKGROUND)
                       for email in everyone]
        elif not self.account.may_send(domain_of(asked.sender)):
            results = [_result(email, 'rejected', 'unsigned')
                       for email in everyone]
        elif self.is_on('quota'):
            results = [_result(email, 'queued', 'hourly-quota-exhausted')
                       for email in everyone]
        else:
            results = [_result(email, *_fate(email)) for email in everyone]
        return _told(results, asked)

    def _ping(self, request, sent):
        return Verdict(as_json(200, 'PONG!'))

    def _info(self, request, sent):
        hourly, waiting = (0, 40) if self.is_on('quota') else (10_000, 0)
        return Verdict(as_json(200, {
            'username': 'simulated', 'created_at': '2020-01-01 00:00:00',
            'public_id': 'simulated', 'reputation': 100,
            'hourly_quota': hourly, 'backlog': waiting, 'stats': {}}))

    def _domains(self, request, sent):
        valid = {'valid': True, 'valid_after': None, 'error': None}
        return Verdict(as_json(200, [
            {'domain': domain, 'created_at': '2020-01-01 00:00:00',
             'spf': valid, 'dkim': valid, 'valid_signing': True,
             'verified_at': '2020-01-01 00:00:00'}
            for domain in self.account.listed]))


def _fate(email):
    """Return status and reason, which a local part can ask for."""
    local = email.rpartition('@')[0].lower()
    if local == 'invalid' or not is_address(email):
        return 'invalid', None
    for word, status, reasons in (
            ('reject-', 'rejected', REJECT_REASONS),
            ('queued-', 'queued', QUEUED_REASONS)):
        if local.startswith(word) and local.removeprefix(word) in reasons:
            return status, local.removeprefix(word)
    return 'sent', None


def _result(email, status, reason=None):
    taken = status in ('sent', 'queued')
    return {
        'email': email, 'status': status,
        '_id': secrets.token_hex(16) if taken else None,
        'reject_reason': reason if status == 'rejected' else None,
        'queued_reason': reason if status == 'queued' else None}


def _told(results, asked):
    """Taken is what has an id."""
    ids = {one['email']: one['_id'] for one in results if one['_id']}
    kept = tuple(one for one in asked.recipients if one.email in ids)
    taken = replace(
        asked, recipients=kept,
        provider_ids=tuple(ids[one.email] for one in kept)) if kept else None
    return Verdict(as_json(200, results), taken)
