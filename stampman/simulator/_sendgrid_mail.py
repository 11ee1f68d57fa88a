"""What SendGrid demands of a mail: every problem, in SendGrid's own form.

Stricter than SendGrid where it says what is not allowed without refusing
it: the characters of a display name, parameters of an attachment's type.
"""

import base64
import json
import re

from stampman.helpers import strict_json
from stampman.helpers.exceptions import BadRequest
from stampman.simulator.addresses import is_address

MAX_GROUPS = MAX_RECIPIENTS = 1000
MAX_CATEGORIES, MAX_CATEGORY = 10, 255
MAX_CUSTOM_ARGS = 10_000        # bytes
MAX_AHEAD = 72 * 3600           # seconds for which a mail may be scheduled
REFUSED_HEADERS = {
    'x-sg-id', 'x-sg-eid', 'received', 'dkim-signature', 'content-type',
    'content-transfer-encoding', 'to', 'from', 'subject', 'reply-to', 'cc',
    'bcc'}
FIELDS = {
    'personalizations': list, 'from': dict, 'reply_to': dict,
    'reply_to_list': list, 'subject': str, 'content': list,
    'attachments': list, 'template_id': str, 'headers': dict,
    'categories': list, 'custom_args': dict, 'send_at': int,
    'batch_id': str, 'asm': dict, 'ip_pool_name': str,
    'mail_settings': dict, 'tracking_settings': dict}
OF_A_GROUP = {
    'to': list, 'cc': list, 'bcc': list, 'from': dict, 'subject': str,
    'headers': dict, 'substitutions': dict, 'dynamic_template_data': dict,
    'custom_args': dict, 'send_at': int}
OF_A_FILE = {'content': str, 'type': str, 'filename': str,
             'disposition': str, 'content_id': str}
_CODE = {'text/plain': 0, 'text/html': 1}


def read(body, now):
    """Return the mail in `body` and a list of all that is wrong with it;
    `now` is in seconds since the epoch."""
    try:
        mail = strict_json.parse(body)
    except BadRequest:
        return {}, [_error(None, 'Bad Request')]
    check = _Check(mail, now)
    check.all()
    return mail, check.errors


def _error(field, message):
    return {'message': message, 'field': field, 'help': None}


