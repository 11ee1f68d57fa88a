"""JSON as RFC 8259 and I-JSON mean it: whatever is ambiguous is refused.

Python's own reader takes duplicate keys (the last wins), NaN, UTF-16 and
lone surrogates, and runs out of stack on deep nesting.
"""

import json
import math
import re
from typing import Any

from stampman.helpers.exceptions import BadRequest

MAX_DEPTH = 32
MAX_NUMBER = 100        # characters
_BOM = b'\xef\xbb\xbf'
# A string (possessive, so that a long one costs no memory) or a bracket.
_STRING_OR_BRACKET = re.compile(
    r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?+|[\[\]{}]', re.DOTALL)
_SURROGATE = re.compile('[\ud800-\udfff]')
_SURROGATE_ESCAPE = re.compile(r'\\u[dD][89a-fA-F]')


def parse(raw: bytes) -> dict[str, Any]:
    """Return the JSON object in `raw`; raises as `read` does."""
    value = read(raw)
    if not isinstance(value, dict):
        raise BadRequest('The body must be a JSON object, not '
                         f'{_KINDS[type(value)]}.')
    return value


def read(raw: bytes) -> Any:
    """Return the JSON in `raw`, whatever it is.

    Raises BadRequest that says what is wrong, and where.
    """
    text = _decode(raw)
    _check_depth(text)
    try:
        value = _READER.decode(text)
    except json.JSONDecodeError as error:
        raise BadRequest(
            f'The body is not JSON: {error.msg.removesuffix(" at")} at line '
            f'{error.lineno}, column {error.colno}.') from None
    if _SURROGATE_ESCAPE.search(text):
        _check_surrogates(value)
    return value


_KINDS = {list: 'an array', str: 'a string', int: 'a number',
          float: 'a number', bool: 'a boolean', type(None): 'null'}


def _decode(raw):
    if not raw:
        raise BadRequest('The body is empty; it must be a JSON object.')
    if raw.startswith(_BOM):
        raise BadRequest('The body begins with a byte order mark; JSON is '
                         'plain UTF-8 (RFC 8259).')
    try:
        return raw.decode('utf-8')
    except UnicodeDecodeError as error:
        raise BadRequest('The body is not UTF-8: the byte at position '
                         f'{error.start} does not belong there.') from None


def _check_depth(text):
    if text.count('[') + text.count('{') <= MAX_DEPTH:
        return
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        bracket = text[found.start()]
        if bracket in '[{':
            depth += 1
            if depth > MAX_DEPTH:
                raise BadRequest(
                    f'The body is nested more than {MAX_DEPTH} deep at '
                    f'character {found.start() + 1}.')
        elif bracket in ']}':
            depth -= 1


def _once(pairs):
    """Return an object whose keys all differ."""
    unique = dict(pairs)
    if len(unique) < len(pairs):
        seen = set()
        for key, _ in pairs:
            if key in seen:
                raise BadRequest(
                    f'The key {_shown(key)} stands twice in one object.',
                    errors=[(_shown(key).strip('"'), 'stands twice')])
            seen.add(key)
    return unique


def _no_constant(word):
    raise BadRequest(f'The body is not JSON: {word} is not a JSON number.')


def _integer(digits):
    if len(digits) > MAX_NUMBER:
        raise BadRequest(f'A number has {len(digits)} digits; at most '
                         f'{MAX_NUMBER} are read.')
    return int(digits)


def _float(text):
    if len(text) > MAX_NUMBER or math.isinf(float(text)):
        raise BadRequest('A number is too large: '
                         f'{text[:20]}{"…" * (len(text) > 20)}.')
    return float(text)


_READER = json.JSONDecoder(
    object_pairs_hook=_once, parse_constant=_no_constant,
    parse_int=_integer, parse_float=_float)


def _check_surrogates(value):
    """Half a character is none: no database and no provider takes it."""
    rest = [('', value)]
    while rest:
        place, value = rest.pop()
        if isinstance(value, str):
            if _SURROGATE.search(value):
                raise BadRequest(
                    f'{place} contains a lone surrogate (half of a '
                    'character).', errors=[(place, 'contains a lone '
                                            'surrogate')])
        elif isinstance(value, list):
            rest += [(f'{place}[{number}]', item)
                     for number, item in enumerate(value)]
        elif isinstance(value, dict):
            for key, item in value.items():
                path = f'{place}.{_plain(key)}' if place else _plain(key)
                rest += [(path, key), (path, item)]


def _plain(key):
    """Return a key as it can be told: no half characters, not too long."""
    return _shown(key)[1:-1]


def _shown(key):
    text = key if len(key) <= 60 else f'{key[:60]}…'
    text = _SURROGATE.sub('\ufffd', text)
    return json.dumps(text, ensure_ascii=False)
