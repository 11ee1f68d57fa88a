"""No connection crosses a fork: who has some hears of each."""

import os
import weakref
from typing import Any

_told = weakref.WeakSet()


def tell(one: Any) -> None:
    """Have `before_fork`, `after_fork` and, in the child, `in_child` called
    on it, for as long as it lives."""
    _told.add(one)


def _each(method):
    return lambda: [getattr(one, method)() for one in list(_told)]


os.register_at_fork(
    before=_each('before_fork'), after_in_parent=_each('after_fork'),
    after_in_child=_each('in_child'))
