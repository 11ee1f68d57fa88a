"""An email as the bytes of an Internet message (RFC 5322, 2045, 2047, 2231).

It is rendered here and not by the standard library, whose folding writes
long words that must not be touched, such as the URL in List-Unsubscribe, as
encoded words, and loses file names that look like one. The library reads
the header back, and what differs from what went in is not sent.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from email import policy
from email.parser import Parser
from email.utils import format_datetime
from urllib.parse import quote

from stampman.helpers.mail import Address, Attachment, Email
from stampman.services.base import CannotCarry

LINE = 76               # characters that a line should not exceed (RFC 2047)
LONGEST_LINE = 998      # characters that it must not exceed
LONGEST_WORD = 900      # leaves room for the header's name
WORD_BYTES = 39         # make an encoded word that fits behind "Reply-To: "
PARAMETER = 50          # characters of a file name in one parameter
OF_BODY = ('MIME-Version', 'Content-Type', 'Content-Transfer-Encoding')
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
                    r"( [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_PLAIN_NAME = re.compile(r'\w[\w.()+-]*( [\w.()+-]+)*', re.ASCII)
_PARAMETERS = re.compile(r'(?:[^;"]|"[^"]*")+;?')


def render(email: Email, date: float, message_id: str,
           headers: Mapping[str, str | Sequence[str]] = {},
           utf8: bool = False) -> bytes:
    """Return `email` as a message, without its Bcc, with CRLF at line ends.

    `date` is in seconds since the epoch, `message_id` has no angle brackets,
    `headers` stand beside the email's own, one of several values as often.
    `utf8`: an address may stand there in UTF-8 (RFC 6532). Raises
    CannotCarry for an address that needs that, and where the message would
    not be read back as it was meant.
    """
    if not utf8 and not all(a.is_ascii for a in named_in(email)):
        raise CannotCarry('an address needs SMTPUTF8 (RFC 6531)')
    wanted = _header(email, date, message_id, headers)
    lines = [_folded(name, tokens) for name, _, tokens in wanted]
    # Not to be guessed before the email is there, so it is not in there.
    seed = hashlib.sha256(message_id.encode()).hexdigest()[:24]
    message = '\r\n'.join((*lines, 'MIME-Version: 1.0', '')).encode(
        'utf-8' if utf8 else 'ascii') + _body(email, seed)
    _check(message, [(name, value) for name, value, _ in wanted])
    return message


def named_in(email: Email) -> tuple[Address, ...]:
    """Return all whom the header names."""
    return (email.sender, *email.recipients, *email.cc, *email.reply_to)


def is_plain(text: str) -> bool:
    """Say whether a header's text is ASCII, and can stay readable; spaces
    around it would be lost."""
    return (text.isascii() and '=?' not in text and text == text.strip()
            and ' ' * LINE not in text
            and max(map(len, text.split(' '))) <= LONGEST_WORD)


def _header(email, date, message_id, headers):
    """Each field as its name, its value, and tokens not to be folded."""
    addresses = (('From', (email.sender,)), ('To', email.recipients),
                 ('Cc', email.cc), ('Reply-To', email.reply_to))
    fields = [(name, _plain(group), _mailboxes(group))
              for name, group in addresses if group]
    sent = format_datetime(datetime.fromtimestamp(int(date), UTC))
    texts = {'Subject': email.subject, 'Date': sent,
             'Message-ID': f'<{message_id}>', **email.headers, **headers}
    return fields + [(name, text, _words(text))
                     for name, values in texts.items()
                     for text in ((values,) if isinstance(values, str)
                                  else values)
                     if text or name != 'Subject']


def _folded(name, tokens):
    """Break between tokens only, and never leave a line of mere spaces."""
    lines = [f'{name}:']
    for token in tokens:
        is_full = len(lines[-1]) + 1 + len(token) > LINE
        unbroken = ('',) if token.startswith('=?') else ('', f'{name}:')
        if is_full and token and lines[-1].strip(' ') not in unbroken:
            lines.append('')
        lines[-1] += f' {token}'
    return '\r\n'.join(lines)


def _words(text):
    """A text that is ASCII stays readable, if its words fit on lines."""
    return text.split(' ') if is_plain(text) else _encoded(text)


def _encoded(text):
    """Return `text` as encoded words, none broken within a character."""
    chunks = [b'']
    for character in text:
        more = character.encode()
        if len(chunks[-1]) + len(more) > WORD_BYTES:
            chunks.append(b'')
        chunks[-1] += more
    return [f'=?utf-8?b?{base64.b64encode(chunk).decode()}?='
            for chunk in chunks]


def mailboxes(addresses: Iterable[Address]) -> str:
    """Return `addresses`, all of them ASCII, as a header's value, unfolded.

    Names that are not ASCII stand there in encoded words.
    """
    return ' '.join(_mailboxes(addresses))


def _mailboxes(addresses):
    tokens = []
    for address in addresses:
        tokens += _phrase(address.name)
        tokens.append(f'<{address.email}>,' if address.name
                      else f'{address.email},')
    tokens[-1] = tokens[-1].removesuffix(',')
    return tokens


def _phrase(name):
    if not name:
        return []
    if not name.isascii() or '=?' in name or len(name) > LINE:
        return _encoded(name)
    if _ATOMS.fullmatch(name):
        return [name]
    return ['"' + re.sub(r'(["\\])', r'\\\1', name) + '"']


def _plain(addresses):
    return [(address.name, address.email) for address in addresses]


def _body(email, seed):
    """The smallest of mixed(alternative(text, related(html, inline)), …)."""
    inline = email.inline if email.html else ()
    files = [part for part in email.attachments if part not in inline]
    html = email.html and _group(
        'related', seed, [_text(email.html, 'html'), *map(_file, inline)])
    text = email.content and _text(email.content, 'plain')
    body = _group('alternative', seed, [part for part in (text, html) if part])
    return _group('mixed', seed, [body, *map(_file, files)])


def _group(subtype, seed, parts):
    if len(parts) == 1:
        return parts[0]
    # No encoding writes "=_", so no encoded part holds this line.
    boundary = f'=_{subtype}_{seed}'
    delimiter = f'--{boundary}'.encode()
    return b'\r\n'.join((
        _folded('Content-Type', [f'multipart/{subtype};',
                                 f'boundary="{boundary}"']).encode(), b'',
        *(delimiter + b'\r\n' + part for part in parts),
        delimiter + b'--', b''))


def _part(fields, encoding, content):
    lines = [_folded(name, tokens) for name, tokens in fields]
    lines += [f'Content-Transfer-Encoding: {encoding}', '', '']
    return '\r\n'.join(lines).encode('ascii') + content


def _text(text, subtype):
    raw = _crlf(text.encode())
    charset = 'us-ascii' if raw.isascii() else 'utf-8'
    return _part([('Content-Type', [f'text/{subtype};',
                                    f'charset="{charset}"'])],
                 *(('7bit', raw) if raw.isascii() and _is_short(raw)
                   else min(_encodings(raw), key=lambda it: len(it[1]))))


def _encodings(raw):
    # Its soft line breaks are bare where the text has no line break.
    yield 'quoted-printable', _crlf(binascii.b2a_qp(raw, istext=True))
    yield 'base64', _base64(raw)


def _file(attachment: Attachment):
    kind = attachment.content_type
    if not kind.isascii():
        raise CannotCarry('attachments: a content_type is not ASCII')
    use = 'inline' if attachment.content_id else 'attachment'
    fields = [('Content-Type',
               [token.strip() for token in _PARAMETERS.findall(kind)]),
              ('Content-Disposition',
               [f'{use};', *_file_name(attachment.filename)])]
    if attachment.content_id:
        fields.append(('Content-ID', [f'<{attachment.content_id}>']))
    if kind.lower().startswith('message/'):
        return _part(fields, *_as_it_is(attachment.content))
    return _part(fields, 'base64', _base64(attachment.content))


def _file_name(name):
    """RFC 2231, but for a name that every reader takes as it is."""
    if _PLAIN_NAME.fullmatch(name) and len(name) <= PARAMETER:
        return [f'filename="{name}"']
    pieces = ["utf-8''"]
    for character in name:
        more = quote(character, safe='')
        if len(pieces[-1]) + len(more) > PARAMETER:
            pieces.append('')
        pieces[-1] += more
    if len(pieces) == 1:
        return [f'filename*={pieces[0]}']
    tokens = [f'filename*{number}*={piece};'
              for number, piece in enumerate(pieces)]
    return [*tokens[:-1], tokens[-1].removesuffix(';')]


def _as_it_is(content):
    """RFC 2046 forbids to encode a forwarded message."""
    raw = _crlf(content)
    if b'\0' in raw or not _is_short(raw):
        raise CannotCarry('attachments: a message with lines of more than '
                          f'{LONGEST_LINE} characters')
    return '7bit' if raw.isascii() else '8bit', raw


def _base64(raw):
    return base64.encodebytes(raw).replace(b'\n', b'\r\n').removesuffix(
        b'\r\n')


def _crlf(raw):
    return re.sub(rb'\r\n?|\n', b'\r\n', raw)


def _is_short(raw):
    return max(map(len, raw.split(b'\r\n'))) <= LONGEST_LINE


def _check(message, wanted):
    """Parse the header and hold it against what was meant."""
    head = message.partition(b'\r\n\r\n')[0] + b'\r\n\r\n'
    parsed = Parser(policy=policy.SMTPUTF8).parsestr(head.decode())
    found = [(name, _value(header)) for name, header in parsed.items()
             if name not in OF_BODY]
    if found != [(name, _same(value)) for name, value in wanted]:
        raise CannotCarry('headers: they would not be read as they are meant')


def _value(header):
    if hasattr(header, 'addresses'):
        return _same([(a.display_name, a.addr_spec)
                      for a in header.addresses])
    return _same(str(header))


def _same(value):
    """Folding, and the library between words of a name, may change white
    space, and nothing else."""
    if isinstance(value, str):
        return ''.join(value.split())
    return [tuple(map(_same, pair)) for pair in value]
