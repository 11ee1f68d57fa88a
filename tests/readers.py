"""What a provider would make of a request: an email in plain values.

Nothing of Stampman builds a request here; JSON, forms and messages are read
by the standard library and by werkzeug.
"""

import base64
import io
import json
import re
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.utils import getaddresses, parseaddr

from werkzeug.formparser import parse_form_data

OUR_HEADER = 'X-Stampman-Id'
SWITCHES = {'yes': True, 'no': False}
STATUSES = {'ENABLED': True, 'DISABLED': False, None: None}


def read_form(request):
    """Return the fields and the files of a form, in their order."""
    _, fields, files = parse_form_data({
        'REQUEST_METHOD': request.method, 'wsgi.input': io.BytesIO(
            request.body), 'CONTENT_LENGTH': str(len(request.body)),
        'CONTENT_TYPE': request.headers['Content-Type']},
        stream_factory=lambda *_, **__: io.BytesIO())
    return list(fields.items(multi=True)), [
        (name, file.filename, file.headers['Content-Type'], file.read())
        for name, file in files.items(multi=True)]


def read_form_by_email(request):
    """Return (name, file name, content) of each part, by the stdlib."""
    head = f'Content-Type: {request.headers["Content-Type"]}\r\n\r\n'
    form = message_from_bytes(head.encode() + request.body,
                              policy=policy.HTTP)
    return [(part.get_param('name', header='content-disposition'),
             part.get_filename(), _content(part))
            for part in form.iter_parts()]


def read_sendgrid(request):
    fields = json.loads(request.body)
    envelope, = fields['personalizations']
    bodies = {part['type']: part['value'] for part in fields['content']}
    files = [(file['filename'], file['type'],
              base64.b64decode(file['content']), file['disposition'],
              file.get('content_id'))
             for file in fields.get('attachments', ())]
    tracking = fields.get('tracking_settings', {})
    replies = fields.get('reply_to_list', [])
    return {
        'from': _pair(fields['from']),
        'to': list(map(_pair, envelope.get('to', ()))),
        'cc': list(map(_pair, envelope.get('cc', ()))),
        'bcc': list(map(_pair, envelope.get('bcc', ()))),
        'reply_to': list(map(_pair, [fields['reply_to']]
                             if 'reply_to' in fields else replies)),
        'subject': fields.get('subject', ''),
        'text': bodies.get('text/plain'), 'html': bodies.get('text/html'),
        'headers': fields['headers'],
        'files': [file[:3] for file in files if file[3] == 'attachment'],
        'inline': [(file[4], *file[1:3]) for file in files
                   if file[3] == 'inline'],
        'tags': fields.get('categories', []),
        'metadata': fields['custom_args'],
        'opens': tracking.get('open_tracking', {}).get('enable'),
        'clicks': tracking.get('click_tracking', {}).get('enable')}


def _pair(address):
    return address['email'], address.get('name', '')


def read_mailgun(request):
    fields, files = read_form(request)

    def one(name, default=None):
        values = [value for key, value in fields if key == name]
        assert len(values) <= 1
        return values[0] if values else default

    def many(name):
        return [value for key, value in fields if key == name]

    def beginning(start):
        return {key.removeprefix(start): value for key, value in fields
                if key.startswith(start)}

    options = {
        'tags': many('o:tag'), 'metadata': beginning('v:'),
        'opens': SWITCHES.get(one('o:tracking-opens')),
        'clicks': SWITCHES.get(one('o:tracking-clicks'))}
    if request.path.endswith('.mime'):
        (_, _, _, message), = files
        read = {**read_message(message), **options}
        named = [email for email, _ in read['to'] + read['cc']]
        read['bcc'] = [(email, '') for email in many('to')
                       if email not in named]
        assert set(named) <= set(many('to'))
        return read
    headers = beginning('h:')
    replies = getaddresses([headers.pop('Reply-To', '')])
    return {
        'from': _parsed(one('from')), 'to': list(map(_parsed, many('to'))),
        'cc': list(map(_parsed, many('cc'))),
        'bcc': list(map(_parsed, many('bcc'))),
        'reply_to': [(email, name) for name, email in replies if email],
        'subject': one('subject', ''),
        'text': one('text'), 'html': one('html'), 'headers': headers,
        'files': [file[1:] for file in files if file[0] == 'attachment'],
        'inline': [file[1:] for file in files if file[0] == 'inline'],
        **options}


def _parsed(text):
    name, email = parseaddr(text)
    return email, name


