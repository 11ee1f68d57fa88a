"""The rules of text that ends up in an email: RFC 5322, 2045, 2047, 3339.

What passes here can be written into a header by any provider without
creating or altering another one: control characters, and RFC 2047 words
that decode to them, are refused (CVE-2024-6923 and CVE-2026-1299 came from
leaving this to the MIME library).

Each function takes what a client sent and returns it as we keep it, or
raises ValueError with a message that follows the field's name.
"""

import base64
import binascii
import codecs
import re
from datetime import datetime
from typing import Any

import email_validator

# `.test`, `.example` and the like are for tests and intranets; whether mail
# to them can be delivered is the provider's to say.
email_validator.SPECIAL_USE_DOMAIN_NAMES.clear()

# Set by others, or by us, or they steer a provider behind our back. A name
# that ends in "-" stands for all that begin with it. Lower case.
RESERVED_HEADERS = frozenset({
    'from', 'sender', 'to', 'cc', 'bcc', 'reply-to', 'subject', 'date',
    'message-id', 'return-path', 'received', 'mime-version', 'content-',
    'resent-', 'dkim-signature', 'domainkey-signature', 'arc-',
    'authentication-results', 'received-spf', 'delivered-to',
    'x-stampman-', 'x-smtpapi', 'x-sg-', 'x-mc-', 'x-mailgun-', 'x-ses-',
    'x-mandrill-', 'x-pm-', 'x-msys-', 'x-mj-', 'x-mailjet-', 'x-sib-',
    'x-mailin-', 'apparently-to'})
RESERVED_METADATA = 'stampman_'     # our own ids travel under this prefix
MAX_ADDRESS = 320       # characters; RFC 5321 allows fewer octets

_CONTROL = re.compile('[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')
_BODY_CONTROL = re.compile('[\x00\ud800-\udfff]')
# Addresses that email-validator is known to return as they are: it takes
# fifty times as long, and is asked about all others.
_PLAIN_ADDRESS = re.compile(
    r'(?=.{1,64}@.{1,63}\Z)[a-z0-9_+-]+(?:\.[a-z0-9_+-]+)*'
    r'@(?:[a-z0-9]+(?:-[a-z0-9]+)*\.)+[a-z]+')
# Both readings of RFC 2047 that are in use: a word ends at the first "?=",
# or no "?" stands in it. The second is looked for at every "=?".
_ENCODED_WORDS = (
    re.compile(r'=\?([^?]*)\?([bBqQ])\?(.*?)\?=', re.DOTALL),
    re.compile(r'=\?(?=([^?]*)\?([bBqQ])\?([^?]*)\?=)'))
# In these every byte of ASCII is itself, so that no reader can find another
# character in it. Not so in UTF-16, whose order of bytes readers guess.
_CHARSETS = frozenset({
    'ascii', 'utf-8', 'iso8859-1', 'koi8-r', 'koi8-u', 'euc_jp', 'euc_kr',
    *(f'iso8859-{part}' for part in range(2, 17) if part != 12),
    *(f'cp125{page}' for page in range(9))})
_BASE64 = re.compile(rb'[A-Za-z0-9+/]*={0,2}')
_CONTROL_BYTE = re.compile(b'[\x00-\x1f\x7f]')
_Q_BYTE = re.compile(rb'=([0-9A-Fa-f]{2})')
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,126}")
_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_CONTENT_TYPE = re.compile(
    rf'{_TOKEN}/{_TOKEN}'
    rf'(\s*;\s*{_TOKEN}=({_TOKEN}|"[^"\\]*"))*')
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_RFC3339 = re.compile(
    r'\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)')


def header_safe(text: str) -> str:
    """Return `text` if it can stand in a header as it is.

    Raises ValueError for control characters, line separators and lone
    surrogates, plain or in an RFC 2047 encoded word, and for encoded words
    that have no meaning or hide further ones.
    """
    if not isinstance(text, str):
        raise ValueError('must be a string')
    if text.isprintable() and '=?' not in text:     # as most are
        return text
    if bad := _CONTROL.search(text):
        raise ValueError(
            f'must not contain the control character U+{ord(bad[0]):04X}')
    for word in _encoded_words(text):
        decoded = _decoded_word(*word)
        if _CONTROL.search(decoded) or '=?' in decoded:
            raise ValueError('must not hide control characters in an '
                             'encoded word (RFC 2047)')
    return text


def _encoded_words(text):
    end = text.rfind('?=') + 2      # what never ends need not be searched
    for pattern in _ENCODED_WORDS if end > 1 else ():
        yield from pattern.findall(text[:end])


