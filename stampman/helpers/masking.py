"""Keeping addresses and secrets out of what people and logs get to read."""

import functools
import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

_ATOM = r'[^\s@<>"\'(),:;\\]'
# From the start of an atom, once: any other way costs time in the square.
_ADDRESS = re.compile(
    rf'(?<!{_ATOM})({_ATOM}){_ATOM}*(@|%40)({_ATOM}+)', re.IGNORECASE)
_ENCODED_AT = re.compile('%(?:25)*40')
_QUERY = re.compile(r'(?<=[\w/.-])\?[^\s"\'<>]+')
_CONTROL = re.compile('[\x00-\x1f\x7f-\x9f\u2028\u2029]+')
_ESCAPE = re.compile('%[0-9A-F]{2}')
_SHORTEST_SECRET = 6    # a shorter one would blot out ordinary words


def mask_addresses(text: str) -> str:
    """Return `text` with each address as `a***@example.com`."""
    return _ADDRESS.sub(r'\1***\2\3', text)


def mask_queries(text: str) -> str:
    """Return `text` without the query strings of URLs, and each encoded at
    sign in it decoded."""
    return _QUERY.sub('?[query]', _ENCODED_AT.sub('@', text))


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return `text` with each of `secrets` as `[secret]`, also where it
    stands in a URL, in JSON, or as base64 without its padding."""
    found = {spelling for secret in secrets
             for spelling in _spellings(secret)}
    for secret in sorted(found, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, '[secret]')
    return text


def spellings(secrets: Iterable[str]) -> tuple[str, ...]:
    """Return `secrets` as they stand in plain text, in URLs and in JSON:
    each that `redact` ever replaces, which is long enough."""
    return tuple({spelt for secret in secrets if secret for spelt in (
        secret, quote(secret, safe=''), quote(secret),
        json.dumps(secret)[1:-1])
        if max(map(len, _spellings(spelt))) >= _SHORTEST_SECRET})


@functools.lru_cache(1024)
def _spellings(secret):
    quoted = (quote(secret), quote(secret, safe=''), quote_plus(secret))
    return frozenset((
        secret, secret.rstrip('='), secret.replace('/', '\\/'), *quoted,
        *(_ESCAPE.sub(lambda found: found[0].lower(), one)
          for one in quoted),
        *(json.dumps(secret, ensure_ascii=is_ascii)[1:-1]
          for is_ascii in (True, False))))


def one_line(text: str) -> str:
    """Return `text` on one line, without control characters."""
    return ' '.join(_CONTROL.sub(' ', text).split())