def read_message(raw):
    """Return an Internet message in the same form; it names no Bcc."""
    message = message_from_bytes(raw, policy=policy.default)
    assert not [part.defects for part in message.walk() if part.defects]
    text = message.get_body(('plain',))
    html = message.get_body(('html',))
    parts = [part for part in message.walk()
             if part.get_content_disposition()]
    known = {'from', 'to', 'cc', 'reply-to', 'subject', 'date', 'message-id',
             'mime-version', 'content-type', 'content-transfer-encoding'}
    return {
        'from': _mailboxes(message['From'])[0],
        **{field: _mailboxes(message[name]) for field, name in (
            ('to', 'To'), ('cc', 'Cc'), ('reply_to', 'Reply-To'))},
        'subject': str(message['Subject'] or ''),
        'text': text and text.get_content(),
        'html': html and html.get_content(),
        'headers': {name: str(value) for name, value in message.items()
                    if name.lower() not in known},
        'files': [_file(part['Content-Disposition'].params['filename'], part)
                  for part in parts
                  if part.get_content_disposition() == 'attachment'],
        'inline': [_file(part['Content-ID'].strip('<>'), part)
                   for part in parts
                   if part.get_content_disposition() == 'inline']}


def _mailboxes(header):
    return [(one.addr_spec, one.display_name)
            for one in header.addresses] if header else []


def _file(name, part):
    """The type as it is written: str() of the header would quote anew."""
    kind = dict(part.raw_items())['Content-Type']
    return name, ' '.join(kind.split()), _content(part)


def _content(part):
    if part.get_content_maintype() == 'message':
        return part.get_payload(0).as_bytes()
    return part.get_payload(decode=True)


def read_mandrill(request):
    fields = json.loads(request.body)
    assert fields.keys() == {'key', 'message', 'async'}
    message = fields['message']
    headers = dict(message['headers'])
    replies = policy.default.header_factory(
        'Reply-To', headers.pop('Reply-To', ''))
    assert not replies.defects and message['preserve_recipients'] is True

    def addressed(kind):
        return [_pair(one) for one in message['to'] if one['type'] == kind]

    def files(field):
        return [(file['name'], file['type'],
                 base64.b64decode(file['content'], validate=True))
                for file in message.get(field, ())]

    return {
        'from': (message['from_email'], message.get('from_name', '')),
        'to': addressed('to'), 'cc': addressed('cc'), 'bcc': addressed('bcc'),
        'reply_to': _mailboxes(replies),
        'subject': message.get('subject', ''),
        'text': message.get('text'), 'html': message.get('html'),
        'headers': headers, 'files': files('attachments'),
        'inline': files('images'), 'tags': message.get('tags', []),
        'metadata': message['metadata'],
        'opens': message.get('track_opens'),
        'clicks': message.get('track_clicks')}


def read_amazon_ses(request):
    fields = json.loads(request.body)
    (form, content), = fields['Content'].items()
    whom = fields['Destination']
    pairs = [(tag['Name'], _tag_value(tag['Value']))
             for tag in fields.get('EmailTags', ())]
    tracking = fields.get('ConfigurationOverrides', {}).get('Tracking', {})
    options = {
        'tags': [text for name, text in pairs if _is_tag(name)],
        'metadata': {name: text for name, text in pairs
                     if not _is_tag(name)},
        'opens': STATUSES[tracking.get('OpenTrackingEnabled')],
        'clicks': STATUSES[tracking.get('ClickTrackingEnabled')]}
    if form == 'Raw':
        read = read_message(base64.b64decode(content['Data'], validate=True))
        for field, name in (('to', 'ToAddresses'), ('cc', 'CcAddresses')):
            assert [email for email, _ in read[field]] == whom.get(name, [])
        return {**read, **options, 'bcc': [
            (email, '') for email in whom.get('BccAddresses', ())]}
    texts = {name: text['Data'] for name, text in content['Body'].items()
             if text['Charset'] == 'UTF-8'}
    assert content['Headers'] and len(content['Headers']) <= 15
    return {
        'from': _decoded(fields['FromEmailAddress']),
        'to': list(map(_decoded, whom.get('ToAddresses', ()))),
        'cc': list(map(_decoded, whom.get('CcAddresses', ()))),
        'bcc': list(map(_decoded, whom.get('BccAddresses', ()))),
        'reply_to': list(map(_decoded, fields.get('ReplyToAddresses', ()))),
        'subject': content['Subject']['Data'],
        'text': texts.get('Text'), 'html': texts.get('Html'),
        'headers': {header['Name']: header['Value']
                    for header in content['Headers']},
        'files': [], 'inline': [], **options}


def _is_tag(name):
    return re.fullmatch('stampman_tag_[0-9]+', name) is not None


def _tag_value(text):
    assert re.fullmatch('[A-Za-z0-9_-]{1,256}', text)
    if not text.startswith('b64_'):
        return text
    encoded = text.removeprefix('b64_')
    return base64.urlsafe_b64decode(
        encoded + '=' * (-len(encoded) % 4)).decode()


def _decoded(text):
    """A mailbox in ASCII, its name perhaps in encoded words."""
    assert text.isascii()
    email, name = _parsed(text)
    return email, str(make_header(decode_header(name)))


READERS = {'amazon_ses': read_amazon_ses, 'mailgun': read_mailgun,
           'mandrill': read_mandrill, 'sendgrid': read_sendgrid}
