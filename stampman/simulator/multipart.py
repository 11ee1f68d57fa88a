"""The parts of a form: multipart/form-data as RFC 7578 has it."""

import re
from typing import NamedTuple
from urllib.parse import parse_qsl

_PARAMETER = re.compile(
    r';\s*([A-Za-z]+)=(?:"((?:\\.|[^"\\])*)"|([^;"\s]+))')


class Part(NamedTuple):
    """One field; `filename` is None where it is no file."""

    name: str
    content: bytes
    filename: str | None = None
    content_type: str = ''

    @property
    def text(self) -> str:
        """The content; raises UnicodeDecodeError where it is not UTF-8."""
        return self.content.decode()


def parse(content_type: str, body: bytes) -> list[Part]:
    """Return the fields of a form in their order.

    Raises ValueError where it is none.
    """
    media_type = content_type.partition(';')[0].strip().lower()
    if media_type == 'application/x-www-form-urlencoded':
        pairs = parse_qsl(body.decode(), keep_blank_values=True,
                          strict_parsing=bool(body))
        return [Part(name, value.encode()) for name, value in pairs]
    boundary = _parameters(content_type).get('boundary')
    if media_type != 'multipart/form-data' or not boundary:
        raise ValueError('the body is no form')
    delimiter = f'\r\n--{boundary}'.encode()
    first, *rest = (b'\r\n' + body).split(delimiter)
    if not rest or not rest[-1].startswith(b'--'):
        raise ValueError('the form has no end')
    return [_part(raw) for raw in rest[:-1]]


def _part(raw):
    head, blank, content = raw.partition(b'\r\n\r\n')
    if not blank or not head.startswith(b'\r\n'):
        raise ValueError('a part of the form has no headers')
    headers = {}
    for line in head[2:].decode().split('\r\n'):
        name, _, value = line.partition(':')
        headers[name.strip().lower()] = value.strip()
    disposition = headers.get('content-disposition', '')
    parameters = _parameters(disposition)
    if not disposition.startswith('form-data') or 'name' not in parameters:
        raise ValueError('a part of the form has no name')
    return Part(parameters['name'], content, parameters.get('filename'),
                headers.get('content-type', ''))


def _parameters(header):
    found = {}
    for name, quoted, token in _PARAMETER.findall(header):
        found[name.lower()] = token or re.sub(r'\\(.)', r'\1', quoted)
    return found
