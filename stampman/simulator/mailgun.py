"""Mailgun's HTTP API v3, as Mailgun documents it."""

import base64
import re
import secrets
from email.utils import formatdate
from urllib.parse import unquote

from stampman.simulator import mime, multipart
from stampman.simulator.addresses import (
    bare, is_address, several)
from stampman.simulator.exchange import (
    Provider, Refused, Verdict, as_json, as_text)
from stampman.simulator.ledger import Ids, Recipient, Taken

MAX_BODY = 25_000_000       # bytes of a request
MAX_RECIPIENTS = 1000       # in `to`
MAX_OPTIONS = 16_384        # bytes of all fields named `o:` `h:` `v:` `t:`
OPTIONS = ('o:', 'h:', 'v:', 't:')
BODIES = {'text', 'html', 'amp-html', 'template'}
FILES = ('attachment', 'inline')    # without a file name they are dropped
SWITCHES = {
    'o:testmode': {'yes', 'no', 'true', 'false'},
    'o:tracking': {'yes', 'no', 'true', 'false', 'htmlonly'},
    'o:tracking-opens': {'yes', 'no', 'true', 'false'},
    'o:tracking-clicks': {'yes', 'no', 'true', 'false', 'htmlonly'},
}
_SEND = re.compile('/v3/([^/]+)/messages(.mime)?')
_DOMAIN = re.compile('/v4/domains/([^/]+)')
_QUEUES = re.compile('/v3/domains/([^/]+)/sending_queues')


def problem(status, message):
    """Return Mailgun's body for an error."""
    return as_json(status, {'message': message})


NOT_FOUND = problem(404, 'Domain not found')
FORBIDDEN = as_text(401, 'Forbidden')
TOO_LARGE = problem(413, 'Message is too large')
LONG = 86_400       # seconds until there is a quota again
USED_UP = ('Domain {} is not allowed to send: monthly limit exceeded, try '
           f'again after {LONG} seconds')
BAD_TO = "'{}' parameter is not a valid address. please check documentation"
ERRORS = {
    'AUTH': FORBIDDEN,
    'ACCOUNT': problem(403, 'Domain example.com is not allowed to send: '
                       'Please activate your Mailgun account.'),
    'RATE_LIMIT': problem(429, 'Domain example.com is not allowed to send: '
                          'request limit exceeded, try again after 2 '
                          'seconds'),
    'UNAVAILABLE': problem(503, 'Service Unavailable'),
    'RECIPIENT': problem(400, BAD_TO.format('to')),
    'SENDER': problem(400, 'from parameter is not valid'),
    'CONTENT': problem(400, 'The content is not allowed'),
    'PAYLOAD': problem(400, 'Need at least one of \'text\', \'html\', '
                       '\'amp-html\' or \'template\' parameters specified'),
    'TOO_LARGE': TOO_LARGE,
}


class Mailgun(Provider):
    """One Mailgun account, in one region."""

    name = prefix = 'mailgun'

    def is_sending(self, method, path):
        return method == 'POST' and _SEND.fullmatch(path) is not None

    def judge(self, request):
        """A path that means nothing has a 200 in plain text, as there."""
        for method, pattern, answer in (
                ('POST', _SEND, self._send), ('GET', _DOMAIN, self._domain),
                ('GET', _QUEUES, self._queues)):
            found = pattern.fullmatch(request.path)
            if found and request.method == method:
                break
        else:
            return Verdict(as_text(200, 'Mailgun Magnificent API'))
        if request.headers.get('authorization') != self._basic():
            raise Refused(FORBIDDEN)
        domain = unquote(found[1]).lower()
        if not is_address(f'postmaster@{domain}') or (
                not self.account.may_send(domain)):
            raise Refused(NOT_FOUND)
        return answer(request, domain)

    def error(self, word, taken):
        return ERRORS[word]

    def rejecting(self, verdict, is_rejected):
        """All are refused for one."""
        return next(Verdict(problem(400, BAD_TO.format(one.kind)))
                    for one in verdict.taken.recipients
                    if is_rejected(one.email))

    def settings(self, base_url):
        return {'api_key': self.account.key, 'base_url': base_url}

    def _basic(self):
        raw = f'api:{self.account.key}'.encode()
        return f'Basic {base64.b64encode(raw).decode()}'

    def _send(self, request, domain):
        if self.is_on('quota'):
            raise Refused(problem(429, USED_UP.format(domain)))
        if len(request.body) > MAX_BODY:
            raise Refused(TOO_LARGE)
        form = _Form(request)
        raw = _SEND.fullmatch(request.path)[2]
        provider_id = f'{secrets.token_hex(16)}@{domain}'
        taken = (form.raw if raw else form.built)(provider_id)
        testing = form.first('o:testmode') in ('yes', 'true')
        return Verdict(as_json(200, {
            'id': f'<{provider_id}>', 'message': 'Queued. Thank you.'}),
            None if testing else taken)

    def _domain(self, request, domain):
        return Verdict(as_json(200, {
            'domain': {'name': domain, 'state': 'active'},
            'receiving_dns_records': [],
            'sending_dns_records': [
                {'record_type': 'TXT', 'name': domain, 'valid': 'valid',
                 'value': 'v=spf1 include:mailgun.org ~all'}]}))

    def _queues(self, request, domain):
        used_up = self.is_on('quota')
        queue = {'is_disabled': used_up, 'disabled': {
            'until': formatdate(self.now() + LONG, usegmt=True),
            'reason': 'The monthly limit is exceeded'} if used_up else {}}
        return Verdict(as_json(200, {'regular': queue, 'scheduled': queue}))


