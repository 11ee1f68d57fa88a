"""Which addresses a provider would take for addresses."""

import re
from collections.abc import Collection
from email.utils import getaddresses, parseaddr

from stampman.helpers.config import domain_name

_DOMAIN = r'(?!-)[\w-]{1,63}(?<!-)(\.(?!-)[\w-]{1,63}(?<!-))*'
_ADDRESS = re.compile(
    r"""([\w!#$%&'*+/=?^`{|}~.-]+|"[^"\r\n]+")@""" + _DOMAIN)


def is_address(text: object) -> bool:
    """Whether `text` is a bare address."""
    return isinstance(text, str) and _ADDRESS.fullmatch(text) is not None


def bare(text: str) -> str | None:
    """Return the address in `Name <a@b.c>` or `a@b.c`; None where there is
    not exactly one."""
    found = getaddresses([text])
    if len(found) != 1 or not is_address(found[0][1]):
        return None
    return found[0][1]


def several(fields: list[str]) -> list[str]:
    """Return the addresses in header fields or form fields, each of which
    may hold several; what is no address comes as it is."""
    return [address or name for name, address in getaddresses(fields)]


def domain_of(address: str) -> str:
    """Return what stands behind the `@`."""
    return parseaddr(address)[1].rpartition('@')[2].lower()


def is_among(domain: str, known: Collection[str]) -> bool:
    """Whether a domain, in either of its spellings, is one of `known`,
    which are A-labels in lower case."""
    try:
        return domain_name(domain) in known
    except ValueError:      # such as `[127.0.0.1]`, or a host's bare name
        return domain.lower() in known