class _Check:
    def __init__(self, mail, now):
        self.mail = mail
        self.now = now
        self.errors = []

    def all(self):
        """The later checks count on the types."""
        self.types(self.mail, FIELDS)
        if self.errors:
            return
        self.sender()
        self.groups()
        self.replies()
        self.subject()
        self.content()
        self.files()
        self.headers_and_args(self.mail, '')
        self.categories()
        self.settings()

    def wrong(self, field, message):
        self.errors.append(_error(field, message))

    def types(self, found, known, where=''):
        """Only what is known, and of the right type; return whether so."""
        before = len(self.errors)
        for name, value in found.items():
            if name not in known:
                self.wrong(f'{where}{name}',
                           f'Additional property {name} is not allowed')
            elif (not isinstance(value, known[name])
                  or isinstance(value, bool)):
                self.wrong(f'{where}{name}', 'Invalid type. Expected: '
                           f'{known[name].__name__}')
        return len(self.errors) == before

    def an_object(self, found, known, where):
        """The same of what stands deeper."""
        if isinstance(found, dict):
            return self.types(found, known, f'{where}.')
        self.wrong(where, 'Invalid type. Expected: object')
        return False

    def sender(self):
        if 'from' not in self.mail:
            self.wrong('from.email', 'The from object must be provided for '
                       'every email send.')
        else:
            self.mailbox(self.mail['from'], 'from')

    def mailbox(self, value, where):
        """A mailbox is an object of `email` and perhaps a `name`."""
        if not self.an_object(value, {'email': str, 'name': str}, where):
            return
        address = value.get('email')
        if not is_address(address) or not address.isascii():
            self.wrong(f'{where}.email', 'Does not contain a valid address.')
        if re.search('[;,]', value.get('name', '')):
            self.wrong(f'{where}.name',
                       'The name must not contain semicolons or commas.')

    def groups(self):
        groups = self.mail.get('personalizations')
        if not groups or len(groups) > MAX_GROUPS:
            self.wrong('personalizations', 'The personalizations field is '
                       'required and must have at least one personalization '
                       f'and at most {MAX_GROUPS}.')
            return
        total = sum(self.group(group, f'personalizations.{number}')
                    for number, group in enumerate(groups))
        if total > MAX_RECIPIENTS:
            self.wrong('personalizations', 'There are too many recipients; '
                       f'at most {MAX_RECIPIENTS} are allowed.')

    def group(self, group, where):
        """Return how many recipients one personalization has."""
        if not self.an_object(group, OF_A_GROUP, where):
            return 0
        if not group.get('to'):
            self.wrong(f'{where}.to', 'The to array is required for all '
                       'personalization objects, and must have at least one '
                       'email object with a valid email address.')
        seen, total = set(), 0
        for kind in ('to', 'cc', 'bcc'):
            if group.get(kind) == []:
                self.wrong(f'{where}.{kind}', 'The array must not be empty.')
            for number, mailbox in enumerate(group.get(kind, ())):
                self.mailbox(mailbox, f'{where}.{kind}.{number}')
                total += 1
                self.once(mailbox, seen, f'{where}.{kind}')
        self.headers_and_args(group, f'{where}.')
        return total

    def once(self, mailbox, seen, where):
        address = str(mailbox.get('email') if isinstance(mailbox, dict)
                      else mailbox).lower()
        if address in seen:
            self.wrong(where, 'Each email address in the personalization '
                       'block should be unique between to, cc, and bcc. We '
                       'found the first duplicate instance of '
                       f'[{address}] in the {where} field.')
        seen.add(address)

    def replies(self):
        if {'reply_to', 'reply_to_list'} <= set(self.mail):
            self.wrong('reply_to_list', 'The reply_to field and the '
                       'reply_to_list field exclude each other.')
        if 'reply_to' in self.mail:
            self.mailbox(self.mail['reply_to'], 'reply_to')
        replies = self.mail.get('reply_to_list')
        if replies is not None and not 1 <= len(replies) <= 1000:
            self.wrong('reply_to_list', 'The list must have 1 to 1000 '
                       'entries.')
        seen = set()
        for number, mailbox in enumerate(replies or ()):
            self.mailbox(mailbox, f'reply_to_list.{number}')
            self.once(mailbox, seen, 'reply_to_list')

    def subject(self):
        if self.mail.get('subject') or 'template_id' in self.mail:
            return
        groups = self.mail.get('personalizations') or ()
        if not groups or not all(isinstance(group, dict)
                                 and group.get('subject')
                                 for group in groups):
            self.wrong('subject', 'The subject is required. You can get '
                       'around this requirement if you use a template with a '
                       'subject defined or if every personalization has a '
                       'subject defined.')

    def content(self):
        parts = self.mail.get('content')
        if not parts:
            if parts is not None or 'template_id' not in self.mail:
                self.wrong('content', 'Unless a valid template_id is '
                           'provided, the content parameter is required. '
                           'There must be at least one defined content '
                           'block.')
            return
        ranks = []
        for number, part in enumerate(parts):
            where = f'content.{number}'
            if not self.an_object(part, {'type': str, 'value': str}, where):
                continue
            if not part.get('type'):
                self.wrong(f'{where}.type', 'The content type is required.')
            if not part.get('value'):
                self.wrong(f'{where}.value', 'The content value must be a '
                           'string at least one character in length.')
            ranks.append(_CODE.get(part.get('type'), 2))
        if ranks != sorted(ranks):
            self.wrong('content', 'If present, text/plain and text/html may '
                       'only be provided in that order, before all others.')

    def files(self):
        for number, part in enumerate(self.mail.get('attachments', ())):
            where = f'attachments.{number}'
            if not self.an_object(part, OF_A_FILE, where):
                continue
            if not part.get('filename'):
                self.wrong(f'{where}.filename', 'The filename is required.')
            if not part.get('content'):
                self.wrong(f'{where}.content', 'The attachment content must '
                           'be a string at least one character in length.')
            elif not _is_base64(part['content']):
                self.wrong(f'{where}.content', 'The attachment content must '
                           'be base64 encoded.')
            if re.search('[;\r\n]', part.get('type', '')):
                self.wrong(f'{where}.type', "The type cannot contain ';', or "
                           'CRLF characters.')
            if part.get('disposition', 'attachment') not in (
                    'attachment', 'inline'):
                self.wrong(f'{where}.disposition', 'The disposition must be '
                           'either "inline" or "attachment".')
            if re.search('[<>\r\n]', part.get('content_id', '')):
                self.wrong(f'{where}.content_id', 'The content_id must be '
                           'without angle brackets.')

    def headers_and_args(self, found, where):
        for name, value in found.get('headers', {}).items():
            if name.lower() in REFUSED_HEADERS:
                self.wrong(f'{where}headers.{name}', f'The header {name} is '
                           'reserved.')
            if not isinstance(value, str):
                self.wrong(f'{where}headers.{name}',
                           'The header must be a string.')
        args = found.get('custom_args', {})
        if not all(isinstance(value, str) for value in args.values()):
            self.wrong(None, 'Bad Request')
        if args and len(json.dumps(
                args, ensure_ascii=False).encode()) > MAX_CUSTOM_ARGS:
            self.wrong(f'{where}custom_args', 'The custom_args are larger '
                       f'than {MAX_CUSTOM_ARGS} bytes.')
        ahead = found.get('send_at', self.now) - self.now
        if ahead > MAX_AHEAD:
            self.wrong(f'{where}send_at', 'Scheduling more than 72 hours in '
                       'advance is forbidden.')

    def categories(self):
        found = self.mail.get('categories', [])
        if not all(isinstance(one, str) and 0 < len(one) <= MAX_CATEGORY
                   for one in found):
            self.wrong('categories', 'A category is a string of at most '
                       f'{MAX_CATEGORY} characters.')
        elif len(found) > MAX_CATEGORIES or len(set(found)) < len(found):
            self.wrong('categories', 'Up to 10 unique categories may be '
                       'assigned.')

    def settings(self):
        """Each setting is an object whose `enable` is true or false."""
        for field in ('mail_settings', 'tracking_settings'):
            for name, setting in self.mail.get(field, {}).items():
                if not isinstance(setting, dict) or not isinstance(
                        setting.get('enable'), bool):
                    self.wrong(f'{field}.{name}.enable',
                               'The enable parameter must be a boolean.')


def _is_base64(text):
    try:
        base64.b64decode(text, validate=True)
    except ValueError:
        return False
    return True