def _decoded_word(charset, encoding, content):
    """Decode one RFC 2047 word; a decoder that is lenient sets the rule."""
    try:
        raw = content.encode('ascii')
        if encoding in 'qQ':
            raw = _Q_BYTE.sub(lambda found: bytes.fromhex(found[1].decode()),
                              raw.replace(b'_', b' '))
        elif _BASE64.fullmatch(raw):    # readers go on behind inner padding
            raw = base64.b64decode(raw + b'=' * (-len(raw) % 4))
        else:
            raise ValueError
        name = codecs.lookup(charset.partition('*')[0]).name
        if name not in _CHARSETS:
            raise LookupError
        return _CONTROL_BYTE.sub(b'\n', raw).decode(name)
    except (LookupError, ValueError, binascii.Error):
        raise ValueError('must not contain an encoded word (RFC 2047) that '
                         'cannot be decoded') from None


def address(email: str) -> str:
    """Return `email` as it is sent: domain as lower-case A-label (UTS 46).

    Raises ValueError unless it is exactly one address with a domain name.
    """
    if _PLAIN_ADDRESS.fullmatch(email):
        return email
    if len(email) > MAX_ADDRESS:
        raise ValueError('is not an email address: it is too long')
    if '=?' in email:       # a MIME library might decode it: another address
        raise ValueError('is not an email address: it contains "=?"')
    try:
        valid = email_validator.validate_email(
            email, check_deliverability=False, strict=True)
    except email_validator.EmailNotValidError as error:
        raise ValueError(f'is not an email address: {error}') from None
    return f'{valid.local_part}@{valid.ascii_domain}'


def split_address(value: Any) -> Any:
    """Bring every form of an address into {'email', 'name'}."""
    if not isinstance(value, str):
        return value
    text = header_safe(value).strip(' ')
    if not text.endswith('>'):
        return {'email': value}
    name, opened, email = text[:-1].rpartition('<')
    if not opened:
        return {'email': value}
    name = name.strip(' ')
    if quoted := _QUOTED.fullmatch(name):
        name = re.sub(r'\\(.)', r'\1', quoted[1])
    elif re.search(r'[",;:@<>\\]', name):
        raise ValueError('must be one address; a name that contains '
                         '" , ; : @ < > or \\ stands in "quotes"')
    return {'email': email, 'name': name}


def header_name(name: str) -> str:
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError('is not a header name (RFC 5322)')
    lower = name.lower()
    if any(lower == reserved or reserved[-1] == '-'
           and lower.startswith(reserved) for reserved in RESERVED_HEADERS):
        raise ValueError('is a header that cannot be set here')
    return name


def content_type(text: str) -> str:
    if not text.isascii() or not _CONTENT_TYPE.fullmatch(text):
        raise ValueError('is not a media type, like "application/pdf"')
    if text.lower().startswith('multipart/'):
        raise ValueError('must not be a multipart type')
    return text


def content_id(text: str) -> str:
    text = text[1:-1] if re.fullmatch('<.*>', text) else text
    if not re.fullmatch(r'[!#-;=?-~]+', text):
        raise ValueError('must be printable ASCII without spaces, quotes '
                         'and angle brackets')
    return text


def metadata_key(key: str) -> str:
    if not key.strip():
        raise ValueError('must not be empty')
    if key.lower().startswith(RESERVED_METADATA):
        raise ValueError(f'must not begin with "{RESERVED_METADATA}"')
    return key


def body_text(text: str) -> str:
    if '\x00' not in text and _is_whole(text):
        return text
    if bad := _BODY_CONTROL.search(text):
        raise ValueError(
            f'must not contain the character U+{ord(bad[0]):04X}')
    return text


def _is_whole(text):
    """Say whether no surrogate is in it: many times as fast as a search."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def base64_bytes(value: Any) -> Any:
    if isinstance(value, bytes):
        return value
    try:
        if not isinstance(value, str) or len(value) % 4:
            raise ValueError
        return base64.b64decode(value, validate=True)
    except ValueError:
        raise ValueError('must be a string of base64 (RFC 4648), padded and '
                         'without line breaks') from None


def rfc3339(value: Any) -> Any:
    if isinstance(value, datetime):
        return value
    try:
        if not isinstance(value, str) or not _RFC3339.fullmatch(value):
            raise ValueError
        return datetime.fromisoformat(value.upper().replace(' ', 'T'))
    except ValueError:
        raise ValueError('must be a time like "2026-01-31T12:00:00Z", with '
                         'its offset (RFC 3339)') from None
