"""A request, what a provider answers to it, and the contract of a provider.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple
from urllib.parse import parse_qs

from stampman.simulator.addresses import is_among
from stampman.simulator.ledger import Taken


class Request(NamedTuple):
    """One request, as it arrived.

    `target` is the path as it was sent, with the provider's prefix, and
    `path` is without it; `query` is raw. The names of `headers` are in lower
    case.
    """

    method: str
    target: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes = b''

    @property
    def media_type(self) -> str:
        """The content type without its parameters, in lower case."""
        declared = self.headers.get('content-type', '')
        return declared.partition(';')[0].strip().lower()


class Reply(NamedTuple):
    """What is answered; Content-Length is added when it is sent."""

    status: int
    body: bytes = b''
    headers: tuple[tuple[str, str], ...] = ()


class Verdict(NamedTuple):
    """What a provider makes of a request: its answer, and what it took."""

    reply: Reply
    taken: Taken | None = None


class Refused(Exception):
    """Raised where a provider refuses a request; holds its answer."""

    def __init__(self, reply: Reply):
        super().__init__(reply.status)
        self.reply = reply


class Account(NamedTuple):
    """What a provider knows of its customer.

    `key` is the credential. `domains` are those that may send (None: all),
    `scopes` what the key allows at a provider whose keys tell.
    """

    key: str
    domains: Sequence[str] | None = None
    scopes: Sequence[str] = ('mail.send', 'whitelabel.read',
                             'user.credits.read', 'user.account.read',
                             'sender_verification_eligible')

    def may_send(self, domain: str) -> bool:
        """Whether `domain` is one of the account's."""
        return self.domains is None or is_among(domain, self.domains)

    @property
    def listed(self) -> Sequence[str]:
        """The domains that a list of them has; where any may send, that is
        the one of Stampman's own `config.json`."""
        return ('example.com',) if self.domains is None else self.domains

    def asked_for(self, query: str) -> list[str]:
        """Return the domain that `domain=` names, if it may send; without
        one all that are listed."""
        asked = parse_qs(query).get('domain', self.listed)
        return [domain for domain in asked if self.may_send(domain)]


class Provider(ABC):
    """One provider's HTTP half: a name, a path prefix and its answers."""

    name: ClassVar[str]
    prefix: ClassVar[str]

    def __init__(self, account: Account, now: Callable[[], float],
                 is_on: Callable[[str], bool]):
        """`now` returns seconds since the epoch, `is_on` whether `quota`
        or `scope` is switched on here."""
        self.account = account
        self.now = now
        self.is_on = is_on

    @abstractmethod
    def is_sending(self, method: str, path: str) -> bool:
        """Whether this is where messages are sent; else it only reads."""

    @abstractmethod
    def judge(self, request: Request) -> Verdict:
        """Return the answer to `request`; raises Refused as well."""

    @abstractmethod
    def error(self, word: str, taken: Taken | None) -> Reply | None:
        """Return the answer for an error of the class `word`, or None
        where that is about recipients and there are none; `taken` is what
        would have been taken."""

    @abstractmethod
    def rejecting(self, verdict: Verdict,
                  is_rejected: Callable[[str], bool]) -> Verdict:
        """Return the verdict where some recipients, at least one, are
        rejected."""

    @abstractmethod
    def settings(self, base_url: str) -> dict[str, Any]:
        """Return what a service of Stampman's config needs to come here."""

    def answer(self, request: Request) -> Verdict:
        """Return what is answered to `request`, and what is taken."""
        try:
            return self.judge(request)
        except Refused as refused:
            return Verdict(refused.reply)


def as_json(status: int, value: Any,
            headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """Return `value` as an answer in JSON."""
    return Reply(status, json.dumps(value).encode(),
                 (('Content-Type', 'application/json'), *headers))


def as_text(status: int, text: str) -> Reply:
    """Return an answer in plain text."""
    return Reply(status, text.encode(),
                 (('Content-Type', 'text/plain; charset=utf-8'),))
