"""One HTTP call to a provider: by a deadline, once, and with a known end.

A call ends in an `Answer` or in a `Fault`, which says how far the request
came: what fails at `Stage.nothing` was surely not taken, all later ones may
have been.
"""

import functools
import os
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import certifi
import requests
from requests.structures import CaseInsensitiveDict
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from stampman import __version__
from stampman.helpers import strict_json
from stampman.helpers.delivery import Clock
from stampman.helpers.exceptions import BadRequest
from stampman.services._connections import Adapter
from stampman.services._wire import (
    MAX_BODY, Broken, Call, Means, Names, Stage)

__all__ = ['Answer', 'Fault', 'Request', 'Stage', 'Transport']

CONNECT_LIMIT = 3.0     # seconds to look up, connect and shake hands
IDLE_LIMIT = 5.0        # seconds after which a connection is not used again
SHORTEST_REST = 1.0     # seconds; what Retry-After can ask for
LONGEST_REST = 3600.0

_AGENT = f'Stampman/{__version__}'
_PORTS = {'http': 80, 'https': 443}
_BODILESS = ('GET', 'HEAD', 'DELETE')
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile('[\t\x20-\x7e\x80-\xff]*')
_SECONDS = re.compile('[0-9]+')
_DATE = re.compile('[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} '
                   '[0-9]{2}:[0-9]{2}:[0-9]{2} GMT')


