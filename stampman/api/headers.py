"""What a sender says beside the email: `Idempotency-Key` and `Prefer`."""

import re

from flask import request

from stampman.helpers.exceptions import BadRequest

KEY = 'Idempotency-Key'
KEY_RULE = 'must be 1 to 255 printable ASCII characters'
_KEY = re.compile('[ -~]{1,255}')
# RFC 7240, section 2. All is possessive: what is long is not read twice.
_TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_QUOTED = r'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*+"'
_VALUE = rf'[\t ]*+=[\t ]*+(?:{_TOKEN}|{_QUOTED})'
_PARAMETERS = rf'(?:[\t ]*+;[\t ]*+(?:{_TOKEN}(?:{_VALUE})?+)?+)*+'
_PREFERENCE = re.compile(rf'({_TOKEN})({_VALUE})?+{_PARAMETERS}')
_PREFERENCES = re.compile(
    rf'[\t ,]*+(?:{_PREFERENCE.pattern}[\t ]*+(?:,[\t ,]*+|\Z))++')


def is_key(text: str) -> bool:
    """Say whether `text` can be an Idempotency-Key."""
    return bool(_KEY.fullmatch(text))


def idempotency_key() -> str | None:
    """Return what the client calls this request, if it does.

    Raises BadRequest for what cannot be a key.
    """
    key = request.headers.get(KEY)
    if key is not None and not is_key(key):
        raise _wrong(KEY, KEY_RULE)
    return key


def refuse_key() -> None:
    """Raise BadRequest where a key would be ignored."""
    if KEY in request.headers:
        raise _wrong(KEY, 'means nothing here: only a send takes it')


def prefers_async() -> bool:
    """Say whether the client prefers not to wait for a provider.

    Other preferences are ignored, as RFC 7240 asks; raises BadRequest for
    what is no list of preferences.
    """
    text = request.headers.get('Prefer')
    if text is None:
        return False
    if not _PREFERENCES.fullmatch(text):
        raise _wrong('Prefer', 'must be a list of preferences (RFC 7240)')
    wishes = {}
    for name, value in _PREFERENCE.findall(text):
        wishes.setdefault(name.lower(), value)      # the first one counts
    empty = wishes.get('respond-async', 'absent').strip('\t ="')
    return not empty


def _wrong(name, message):
    return BadRequest(f'The header {name} {message}.',
                      errors=[(name, message)])
