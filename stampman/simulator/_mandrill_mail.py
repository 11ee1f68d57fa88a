"""What Mandrill demands of a message."""

import base64

from stampman.simulator.addresses import is_address
from stampman.simulator.ledger import Ids, Recipient, Taken

MAX_SUBJECT, MAX_TAG = 998, 50      # characters
KINDS = ('to', 'cc', 'bcc')
OF_A_CALL = {'key': str, 'message': dict, 'async': bool, 'ip_pool': str,
             'send_at': str}
OF_A_MESSAGE = {
    'html': str, 'text': str, 'subject': str, 'from_email': str,
    'from_name': str, 'to': list, 'headers': dict, 'important': bool,
    'track_opens': bool, 'track_clicks': bool, 'auto_text': bool,
    'auto_html': bool, 'inline_css': bool, 'url_strip_qs': bool,
    'preserve_recipients': bool, 'view_content_link': bool,
    'bcc_address': str, 'tracking_domain': str, 'signing_domain': str,
    'return_path_domain': str, 'merge': bool, 'merge_language': str,
    'global_merge_vars': list, 'merge_vars': list, 'tags': list,
    'subaccount': str, 'google_analytics_domains': list,
    'google_analytics_campaign': str, 'metadata': dict,
    'recipient_metadata': list, 'attachments': list, 'images': list}
OF_A_RECIPIENT = {'email': str, 'name': str, 'type': str}
OF_A_FILE = {'type': str, 'name': str, 'content': str}


def read(sent, size):
    """Return what would be taken of a call; its ids are not known yet.

    Raises ValueError that says what is wrong, in Mandrill's manner.
    """
    _known(sent, OF_A_CALL)
    message = sent.get('message')
    _require(message, 'message', 'You must specify a message value')
    _known(message, OF_A_MESSAGE, 'message.')
    _require(is_address(message.get('from_email')), 'message.from_email',
             'An email address must contain a single @')
    _require(message.get('to'), 'message.to', 'Please enter an array')
    recipients = tuple(_recipient(one, f'message.to.{number}')
                       for number, one in enumerate(message['to']))
    _require(message.get('text') or message.get('html'), 'message',
             'Please enter text or html')
    _require(len(message.get('subject', '')) <= MAX_SUBJECT,
             'message.subject', 'Please enter at most 998 characters')
    _strings(message, 'headers')
    _strings(message, 'metadata')
    for tag in message.get('tags', ()):
        _require(isinstance(tag, str) and 0 < len(tag) <= MAX_TAG
                 and not tag.startswith('_'), 'message.tags',
                 'A tag has at most 50 characters and no leading underscore')
    for field in ('attachments', 'images'):
        for number, part in enumerate(message.get(field, ())):
            _file(part, f'message.{field}.{number}', field == 'images')
    ids = Ids.of_metadata(message.get('metadata', {}))
    if not ids.message:
        ids = Ids.of_header(message.get('headers', {}).get('X-Stampman-Id'))
    return Taken((), message['from_email'], recipients,
                 message.get('subject', ''), size, ids,
                 message.get('text', ''), message.get('html', ''))


def _require(condition, where, why):
    if not condition:
        raise ValueError(
            f'Validation error: {{"{where}":"{why}"}}')


def _known(found, fields, where=''):
    _require(isinstance(found, dict), where.rstrip('.'),
             'Please enter an object')
    for name, value in found.items():
        _require(name in fields, f'{where}{name}', 'This is not known')
        _require(isinstance(value, fields[name]), f'{where}{name}',
                 f'Please enter a {fields[name].__name__}')


def _recipient(found, where):
    """A malformed address is told of later, as `invalid`."""
    _known(found, OF_A_RECIPIENT, f'{where}.')
    _require(found.get('email'), f'{where}.email', 'Please enter a value')
    kind = found.get('type', 'to')
    _require(kind in KINDS, f'{where}.type', 'Please enter to, cc or bcc')
    return Recipient(found['email'], kind)


def _strings(message, field):
    for name, value in message.get(field, {}).items():
        _require(name and isinstance(value, str), f'message.{field}.{name}',
                 'Please enter a string')


def _file(part, where, must_be_image):
    _known(part, OF_A_FILE, f'{where}.')
    for name in OF_A_FILE:      # an empty file has an empty content
        _require(part.get(name) or name == 'content' and name in part,
                 f'{where}.{name}', 'Please enter a value')
    _require(not must_be_image or part['type'].startswith('image/'),
             f'{where}.type', 'Please enter a type that begins with image/')
    try:
        base64.b64decode(part['content'], validate=True)
    except ValueError:
        _require(False, f'{where}.content', 'Please enter base64')
