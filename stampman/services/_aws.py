"""Signature Version 4 and AWS's own credential chain, by botocore.

It takes a while to load: import this module only where it is used.
"""

from datetime import UTC, datetime
from typing import NamedTuple

from botocore.auth import SIGV4_TIMESTAMP, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.session import Session

from stampman.services.base import NoCredentials
from stampman.services.transport import Request

# For the chain's own calls: an email waits for them.
CALLS = Config(connect_timeout=3, read_timeout=5,       # seconds
               retries={'total_max_attempts': 1})


class Keys(NamedTuple):
    """What a request is signed with; `token` comes with temporary keys."""

    access_key: str
    secret_key: str
    token: str | None = None


class Chain:
    """The credentials that botocore finds around this process.

    They are looked for once; those that expire renew themselves. Two
    threads may both look at first, and find the same.
    """

    def __init__(self):
        self._found = None

    def keys(self) -> Keys:
        """Return the keys of this moment.

        Raises NoCredentials, whose text holds nothing of them.
        """
        try:
            found = self._found or self._look()
            keys = found and found.get_frozen_credentials()
        except Exception as error:      # each source fails in its own way
            raise NoCredentials(
                'the AWS credential chain failed: '
                f'{type(error).__name__}') from error
        if not (keys and keys.access_key and keys.secret_key):
            raise NoCredentials('no AWS credentials: set "access_key_id" and '
                                '"secret_access_key", or a source of the AWS '
                                'credential chain')
        self._found = found
        return Keys(keys.access_key, keys.secret_key, keys.token)

    def forget(self) -> None:
        """Look anew the next time: the keys are not valid any more."""
        self._found = None

    def _look(self):
        session = Session()
        session.set_default_client_config(CALLS)
        return session.get_credentials()


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

    def add_auth(self, request):
        request.context['timestamp'] = self._now.strftime(SIGV4_TIMESTAMP)
        self._modify_request_before_signing(request)
        text = self.string_to_sign(request, self.canonical_request(request))
        self._inject_signature_to_request(
            request, self.signature(text, request))
