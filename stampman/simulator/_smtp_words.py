"""The words of SMTP: replies, addresses, parameters, and the message."""

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from stampman.simulator import mime
from stampman.simulator.ledger import Taken

LONGEST_ADDRESS = 254       # bytes (RFC 5321, 4.5.3.1.3)
LONGEST_LINE = 998          # bytes without CRLF (RFC 5322, 2.1.1)
NO_ROOM = 'Message size exceeds fixed limit'

# What each parameter may be, behind its name; any other is not known.
MAIL_PARAMETERS = {'SIZE': r'=\d{1,20}', 'BODY': '=(7BIT|8BITMIME)',
                   'SMTPUTF8': '', 'AUTH': r'=\S+'}
_PATH = re.compile(r'<((?:"(?:[^"\\]|\\.)*"|[^<>"\s])*)>((?: +\S+)*) *')
_MAILBOX = re.compile(
    r'(?:"(?:[^"\\]|\\.)*"|[^\s<>()\[\]\\,;:@"]+)'
    r'@(?:\[[^\s\[\]]+\]|[^\s<>()\[\]\\,;:@"]+)')


class Reply(NamedTuple):
    """What is answered: a line for each of `lines`, each byte of it after
    `pace` seconds."""

    code: int
    lines: tuple[str, ...]
    pace: float = 0.0


def reply(code: int, *lines: str) -> Reply:
    """Return a reply without haste."""
    return Reply(code, lines)


class Refused(Exception):
    """A command that is not in order, with the reply that says so."""

    def __init__(self, code: int, *lines: str):
        self.reply = reply(code, *lines)


def path_in(word: str, argument: str) -> tuple[str, str]:
    """Return the address behind `FROM:` or `TO:`, and the parameters."""
    found = _PATH.fullmatch(argument[len(word):])
    if argument[:len(word)].upper() != word or not found:
        raise Refused(501, f'5.5.4 The form is {word}<address>')
    return found[1], found[2]


def parameters_in(text: str, known: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of MAIL or RCPT by their upper-case names."""
    found = {}
    for word in text.split():
        name = word.partition('=')[0].upper()
        if name not in known:
            raise Refused(555, '5.5.4 A parameter is not recognized')
        if name in found or not re.fullmatch(
                known[name], word[len(name):], re.IGNORECASE):
            raise Refused(501, f'5.5.4 Syntax error in {name}')
        found[name] = word[len(name) + 1:].upper()
    return found


def mailbox(address: str, utf8: bool, code: str) -> str:
    """Return an address that is one; `code` is the detail of the enhanced
    code for one that is not, `utf8` whether SMTPUTF8 was asked for."""
    if not _MAILBOX.fullmatch(address) \
            or len(address.encode()) > LONGEST_ADDRESS:
        raise Refused(501, f'5.1.{code} Bad address syntax')
    if not address.isascii() and not utf8:
        raise Refused(553, '5.6.7 The address needs SMTPUTF8')
    return address


def objection(content: bytes, parameters: Mapping[str, str]) -> str:
    """Return why a relay would not take the message, or ''."""
    header = content.partition(b'\r\n\r\n')[0]
    if re.search(rb'(?<!\r)\n|\r(?!\n)', content):
        return '5.6.0 A line does not end with CRLF'
    if re.search(rb'[^\r\n]{%d}' % (LONGEST_LINE + 1), content):
        return f'5.6.0 A line is longer than {LONGEST_LINE} bytes'
    if not re.search(rb'(?im)^from:', header):
        return '5.6.0 The message has no From'
    if not header.isascii() and 'SMTPUTF8' not in parameters:
        return '5.6.7 The header needs SMTPUTF8'
    if not content.isascii() and parameters.get('BODY') != '8BITMIME':
        return '5.6.3 The message needs BODY=8BITMIME'
    return ''


def read_taken(content: bytes, sender: str,
               recipients: Sequence[str]) -> Taken:
    """Return the message as the ledger keeps it, with a new queue id."""
    try:
        taken = mime.taken_of(mime.read(content), len(content),
                              [uuid.uuid4().hex[:12].upper()], recipients)
    except mime.Malformed as error:
        raise Refused(554, f'5.6.0 {error}') from None
    return replace(taken, sender=sender, subject=_as_text(taken.subject))


def _as_text(header):
    """The parser keeps UTF-8 in a header as surrogates."""
    return header.encode('utf-8', 'surrogateescape').decode(
        'utf-8', 'replace')
