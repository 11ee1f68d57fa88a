"""AWS Signature Version 4, checked as AWS describes it.

Written from the public description: canonical request, string to sign, a
key derived step by step, HMAC-SHA256. The service is `ses`; any region.
"""

import hashlib
import hmac
import re
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import parse_qsl, quote

from stampman.simulator.exchange import Request

ALGORITHM = 'AWS4-HMAC-SHA256'
SERVICE = 'ses'
LONGEST_SKEW = 900      # seconds between the client's clock and ours
_TIME = '%Y%m%dT%H%M%SZ'


class Credentials(NamedTuple):
    """What a client signs with; `token` is '' where there is none."""

    access_key: str
    secret_key: str
    token: str = ''


class BadSignature(Exception):
    """Raised where a request is not ours; `kind` is AWS's name for it."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind, self.message = kind, message


class _Claimed(NamedTuple):
    """What the header Authorization says."""

    access_key: str
    date: str
    region: str
    service: str
    end: str
    signed: tuple[str, ...]
    signature: str

    @property
    def scope(self):
        return '/'.join((self.date, self.region, self.service, self.end))


def check(request: Request, known: Credentials, now: float) -> None:
    """Raise BadSignature unless `request` was signed with `known`; `now` is
    in seconds since the epoch."""
    claimed = _claimed(request.headers.get('authorization', ''))
    for name in ('host', 'x-amz-date'):
        if name not in claimed.signed or name not in request.headers:
            raise BadSignature('IncompleteSignature',
                               f"'{name}' must be a signed header")
    token = request.headers.get('x-amz-security-token', '')
    if (claimed.access_key != known.access_key
            or not _same(token, known.token)):
        raise BadSignature('UnrecognizedClientException',
                           'The security token included in the request is '
                           'invalid.')
    _check_scope(claimed)
    _check_time(request.headers['x-amz-date'], claimed, now)
    expected = signature(request, claimed.signed, claimed.scope,
                         known.secret_key)
    if not _same(expected, claimed.signature):
        raise BadSignature(
            'SignatureDoesNotMatch', 'The request signature we calculated '
            'does not match the signature you provided. Check your AWS '
            'Secret Access Key and signing method.')


def signature(request: Request, signed: tuple[str, ...], scope: str,
              secret: str) -> str:
    """Return the signature of `request`, in hex."""
    text = '\n'.join((
        ALGORITHM, request.headers['x-amz-date'], scope,
        hashlib.sha256(_canonical(request, signed).encode()).hexdigest()))
    key = f'AWS4{secret}'.encode()
    for step in scope.split('/'):
        key = hmac.digest(key, step.encode(), 'sha256')
    return hmac.digest(key, text.encode(), 'sha256').hex()


def _canonical(request, signed):
    """The path is encoded once more, as for every service but S3."""
    pairs = sorted((quote(name, safe='-_.~'), quote(value, safe='-_.~'))
                   for name, value in parse_qsl(
                       request.query, keep_blank_values=True))
    headers = ''.join(
        f'{name}:{" ".join(request.headers.get(name, "").split())}\n'
        for name in signed)
    return '\n'.join((
        request.method, quote(request.target, safe='/-_.~'),
        '&'.join(f'{name}={value}' for name, value in pairs), headers,
        ';'.join(signed), hashlib.sha256(request.body).hexdigest()))


def _claimed(header):
    algorithm, _, rest = header.partition(' ')
    fields = dict(re.findall(r'([A-Za-z]+)=([^,\s]+)', rest))
    scope = fields.get('Credential', '').split('/')
    if (algorithm != ALGORITHM or len(scope) != 5
            or not {'SignedHeaders', 'Signature'} <= set(fields)):
        raise BadSignature(
            'IncompleteSignature', 'Authorization header requires '
            "'Credential', 'SignedHeaders' and 'Signature' parameters.")
    signed = tuple(fields['SignedHeaders'].split(';'))
    if list(signed) != sorted(set(signed)):
        raise BadSignature('IncompleteSignature',
                           'SignedHeaders are not sorted')
    return _Claimed(*scope, signed, fields['Signature'])


def _check_scope(claimed):
    if claimed.service != SERVICE or claimed.end != 'aws4_request':
        raise BadSignature(
            'SignatureDoesNotMatch', 'Credential should be scoped to correct '
            f"service: '{SERVICE}'.")


def _check_time(stamp, claimed, now):
    try:
        signed_at = datetime.strptime(stamp, _TIME).replace(tzinfo=UTC)
    except ValueError:
        raise BadSignature('IncompleteSignature',
                           'X-Amz-Date is no date') from None
    if not stamp.startswith(claimed.date):
        raise BadSignature('SignatureDoesNotMatch', 'Date in Credential '
                           'scope does not match YYYYMMDD from X-Amz-Date.')
    apart = signed_at.timestamp() - now
    if abs(apart) > LONGEST_SKEW:
        word = 'not yet current' if apart > 0 else 'expired'
        ours = datetime.fromtimestamp(now, UTC).strftime(_TIME)
        raise BadSignature(
            'SignatureDoesNotMatch', f'Signature {word}: {stamp} is more '
            f'than 15 min. from {ours}')


def _same(one, other):
    return hmac.compare_digest(one.encode(), other.encode())
