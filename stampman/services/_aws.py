"""Signature Version 4 and AWS's own credential chain, by botocore.

It takes a while to load: import this module only where it is used.
"""

import hashlib
import threading
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import NamedTuple

from botocore.auth import SIGV4_TIMESTAMP, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials, RefreshableCredentials
from botocore.session import Session

from stampman.helpers.delivery import Clock, Kind
from stampman.helpers.turns import turns
from stampman.services.base import NoCredentials
from stampman.services.transport import Request

# Seconds before keys run out: when new ones are looked for, and when these
# are not used any more.
RENEWED, SPENT = 300, 60
# Seconds after which a look is given up, and how many that may still run
# are: each is a thread.
TOO_LONG, MOST_GIVEN_UP = 60.0, 3
# For the chain's own calls.
CALLS = Config(connect_timeout=3, read_timeout=5,       # seconds
               retries={'total_max_attempts': 1})


class Keys(NamedTuple):
    """What a request is signed with; `token` comes with temporary keys."""

    access_key: str
    secret_key: str
    token: str | None = None


class _Found(NamedTuple):
    """What the chain has come to; the credentials tell when it runs out."""

    keys: Keys
    credentials: Credentials

    def ends_within(self, seconds):
        return (isinstance(self.credentials, RefreshableCredentials)
                and self.credentials.refresh_needed(seconds))


class Chain:
    """The credentials that botocore finds around this process.

    A source may answer late or never: it is asked in a thread of its own,
    by one at a time, however many wait. One that lasts too long is given
    up, and another is asked. Keys that run out are looked for anew, at
    first while the old ones still serve.
    """

    def __init__(self, clock: Clock):
        self._clock = clock
        self._found = None
        self._running = None
        self._began = 0.0       # monotonic
        self._given_up = 0      # that may still run
        self._lock = threading.Lock()

    def keys(self, seconds: float) -> Keys:
        """Return the keys of this moment; wait for them for `seconds`.

        Raises NoCredentials, whose text holds nothing of them.
        """
        found = self._found
        if found and not found.ends_within(RENEWED):
            return found.keys
        running = self._future()
        if found and not found.ends_within(SPENT):
            return found.keys       # a failure is told once these are spent
        try:
            with turns.away:
                return running.result(seconds).keys
        except TimeoutError:
            raise NoCredentials('the AWS credential chain did not answer in '
                                'time', Kind.deferred) from None

    def forget(self) -> None:
        """Look anew the next time: the keys are not valid any more."""
        self._found = None

    def _future(self):
        with self._lock:
            now = self._clock.monotonic()
            running = self._running
            if running and now >= self._began + TOO_LONG \
                    and self._given_up < MOST_GIVEN_UP:
                self._given_up += 1
                running = None
            if running is None:
                running, self._began = Future(), now
                threading.Thread(target=self._look_up, daemon=True,
                                 args=(running,)).start()
                self._running = running
            return running

    def _look_up(self, running):
        try:
            found, failure = _find(), None
        except NoCredentials as error:
            found, failure = None, error
        with self._lock:
            self._found = found or self._found
            if self._running is running:
                self._running = None
            else:
                self._given_up -= 1
        if failure:
            running.set_exception(failure)
        else:
            running.set_result(found)


def _find():
    try:
        session = Session()
        session.set_default_client_config(CALLS)
        credentials = session.get_credentials()
        keys = credentials and credentials.get_frozen_credentials()
    except Exception as error:      # each source fails in its own way
        raise NoCredentials('the AWS credential chain failed: '
                            f'{type(error).__name__}') from error
    if not (keys and keys.access_key and keys.secret_key):
        raise NoCredentials('no AWS credentials: set "access_key_id" and '
                            '"secret_access_key", or a source of the AWS '
                            'credential chain')
    return _Found(
        Keys(keys.access_key, keys.secret_key, keys.token), credentials)


def signed(request: Request, keys: Keys, service: str, region: str,
           now: float) -> Request:
    """Return `request` with its signature; all its headers are signed.

    `now` is in seconds since the epoch.
    """
    aws = AWSRequest(request.method, request.url, dict(request.headers),
                     request.body)
    _Signature(keys, service, region, now).add_auth(aws)
    return request._replace(headers=dict(aws.headers.items()))


class _Signature(SigV4Auth):
    """botocore's signature, at a time that is handed in; botocore's own
    would also write the canonical request, with its token, to the log."""

    def __init__(self, keys, service, region, now):
        super().__init__(keys, service, region)
        self._now = datetime.fromtimestamp(now, UTC)
        self._to_sign = None

    def headers_to_sign(self, request):
        """They are asked for twice; this object signs one request."""
        if self._to_sign is None:
            self._to_sign = super().headers_to_sign(request)
        return self._to_sign

    def payload(self, request):
        """botocore would prepare the whole request to get at its body."""
        return hashlib.sha256(request.data).hexdigest()

    def add_auth(self, request):
        request.context['timestamp'] = self._now.strftime(SIGV4_TIMESTAMP)
        self._modify_request_before_signing(request)
        text = self.string_to_sign(request, self.canonical_request(request))
        self._inject_signature_to_request(
            request, self.signature(text, request))