class _Form:
    """The fields of a message, checked as they are asked for."""

    def __init__(self, request):
        try:
            self.parts = multipart.parse(
                request.headers.get('content-type', ''), request.body)
            self.texts = [(part.name, part.text) for part in self.parts
                          if part.filename is None
                          and part.name not in FILES]
        except ValueError as error:     # a field may be no UTF-8
            raise Refused(problem(400, str(error))) from None
        self._check_options()

    def all(self, name):
        return [text for key, text in self.texts if key == name]

    def first(self, name):
        return next(iter(self.all(name)), '')

    def addresses(self, name, required=False):
        """Return the addresses in the fields `name`; each must be one."""
        found = several([text for text in self.all(name) if text.strip()])
        if required and not found:
            raise Refused(problem(400, f'{name} parameter is missing'))
        if not all(map(is_address, found)):
            raise Refused(problem(400, BAD_TO.format(name)))
        return found

    def built(self, provider_id):
        """Return what is taken where Mailgun builds the message."""
        if not self.first('from'):
            raise Refused(problem(400, 'from parameter is missing'))
        sender = bare(self.first('from'))
        if sender is None or len(self.all('from')) > 1:
            raise Refused(problem(400, 'from parameter is not valid'))
        groups = {name: self.addresses(name, name == 'to')
                  for name in ('to', 'cc', 'bcc')}
        self._check_count(groups['to'])
        if not any(self.first(name) for name in BODIES):
            raise Refused(ERRORS['PAYLOAD'])
        return Taken(
            provider_ids=(provider_id,), sender=sender,
            recipients=tuple(Recipient(address, kind)
                             for kind, group in groups.items()
                             for address in group),
            subject=self.first('subject'), size=self._size(),
            ids=self._ids(), text=self.first('text'),
            html=self.first('html'))

    def raw(self, provider_id):
        """Return what is taken where the message is there as MIME."""
        envelope = self.addresses('to', required=True)
        self._check_count(envelope)
        files = [part.content for part in self.parts
                 if part.name == 'message' and part.filename is not None]
        if len(files) != 1 or not files[0]:
            raise Refused(problem(400, "Need exactly one file 'message'"))
        try:
            message = mime.read(files[0])
            if not mime.named(message, 'from'):
                raise Refused(problem(400, 'from parameter is missing'))
            return mime.taken_of(message, len(files[0]), (provider_id,),
                                 envelope, ids=self._ids())
        except mime.Malformed as error:
            raise Refused(problem(400, str(error))) from None

    def _ids(self):
        planted = Ids.of_metadata({
            name[2:]: text for name, text in self.texts
            if name.startswith('v:')})
        return planted if planted.message else Ids.of_header(
            self.first('h:X-Stampman-Id'))

    def _size(self):
        """A file part without a name is dropped, silently."""
        return sum(len(part.content) for part in self.parts
                   if part.filename is not None
                   or part.name not in FILES)

    def _check_count(self, recipients):
        if len(recipients) > MAX_RECIPIENTS:
            raise Refused(problem(400, 'Too many recipients: at most '
                                  f'{MAX_RECIPIENTS}'))

    def _check_options(self):
        options = [(name, text) for name, text in self.texts
                   if name.startswith(OPTIONS)]
        size = sum(len(name.encode() + text.encode())
                   for name, text in options)
        if size > MAX_OPTIONS:
            raise Refused(problem(
                400, 'o:, h:, v: and t: parameters are limited to 16KB'))
        for name, text in options:
            if name in SWITCHES and text.lower() not in SWITCHES[name]:
                raise Refused(problem(400, f'{name} is not valid'))
            if name == 'o:tag' and not text.isascii():
                raise Refused(problem(400, 'a tag must be ASCII'))
            if not name[2:] or '\n' in name + (
                    text if name.startswith('h:') else ''):
                raise Refused(problem(400, f'{name[:2]} is not valid'))
