"""What Amazon SES demands of a SendEmail request."""

import base64
import re

from stampman.simulator import mime
from stampman.simulator.addresses import bare
from stampman.simulator.ledger import Ids, Recipient, Taken

MAX_SIZE = 40 * 1024 * 1024     # bytes of a message after base64
MAX_RECIPIENTS, MAX_HEADERS = 50, 15
FIELDS = {
    'FromEmailAddress': str, 'FromEmailAddressIdentityArn': str,
    'Destination': dict, 'ReplyToAddresses': list,
    'FeedbackForwardingEmailAddress': str,
    'FeedbackForwardingEmailAddressIdentityArn': str, 'Content': dict,
    'EmailTags': list, 'ConfigurationSetName': str, 'EndpointId': str,
    'TenantName': str, 'ListManagementOptions': dict,
    'ConfigurationOverrides': dict}
KINDS = {'ToAddresses': 'to', 'CcAddresses': 'cc', 'BccAddresses': 'bcc'}
OF_SIMPLE = {'Subject': dict, 'Body': dict, 'Headers': list,
             'Attachments': list}
OF_A_FILE = {'RawContent': str, 'FileName': str, 'ContentType': str,
             'ContentDisposition': str, 'ContentId': str,
             'ContentDescription': str, 'ContentTransferEncoding': str}
PAIR = {'Name': str, 'Value': str}
_TAG = re.compile('[A-Za-z0-9_-]{1,256}')
_HEADER_NAME = re.compile('[!-9;-~]{1,126}')
_HEADER_VALUE = re.compile('[ -~]{1,995}')


class TooLarge(Exception):
    """Raised where a message is larger than SES takes."""


def read(sent, provider_id):
    """Return what is taken by a request.

    Raises ValueError that says what is wrong, or TooLarge.
    """
    known(sent, FIELDS)
    content = sent.get('Content', {})
    known(content, {'Simple': dict, 'Raw': dict, 'Template': dict})
    require(len(content) == 1, 'Content must have exactly one of Simple, Raw '
            'and Template')
    tags = pairs(sent.get('EmailTags', []), 'EmailTags')
    require(all(_TAG.fullmatch(name) and _TAG.fullmatch(value)
                for name, value in tags), 'Tag name or value is not valid')
    for reply in sent.get('ReplyToAddresses', []):
        mailbox(reply)
    overrides(sent.get('ConfigurationOverrides', {}))
    recipients = destination(sent.get('Destination', {}))
    sender = (mailbox(sent['FromEmailAddress'])
              if 'FromEmailAddress' in sent else '')
    ids = Ids.of_metadata(dict(tags))
    if 'Raw' in content:
        return _raw(content['Raw'], provider_id, sender, recipients, ids)
    require(sender, 'FromEmailAddress is missing')
    require(recipients, 'Destination has no address')
    build = _simple if 'Simple' in content else _template
    subject, text, html, headers, size = build(*content.values())
    if not ids.message:
        ids = Ids.of_header(headers.get('x-stampman-id'))
    return Taken((provider_id,), sender, recipients, subject, size, ids,
                 text, html)


def require(condition, message):
    """Raise ValueError unless `condition`."""
    if not condition:
        raise ValueError(message)


def known(found, fields):
    """Require that `found` has known members only, of the right types."""
    require(isinstance(found, dict), 'a structure is expected')
    for name, value in found.items():
        require(name in fields, f'{name} is not known')
        require(isinstance(value, fields[name])
                and not isinstance(value, bool),
                f'{name} has the wrong type')


def pairs(found, where):
    """Return a list of Name and Value as tuples."""
    for pair in found:
        known(pair, PAIR)
        require(len(pair) == 2, f'{where}: Name and Value are required')
    return [(pair['Name'], pair['Value']) for pair in found]


def mailbox(text):
    """Return the bare address; a name must be there as RFC 2047 has it."""
    require(isinstance(text, str) and text.strip(), 'Empty address')
    require(text.isprintable(), 'Local address contains control or '
            'whitespace')
    require(text.isascii(), 'Local address contains non-ASCII characters')
    require('@' in text, "Missing final '@domain'")
    found = bare(text)
    require(found, 'Local address contains control or whitespace')
    return found


def destination(found):
    """Return the recipients; there may be none."""
    known(found, dict.fromkeys(KINDS, list))
    everyone = tuple(Recipient(mailbox(address), kind)
                     for name, kind in KINDS.items()
                     for address in found.get(name, []))
    require(len(everyone) <= MAX_RECIPIENTS,
            f'Recipient count exceeds {MAX_RECIPIENTS}.')
    return everyone


