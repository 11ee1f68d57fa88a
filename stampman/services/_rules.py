"""Error tables: what a provider's status and words come to."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from stampman.helpers.delivery import Kind


class Rule(NamedTuple):
    """One line of a provider's error table: the first that fits decides.

    `statuses` are HTTP statuses, `pattern` is searched in the provider's
    words without regard to case; what is not given fits everything. `flags`
    are fields of the `Outcome`, `note` tells people what it comes to.
    """

    kind: Kind
    statuses: tuple[int, ...] = ()
    pattern: str = ''
    flags: Mapping[str, Any] = {}
    note: str = ''

    def fits(self, status: int, words: str) -> bool:
        return ((not self.statuses or status in self.statuses)
                and re.search(self.pattern, words,
                              re.IGNORECASE | re.DOTALL) is not None)


ALERT = {'alert': True}
THROTTLED = {'throttled': True}
DOMAIN_ONLY = {'alert': True, 'domain_only': True}
RECIPIENT_ONLY = {'recipient_only': True}
# What a status means where the provider's sheet does not say better. A
# status that is not proved safe here or there is `uncertain`.
FALLBACK = (
    Rule(Kind.uncertain, tuple(range(200, 300)), flags=ALERT,
         note='a success without the provider\'s message id'),
    Rule(Kind.refused, tuple(range(300, 400)), flags=ALERT,
         note='a redirect is not followed'),
    Rule(Kind.refused, (401, 402, 403, 404, 405, 406, 407, 415, 420, 451),
         flags=ALERT),
    Rule(Kind.deferred, (425, 429), flags=THROTTLED),
    Rule(Kind.deferred, (421, 500, 503)),
    Rule(Kind.unsupported, (413,)),
    Rule(Kind.uncertain, (408, 502, 504)),
    Rule(Kind.unsupported, tuple(range(400, 500)), flags=ALERT),
    Rule(Kind.uncertain),
)


def rule_for(status: int, words: str, *tables: tuple[Rule, ...]) -> Rule:
    """Return the first line that fits, of the first table that has one.

    The last table must have a line for everything.
    """
    return next(rule for table in tables for rule in table
                if rule.fits(status, words))
