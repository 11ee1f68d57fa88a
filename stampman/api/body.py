"""The body of a request, read whole and within the limit."""

import io
from contextlib import suppress
from urllib.parse import unquote_to_bytes

from flask import current_app, request
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import HTTPException
from werkzeug.formparser import FormDataParser

from stampman.helpers import strict_json
from stampman.helpers.exceptions import (
    BadRequest, TooLarge, UnsupportedMediaType)
from stampman.helpers.turns import turns

URLENCODED = 'application/x-www-form-urlencoded'
FORMS = (URLENCODED, 'multipart/form-data')
MAX_PARTS = 200         # of a form
# Bytes over the limit of a refused body that are read and thrown away: who
# still sends when the connection is closed does not see the answer.
MAX_DISCARDED = 16_000_000
PATIENCE = 15.0         # seconds for which nothing may come of a body


def is_empty() -> bool:
    """Say whether the request comes without a body."""
    return not request.content_length and \
        'Transfer-Encoding' not in request.headers


def is_form() -> bool:
    """Say whether the body is what a browser's form posts."""
    return request.mimetype in FORMS


def read_json() -> dict:
    """Return the JSON object in the body.

    Raises UnsupportedMediaType, TooLarge or BadRequest.
    """
    mimetype = request.mimetype
    if mimetype != 'application/json' and not (
            mimetype.startswith('application/')
            and mimetype.endswith('+json')):
        raise UnsupportedMediaType(
            'The body must be JSON, with "Content-Type: application/json", '
            f'not {_quoted(mimetype)}.')
    charset = request.mimetype_params.get('charset', 'utf-8')
    if charset.lower() not in ('utf-8', 'utf8'):
        raise UnsupportedMediaType(
            f'JSON is UTF-8 (RFC 8259), not {_quoted(charset)}.')
    return strict_json.parse(_read())


def read_form() -> tuple[MultiDict, MultiDict]:
    """Return the fields and the files of the form in the body.

    Raises UnsupportedMediaType, TooLarge or BadRequest.
    """
    raw = _read()
    if request.mimetype == URLENCODED:
        _check_utf8(raw)
    parser = FormDataParser(max_form_memory_size=len(raw) + 1,
                            max_form_parts=MAX_PARTS, silent=False)
    try:
        _, fields, files = parser.parse(
            io.BytesIO(raw), request.mimetype, len(raw),
            request.mimetype_params)
    except (ValueError, HTTPException):
        raise UnsupportedMediaType('The form cannot be read.') from None
    return fields, files


def _check_utf8(raw):
    try:
        unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise BadRequest('The form is not UTF-8.') from None


def _quoted(text):
    return f'"{text[:80]}"' if text else 'of no type'


def _read():
    """Return the whole body; nothing larger than the limit is kept."""
    environ = request.environ
    coding = environ.get('HTTP_CONTENT_ENCODING', '').strip().lower()
    if coding not in ('', 'identity'):
        raise UnsupportedMediaType(
            'Content-Encoding is not supported: send the body as it is.')
    limit = current_app.gateway.config.limits.body_bytes
    length = request.content_length
    if length is None and not environ.get('wsgi.input_terminated'):
        return b''
    if length is not None and length > limit:
        raise _too_large(limit)
    body = b''.join(_chunks(limit + 1 if length is None else length))
    if len(body) > limit:
        raise _too_large(limit)
    if length is not None and len(body) < length:
        raise _cut_short()
    return body


def _asks_first():
    """Say whether the client waits for a word before it sends the body."""
    return request.headers.get('Expect', '').lower() == '100-continue'


def _chunks(size):
    """Read from the connection until `size` bytes or the end."""
    stream = request.environ['wsgi.input']
    if connection := request.environ.get('gunicorn.socket'):
        connection.settimeout(PATIENCE)
    try:
        while size:
            with turns.away:
                chunk = stream.read(min(size, 1 << 16))
            if not chunk:
                break
            yield chunk
            size -= len(chunk)
    except OSError:     # gunicorn's own errors of a body are OSErrors too
        request.environ['stampman.cut_short'] = True
        raise _cut_short() from None


def drain() -> None:
    """Read away what a refused request still brings, within reason."""
    if not is_empty() and not _asks_first() \
            and 'stampman.cut_short' not in request.environ:
        limit = current_app.gateway.config.limits.body_bytes
        with suppress(BadRequest):
            for _ in _chunks(limit + MAX_DISCARDED):
                pass


def _too_large(limit):
    return TooLarge(f'At most {limit} bytes are read.')


def _cut_short():
    return BadRequest('The body ended before it was whole.')
