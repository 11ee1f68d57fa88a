"""Keeping addresses and secrets out of what people and logs get to read."""

import re
from collections.abc import Iterable

_ATOM = r'[^\s@<>"\'(),:;\\]'
# From the start of an atom, once: any other way costs time in the square.
_ADDRESS = re.compile(
    rf'(?<!{_ATOM})({_ATOM}){_ATOM}*(@|%40)({_ATOM}+)', re.IGNORECASE)
_CONTROL = re.compile('[\x00-\x1f\x7f-\x9f\u2028\u2029]+')
_SHORTEST_SECRET = 6    # a shorter one would blot out ordinary words


def mask_addresses(text: str) -> str:
    """Return `text` with each address as `a***@example.com`."""
    return _ADDRESS.sub(r'\1***\2\3', text)


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return `text` with each of `secrets` as `[secret]`."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, '[secret]')
    return text


def one_line(text: str) -> str:
    """Return `text` on one line, without control characters."""
    return ' '.join(_CONTROL.sub(' ', text).split())
