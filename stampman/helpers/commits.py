"""A commit whose answer is lost: doing again what it may have done."""

from collections.abc import Callable

from stampman.helpers.exceptions import (
    KeyBusy, LeaseLost, StoreUnavailable)


def is_done_now(is_there: Callable[[], bool | None],
                do: Callable[[], object]) -> bool:
    """Do again what may be done, unless it is; say whether it surely is.

    `is_there` says whether it is stored, None where nobody can say; what it
    raises is raised. The earlier transaction may last: then its rows, or what
    guards them, are locked. Where they are not, it is over, and what refuses
    this try may be what that one has stored: raised where that is not there.
    """
    found = is_there()
    if found is not False:
        return bool(found)
    try:
        do()
    except (StoreUnavailable, KeyBusy):
        return False
    except LeaseLost:       # whatever there is, it is another's now
        raise
    except Exception:
        found = is_there()
        if found is False:
            raise
        return bool(found)
    return True
