"""How the values of a fault are read, from JSON or from a word.

Each reader takes a value's name and the value, and returns what it means;
it raises WrongFault.
"""

import math
import re
from collections.abc import Mapping


class WrongFault(ValueError):
    """Raised where a rule cannot be; its text says what is wrong with it."""


def none(name, value):
    """Refuse any value."""
    if value is not None:
        raise WrongFault(f'{name} must not be there')


def number(lowest, highest, whole=False):
    """Return a reader of numbers within these bounds."""
    kind = 'a whole number' if whole else 'a number'

    def read(name, value):
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                value = None
        if (isinstance(value, bool) or not isinstance(value, (int, float))
                or not math.isfinite(value) or whole and value % 1
                or not lowest <= value <= highest):
            raise WrongFault(
                f'{name} must be {kind} from {lowest:g} to {highest:g}')
        return int(value) if whole else float(value)
    return read


def optional(reader):
    """Return a reader that leaves None as it is."""
    return lambda name, value: None if value is None else reader(name, value)


def one_of(*words):
    """Return a reader of one of `words`."""
    def read(name, value):
        if value not in words:
            raise WrongFault(f'{name} must be one of {", ".join(words)}, '
                             f'not {value!r}')
        return value
    return read


def text(name, value):
    """Return a text that is not empty."""
    if not isinstance(value, str) or not value:
        raise WrongFault(f'{name} must be a text that is not empty')
    return value


def url(name, value):
    """Return a URL."""
    if not isinstance(value, str) or not re.fullmatch(
            r'https?://[!-~]+', value):
        raise WrongFault(f'{name} must be a URL')
    return value


def boolean(name, value):
    """Return true or false, which may be a word."""
    words = {'true': True, 'false': False, True: True, False: False}
    if not isinstance(value, (str, bool)) or value not in words:
        raise WrongFault(f'{name!r} must be true or false')
    return words[value]


def header_fields(name, value):
    """Return texts by the names of headers."""
    if not isinstance(value, Mapping) or not all(
            isinstance(key, str) and isinstance(text, str)
            and re.fullmatch('[A-Za-z0-9-]+', key)
            and re.fullmatch('[\t -~]*', text)
            for key, text in value.items()):
        raise WrongFault(f'{name!r} must be an object of texts, each of '
                         'which can be a header')
    return dict(value)
