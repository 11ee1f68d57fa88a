"""An email as the body of SES's SendEmail, simple or as MIME.

The simple form is SES's to write; where it would lose or change something
of the email, a whole message goes instead.
"""

import base64
import re

from stampman.helpers.mail import Email
from stampman.services import _mime
from stampman.services.base import CannotCarry, SendContext, over

MAX_MESSAGE = 40_000_000    # bytes of a message
MAX_HEADERS = 15        # in the simple form, with ours
MAX_HEADER = 996        # characters of a header's name and value together
MAX_TAG = 256           # characters of a tag's value
TAG = re.compile('[A-Za-z0-9_-]{1,256}')
ENCODED = 'b64_'
OUR_TAG = 'stampman_tag_'
STATUS = {True: 'ENABLED', False: 'DISABLED'}


def payload(email: Email, context: SendContext,
            configuration_set: str | None, now: float, domain: str) -> dict:
    """Return the request's fields, none of them empty.

    `now` is in seconds since the epoch; `domain` names the message's id.
    Raises CannotCarry where the message cannot be written, or is too large.
    """
    if _needs_mime(email, context):
        message = _mime.render(
            email, now, f'{context.message_id}@{domain}', context.headers)
        _check_size(message)
        form = _as_mime(message, email, context)
    else:
        _check_size(*(text.encode() for text in (email.content, email.html)
                      if text))
        form = _as_simple(email, context)
    return _present({
        **form,
        'EmailTags': [{'Name': name, 'Value': _tag_value(text)}
                      for name, text in _tags(email, context)],
        'ConfigurationSetName': configuration_set,
        'ConfigurationOverrides': _overrides(email)})


def tag_objection(email: Email) -> str:
    """Return what of the metadata and tags cannot be EmailTags, or ''."""
    return next(_not_for_tags(email), '')


def _check_size(*parts):
    if too_large := over(sum(map(len, parts)), MAX_MESSAGE, 'bytes'):
        raise CannotCarry(f'the whole email: {too_large}')


def _needs_mime(email, context):
    """Whether the simple form would lose or change something."""
    headers = _headers(email, context)
    return (bool(email.attachments) or context.envelope is not None
            or not email.recipients or not email.subject
            or '=?' in email.subject or len(headers) > MAX_HEADERS
            or not all(_is_simple(*header) for header in headers.items()))


def _is_simple(name, text):
    """Text that looks like an encoded word would be taken for one."""
    return (0 < len(text) <= MAX_HEADER - len(name) and text.isascii()
            and text.isprintable() and '=?' not in text)


def _as_mime(message, email, context):
    """The destination is the envelope here: nobody reads it."""
    whom = {one.email for one in context.recipients_of(email)}
    return {
        'Destination': _destination(email, lambda group: [
            one.email for one in group if one.email in whom]),
        'Content': {'Raw': {'Data': base64.b64encode(message).decode()}}}


def _as_simple(email, context):
    return {
        'FromEmailAddress': _mailbox(email.sender),
        'Destination': _destination(email, _mailboxes),
        'ReplyToAddresses': _mailboxes(email.reply_to),
        'Content': {'Simple': {
            'Subject': _text(email.subject),
            'Body': {name: _text(text) for name, text in (
                ('Text', email.content), ('Html', email.html)) if text},
            'Headers': [{'Name': name, 'Value': text} for name, text
                        in _headers(email, context).items()]}}}


def _destination(email, written):
    return _present({'ToAddresses': written(email.recipients),
                     'CcAddresses': written(email.cc),
                     'BccAddresses': written(email.bcc)})


def _mailboxes(addresses):
    return [_mailbox(address) for address in addresses]


def _mailbox(address):
    return _mime.mailboxes([address])


def _text(text):
    return {'Data': text, 'Charset': 'UTF-8'}


def _headers(email, context):
    return {**email.headers, **context.headers}


def _overrides(email):
    """What is not said stays as the configuration set has it."""
    tracking = {name: STATUS[switch] for name, switch in (
        ('OpenTrackingEnabled', email.track_opens),
        ('ClickTrackingEnabled', email.track_clicks)) if switch is not None}
    return _present({'Tracking': tracking})


def _tags(email, context):
    yield from {**email.metadata, **context.metadata}.items()
    for number, tag in enumerate(email.tags, 1):
        yield f'{OUR_TAG}{number}', tag


def _tag_value(text):
    if TAG.fullmatch(text) and not text.startswith(ENCODED):
        return text
    encoded = base64.urlsafe_b64encode(text.encode()).decode()
    return ENCODED + encoded.rstrip('=')


def _not_for_tags(email):
    """What of metadata and tags cannot be EmailTags."""
    if not all(map(TAG.fullmatch, email.metadata)):
        yield ('metadata: a key is not of 1 to 256 of the characters A-Z, '
               'a-z, 0-9, "_" and "-"')
    for field, texts in (('metadata', email.metadata.values()),
                         ('tags', email.tags)):
        longest = max((len(_tag_value(text)) for text in texts), default=0)
        if too_long := over(longest, MAX_TAG, 'characters of a value'):
            yield f'{field}: {too_long}'


def _present(fields):
    return {name: value for name, value in fields.items() if value}
