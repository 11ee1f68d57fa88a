"""What an email says beside its content, as headers of a message.

SMTP has no place for tags, metadata and tracking switches. They go as
headers of our own, or, where the settings name the company behind the
server, as the headers by which that one is told (names seen at Postmark;
those of the others are not verified).
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from stampman.helpers.mail import Email
from stampman.services._capabilities import Capabilities
from stampman.services._context import CannotCarry, SendContext
from stampman.services._mime import is_plain

Headers = Mapping[str, str | list[str]]
YES_NO = {True: 'yes', False: 'no'}
ON_OFF = {True: 1, False: 0}
# Postmark rewrites links in the text too, or in neither body.
LINKS = {True: 'HtmlAndText', False: 'None'}
_SES_WORD = re.compile('[A-Za-z0-9_.@-]{1,256}')
_HEADER_WORD = re.compile('[A-Za-z0-9_-]{1,100}')


class Vendor(NamedTuple):
    """What a vendor's headers can say, and how they say it."""

    capabilities: Capabilities
    headers: Callable[[Email, Mapping[str, str]], Headers]


def headers_of(vendor: str | None, email: Email,
               context: SendContext) -> Headers:
    """Return the headers for what `email` says beside its content.

    Raises CannotCarry for what the vendor's headers cannot say.
    """
    headers = VENDORS[vendor].headers(
        email, {**email.metadata, **context.metadata})
    headers = {name: value for name, value in headers.items() if value}
    if vendor and not all(map(is_plain, _texts(headers))):
        raise CannotCarry('tags, metadata: too long for a header')
    return headers


def _texts(headers):
    for value in headers.values():
        yield from [value] if isinstance(value, str) else value


def _json(value):
    """JSON in ASCII that may be folded, and holds no encoded word."""
    return json.dumps(value).replace('=?', '\\u003d?')


def _our_own(email, metadata):
    return {'X-Stampman-Tag': [*email.tags],
            'X-Stampman-Metadata': _json(metadata)}


def _sendgrid(email, metadata):
    switches = {'opentrack': email.track_opens,
                'clicktrack': email.track_clicks}
    filters = {name: {'settings': {'enable': ON_OFF[switch]}}
               for name, switch in switches.items() if switch is not None}
    told = {'category': email.tags, 'unique_args': metadata,
            'filters': filters}
    return {'X-SMTPAPI': _json({key: value for key, value in told.items()
                                if value})}


def _mailgun(email, metadata):
    return {'X-Mailgun-Tag': [*email.tags],
            'X-Mailgun-Variables': _json(metadata),
            'X-Mailgun-Track-Opens': YES_NO.get(email.track_opens),
            'X-Mailgun-Track-Clicks': YES_NO.get(email.track_clicks)}


def _amazon_ses(email, metadata):
    if not all(map(_SES_WORD.fullmatch, (*metadata, *metadata.values()))):
        raise CannotCarry('metadata: only A-Z, a-z, 0-9 and _ . @ - are '
                          'carried')
    return {'X-SES-MESSAGE-TAGS': ', '.join(
        f'{key}={value}' for key, value in metadata.items())}


def _mandrill(email, metadata):
    if any(',' in tag for tag in email.tags):
        raise CannotCarry('tags: a comma is not carried')
    switches = {'opens': email.track_opens, 'clicks': email.track_clicks}
    tracked = [name for name, switch in switches.items() if switch]
    for name, switch in switches.items():
        other = switches['clicks' if name == 'opens' else 'opens']
        # What the header does not name is off; there is no word for none.
        if switch is not None and (other is None or not tracked):
            raise CannotCarry(f'track_{name}: the header switches both, and '
                              'at least one on')
    return {'X-MC-Tags': ','.join(email.tags),
            'X-MC-Metadata': _json(metadata),
            'X-MC-Track': ','.join(tracked)}


def _postmark(email, metadata):
    if not all(map(_HEADER_WORD.fullmatch, metadata)) or len(
            {key.lower() for key in metadata}) < len(metadata):
        raise CannotCarry('metadata: a key must be able to end the name of '
                          'a header')
    opens = {None: None, True: 'true', False: 'false'}[email.track_opens]
    return {'X-PM-Tag': [*email.tags],
            **{f'X-PM-Metadata-{key}': value
               for key, value in metadata.items()},
            'X-PM-TrackOpens': opens,
            'X-PM-TrackLinks': LINKS.get(email.track_clicks)}


_NOTES = ('Size, non-ASCII addresses and 8-bit parts: as the server says '
          '(SIZE, SMTPUTF8, 8BITMIME).',)
VENDORS = {
    None: Vendor(Capabilities(
        smtputf8=True, envelope=True, tracking=False, notes=(
            *_NOTES, 'Tags and metadata are headers, which recipients may '
            'see: X-Stampman-Tag, X-Stampman-Metadata.')),
        _our_own),
    'sendgrid': Vendor(Capabilities(
        smtputf8=True, envelope=True, max_tags=10, max_tag_length=255,
        max_metadata=10_000, notes=_NOTES), _sendgrid),
    'mailgun': Vendor(Capabilities(
        smtputf8=True, envelope=True, ascii_tags=True, notes=_NOTES),
        _mailgun),
    'amazon_ses': Vendor(Capabilities(
        smtputf8=True, envelope=True, max_tags=0, tracking=False,
        metadata_words='of A-Z, a-z, 0-9 and _ . @ -', notes=_NOTES),
        _amazon_ses),
    'mandrill': Vendor(Capabilities(
        smtputf8=True, envelope=True, ascii_tags=True, notes=_NOTES),
        _mandrill),
    'postmark': Vendor(Capabilities(
        smtputf8=True, envelope=True, max_tags=1, ascii_tags=True,
        notes=_NOTES), _postmark),
}