class Request(NamedTuple):
    """What is sent, exactly once; no redirect is followed.

    `max_answer` is how many bytes are kept of the answer's body.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes = b''
    max_answer: int = MAX_BODY


@dataclass(frozen=True)
class Answer:
    """What the provider answered; `headers` are case-insensitive.

    `complete` is False where the body was longer than what is kept of it.
    `received_at` is in seconds since the epoch, by our own clock.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    complete: bool = True
    received_at: float | None = None

    def __post_init__(self):
        if not isinstance(self.headers, CaseInsensitiveDict):
            object.__setattr__(
                self, 'headers', CaseInsensitiveDict(self.headers))

    @property
    def text(self) -> str:
        """The body, as far as it is UTF-8."""
        return self.body.decode(errors='replace')

    @functools.cached_property
    def json(self) -> Any:
        """The body as strict JSON; None where it is none."""
        try:
            return strict_json.read(self.body)
        except BadRequest:
            return None

    @property
    def retry_after(self) -> float | None:
        """The seconds to wait that the answer asks for, 1 s to 1 h; None
        where it asks for none, or not clearly."""
        asked = self._single('Retry-After')
        if _SECONDS.fullmatch(asked):
            seconds = float(asked)
        else:
            until, now = _date(asked), _date(self._single('Date'))
            now = self.received_at if now is None else now
            if until is None or now is None:
                return None
            seconds = until - now
        return min(max(seconds, SHORTEST_REST), LONGEST_REST)

    def _single(self, name):
        """Return a header; one that came twice, and the same, once."""
        text = self.headers.get(name, '').strip()
        first = text[:(len(text) - 2) // 2]
        return first if first and text == f'{first}, {first}' else text


class Fault(NamedTuple):
    """Why there is no answer, and the stage that was reached.

    `reason` is for people and holds nothing of the request; `alert` where a
    person has to put something right.
    """

    stage: Stage
    reason: str
    alert: bool = False


class Transport:
    """Calls providers over connections that all threads share.

    Connections are made by the process that uses them, never inherited over
    a fork. Of the environment nothing counts: no proxy, no `.netrc`, no CA
    bundle.
    """

    def __init__(self, clock: Clock, proxy: str | None = None, *,
                 ca_file: str | None = None,
                 resolve: Callable[[str, int], list] | None = None,
                 connect_limit: float = CONNECT_LIMIT,
                 idle_limit: float = IDLE_LIMIT):
        """Trust `ca_file` in the place of certifi's CAs, and ask `resolve` in
        the place of getaddrinfo; the limits are in seconds.

        Raises ValueError where `proxy` is not like `http://host:port`.
        """
        if proxy and not re.match('http://[^/]', proxy):
            raise ValueError('a proxy is given as "http://host:port"')
        self._clock = clock
        self._proxies = {'http': proxy, 'https': proxy} if proxy else {}
        self._means = functools.partial(
            means_of, clock, ca_file, resolve, connect_limit, idle_limit)
        self._of_process = {}

    def call(self, request: Request, deadline: float) -> Answer | Fault:
        """Send `request` once, and say how it went by `deadline`, which is
        in seconds of the monotonic clock.

        Not a byte is written once the deadline has come.
        """
        adapter, means = self._kept()
        call = Call(means, deadline, request.max_answer)
        try:
            response = adapter.send(
                _prepared(request), timeout=call, proxies=self._proxies)
        except Broken as broken:
            return Fault(call.stage, broken.reason, broken.alert)
        except requests.RequestException:
            # Only what is found out before anything is written; its text
            # may hold the URL or a header.
            return Fault(call.stage, 'the request cannot be written as HTTP: '
                         'its URL, a header or the proxy is wrong', True)
        body = response.raw.read()
        return Answer(response.status_code, response.headers,
                      body[:request.max_answer],
                      len(body) <= request.max_answer,
                      self._clock.now())

    def close(self) -> None:
        """Close all connections that are idle; they are made again."""
        self._kept()[0].close()

    def _kept(self):
        """Return what this process keeps; a fork's child makes its own.

        There is no lock: it could be held while another thread forks.
        """
        pid = os.getpid()
        if pid not in self._of_process:
            mine = Adapter(), self._means()
            self._of_process = {pid: self._of_process.setdefault(pid, mine)}
        return self._of_process[pid]


def means_of(clock: Clock, ca_file: str | None = None,
             resolve: Callable[[str, int], list] | None = None,
             connect_limit: float = CONNECT_LIMIT,
             idle_limit: float = IDLE_LIMIT) -> Means:
    """Return what connections of one process are made with."""
    return Means(clock, Names(resolve or _getaddrinfo),
                 lambda: _tls(ca_file or certifi.where()),
                 connect_limit, idle_limit)


@functools.cache
def _tls(ca_file: str) -> ssl.SSLContext:
    """Return the one context of this process; a new one takes 20 ms."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)    # it verifies
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(ca_file)
    return context


def _getaddrinfo(host, port):
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


@functools.lru_cache(maxsize=256)
def _place(url):
    """Return `url` as requests writes it, and the host as HTTP does."""
    prepared = requests.PreparedRequest()
    prepared.prepare_url(url, None)
    try:
        told = parse_url(prepared.url)
    except LocationParseError as error:
        raise requests.exceptions.InvalidURL(error) from error
    host = (told.host or '').rstrip('.')
    is_usual = told.port in (None, _PORTS.get(told.scheme))
    return prepared.url, host if is_usual else f'{host}:{told.port}'


def _prepared(request):
    """Return requests' form of `request`, without what it would add.

    It may name the first headers anew, but not the last ones.
    """
    url, host = _place(request.url)
    given = request.headers.items()
    if not all(_HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value)
               for name, value in given):
        raise requests.exceptions.InvalidHeader
    last = [('Accept-Encoding', 'identity')]
    if request.body or request.method not in _BODILESS:
        last.append(('Content-Length', str(len(request.body))))
    prepared = requests.PreparedRequest()
    prepared.method = request.method
    prepared.url = url
    prepared.headers = dict({name.lower(): (name, value) for name, value in (
        ('Host', host), ('Accept', 'application/json'),
        ('User-Agent', _AGENT), *given, *last)}.values())
    prepared.body = request.body
    return prepared


def _date(text):
    if not _DATE.fullmatch(text):
        return None
    try:
        return parsedate_to_datetime(text).timestamp()
    except ValueError:
        return None
