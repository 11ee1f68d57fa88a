"""The simulator's own check of AWS signatures, against AWS's examples."""

from datetime import UTC, datetime

import pytest

from stampman.simulator import sigv4
from stampman.simulator.exchange import Request

# As AWS publishes them; the keys are its documentation's.
SECRET = 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY'
STAMP = '20150830T123600Z'
NOW = datetime(2015, 8, 30, 12, 36, tzinfo=UTC).timestamp()
KNOWN = sigv4.Credentials('AKIDEXAMPLE', SECRET)


@pytest.mark.parametrize('headers, query, scope, expected', [
    ({'host': 'example.amazonaws.com'}, '', 'us-east-1/service',
     '5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31'),
    ({'content-type': 'application/x-www-form-urlencoded; charset=utf-8',
      'host': 'iam.amazonaws.com'}, 'Action=ListUsers&Version=2010-05-08',
     'us-east-1/iam',
     '5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7')])
def test_the_published_signatures_are_found(headers, query, scope, expected):
    headers = {**headers, 'x-amz-date': STAMP}
    request = Request('GET', '/', '/', query, headers)
    assert sigv4.signature(
        request, tuple(sorted(headers)), f'20150830/{scope}/aws4_request',
        SECRET) == expected


def signed(stamp=STAMP, date='20150830', names='host;x-amz-date',
           algorithm='AWS4-HMAC-SHA256', method='POST', **more):
    """Return a request that is signed well, whatever it says."""
    headers = {'host': 'localhost', 'x-amz-date': stamp, **more}
    request = Request(method, '/ses/a%40b', '/a%40b', '', headers, b'{}')
    scope = f'{date}/eu-west-1/ses/aws4_request'
    signature = sigv4.signature(request, tuple(names.split(';')), scope,
                                SECRET)
    headers['authorization'] = (
        f'{algorithm} Credential=AKIDEXAMPLE/{scope}, '
        f'SignedHeaders={names}, Signature={signature}')
    return request


def test_a_good_signature_passes_until_15_minutes_apart():
    for apart in (0, 899, -899):
        sigv4.check(signed(), KNOWN, NOW + apart)


@pytest.mark.parametrize('request_, now, kind', [
    (signed(), NOW + 901, 'SignatureDoesNotMatch'),
    (signed(), NOW - 901, 'SignatureDoesNotMatch'),
    (signed(date='20150829'), NOW, 'SignatureDoesNotMatch'),
    (signed()._replace(body=b'{ }'), NOW, 'SignatureDoesNotMatch'),
    (signed()._replace(method='PUT'), NOW, 'SignatureDoesNotMatch'),
    (signed()._replace(target='/ses/a@b'), NOW, 'SignatureDoesNotMatch'),
    (signed()._replace(query='a=b'), NOW, 'SignatureDoesNotMatch'),
    (signed(stamp='2015-08-30', date='2015'), NOW, 'IncompleteSignature'),
    (signed(names='x-amz-date'), NOW, 'IncompleteSignature'),
    (signed(names='host'), NOW, 'IncompleteSignature'),
    (signed(names='x-amz-date;host'), NOW, 'IncompleteSignature'),
    (signed(algorithm='AWS4'), NOW, 'IncompleteSignature'),
    (Request('POST', '/', '/', '', {}), NOW, 'IncompleteSignature')])
def test_each_wrong_signature_has_its_name(request_, now, kind):
    with pytest.raises(sigv4.BadSignature) as raised:
        sigv4.check(request_, KNOWN, now)
    assert raised.value.kind == kind


@pytest.mark.parametrize('apart, word', [
    (901, 'Signature expired'), (-901, 'Signature not yet current')])
def test_a_wrong_clock_is_named(apart, word):
    with pytest.raises(sigv4.BadSignature, match=word):
        sigv4.check(signed(), KNOWN, NOW + apart)