def overrides(found):
    """Check the switches for tracking."""
    known(found, {'Tracking': dict, 'Archiving': dict})
    tracking = found.get('Tracking', {})
    known(tracking, {'OpenTrackingEnabled': str, 'ClickTrackingEnabled': str,
                     'CustomRedirectDomain': str})
    require({tracking.get(name, 'ENABLED') for name in (
        'OpenTrackingEnabled', 'ClickTrackingEnabled')}
        <= {'ENABLED', 'DISABLED'}, 'Tracking is ENABLED or DISABLED')


def _raw(found, provider_id, sender, recipients, ids):
    known(found, {'Data': str})
    data = _decoded(found.get('Data'), 'Raw.Data')
    _check_size(len(data))
    message = mime.read(data)
    require(message.keys() and not message.defects,
            'The raw message is not MIME')
    sender = sender or next(iter(mime.named(message, 'from')), '')
    require(sender, 'The raw message has no From')
    mailbox(sender)
    if not recipients:
        recipients = tuple(Recipient(mailbox(address), kind)
                           for kind in ('to', 'cc', 'bcc')
                           for address in mime.named(message, kind))
    require(1 <= len(recipients) <= MAX_RECIPIENTS,
            f'There must be 1 to {MAX_RECIPIENTS} recipients.')
    taken = mime.taken_of(message, len(data), (provider_id,),
                          [one.email for one in recipients], sender, ids)
    return taken


def _simple(found):
    """Return subject, text, html, headers and the size in bytes."""
    known(found, OF_SIMPLE)
    require('Subject' in found and found.get('Body'),
            'Simple needs Subject and Body')
    known(found['Body'], {'Text': dict, 'Html': dict})
    subject = _content(found['Subject'], 'Subject')
    text, html = (_content(found['Body'][name], name)
                  if name in found['Body'] else ''
                  for name in ('Text', 'Html'))
    require('\n' not in subject and '\r' not in subject,
            'Subject has a line break')
    headers = _headers(found.get('Headers', []))
    size = len((subject + text + html).encode()) + sum(
        map(_file, found.get('Attachments', [])))
    _check_size(size)
    return subject, text, html, headers, size


def _template(found):
    known(found, {'TemplateName': str, 'TemplateArn': str,
                  'TemplateContent': dict, 'TemplateData': str,
                  'Headers': list, 'Attachments': list})
    require(len({'TemplateName', 'TemplateArn', 'TemplateContent'}
                & set(found)) == 1, 'Template must have exactly one of '
            'TemplateName, TemplateArn and TemplateContent')
    content = found.get('TemplateContent', {})
    known(content, {'Subject': str, 'Text': str, 'Html': str})
    size = sum(map(_file, found.get('Attachments', [])))
    _check_size(size)
    return (content.get('Subject', ''), content.get('Text', ''),
            content.get('Html', ''), _headers(found.get('Headers', [])), size)


def _content(found, where):
    known(found, {'Data': str, 'Charset': str})
    require('Data' in found, f'{where} has no Data')
    require(found.get('Charset', 'UTF-8').upper() in ('UTF-8', 'US-ASCII')
            or found['Data'].isascii(), f'{where} has no Charset for it')
    require('Charset' in found or found['Data'].isascii(),
            f'{where} is not ASCII and has no Charset')
    return found['Data']


def _headers(found):
    headers = pairs(found, 'Headers')
    require(len(headers) <= MAX_HEADERS, 'More than 15 headers')
    for name, value in headers:
        require(_HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(
            value), f'The header {name} is not valid')
    return {name.lower(): value for name, value in headers}


def _file(found):
    """Return the size of an attachment after base64."""
    known(found, OF_A_FILE)
    require(found.get('FileName'), 'An attachment has no FileName')
    require(found.get('ContentDisposition', 'ATTACHMENT')
            in ('ATTACHMENT', 'INLINE'), 'ContentDisposition is not valid')
    require(found.get('ContentTransferEncoding', 'BASE64') in (
        'BASE64', 'QUOTED_PRINTABLE', 'SEVEN_BIT'),
        'ContentTransferEncoding is not valid')
    require('ContentId' not in found or found['ContentId'],
            'ContentId is empty')
    _decoded(found.get('RawContent'), 'RawContent')
    return len(found['RawContent'])


def _decoded(text, where):
    require(text, f'{where} is missing')
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise ValueError(f'{where} is no base64') from None


def _check_size(size):
    if size > MAX_SIZE:
        raise TooLarge
