"""Amazon SES: its signatures, and what goes in which of its two forms."""

import base64
import hashlib
import hmac
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from email import message_from_bytes, policy
from urllib.parse import quote

import pytest
from pydantic import ValidationError

from stampman.helpers.delivery import Clock, Kind
from stampman.helpers.mail import Email
from stampman.services import _aws, service_class
from stampman.services.transport import Request

from readers import read_amazon_ses
from servers import Recorder
from test_services import (
    ATTEMPT, DATA, MESSAGE, NOW, an_email, context, service)

SECRET = DATA['amazon_ses']['settings']['secret_access_key']
LONG = 60.0         # seconds; 40 megabytes on a busy machine
TOKEN = 'a-session/token+of=the=tests'
OK = (200, {'SendingEnabled': True}), (200, {'VerifiedForSendingStatus': True})
# The token of AWS's test suite for Signature Version 4.
SUITES_TOKEN = (
    'AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKW'
    'HGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4'
    'IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE'
    '8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yj'
    'c8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==')
AUTHORIZATION = re.compile(
    'AWS4-HMAC-SHA256 Credential=([A-Za-z0-9]+)/([0-9]{8}/[a-z0-9-]+/[a-z]+/'
    'aws4_request), SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})')


@pytest.fixture
def server():
    with Recorder() as recorder:
        recorder.answer(200, {'MessageId': 'abc-1'})
        yield recorder


def sent_by(server, email=None, envelope=None, path='', **settings):
    """Send through a service at `server`; return the request."""
    ours = service('amazon_ses', server.url + path, **settings)
    outcome = ours.send_email(email or an_email(), context(
        ours.settings.timeout)._replace(envelope=envelope))
    assert outcome.kind is Kind.accepted, outcome.reason
    return server.requests[-1]


# -- signatures --------------------------------------------------------------

def signer_of(request, secrets, region='us-east-1'):
    """Verify a signature as AWS describes it; return who signed what."""
    key_id, scope, names, signature = AUTHORIZATION.fullmatch(
        request.headers['Authorization']).groups()
    moment = request.headers['X-Amz-Date']
    assert scope == f'{moment[:8]}/{region}/ses/aws4_request'
    canonical = '\n'.join((
        request.method, quote(request.path), request.query,
        *(f'{name}:{request.headers[name].strip()}'
          for name in names.split(';')),
        '', names, hashlib.sha256(request.body).hexdigest()))
    to_sign = '\n'.join(('AWS4-HMAC-SHA256', moment, scope,
                         hashlib.sha256(canonical.encode()).hexdigest()))
    key = f'AWS4{secrets[key_id]}'.encode()
    for step in (*scope.split('/'), to_sign):
        key = hmac.digest(key, step.encode(), 'sha256')
    assert hmac.compare_digest(key.hex(), signature), 'a wrong signature'
    return key_id, names.split(';')


def is_signed(request, names, secrets={'AKIDEXAMPLE': SECRET}):
    return signer_of(request, secrets) == ('AKIDEXAMPLE', names.split())


@pytest.mark.parametrize('method, token, signature', [
    ('GET', None,
     '5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31'),
    ('POST', None,
     '5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b'),
    ('POST', SUITES_TOKEN,
     '85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead')])
def test_a_signature_is_that_of_the_suite_that_aws_publishes(
        method, token, signature):
    now = datetime(2015, 8, 30, 12, 36, tzinfo=UTC).timestamp()
    signed = _aws.signed(
        Request(method, 'https://example.amazonaws.com/', {}),
        _aws.Keys('AKIDEXAMPLE', SECRET, token), 'service', 'us-east-1', now)
    assert signed.headers['Authorization'].endswith(f'Signature={signature}')


@pytest.mark.parametrize('path', ['', '/ses', '/mail/ses~v2'])
def test_an_email_is_signed_with_its_host_its_port_and_its_path(
        path, server):
    sent = sent_by(server, path=path)
    assert sent.path == f'{path}/v2/email/outbound-emails'
    assert sent.headers['Host'] == f'127.0.0.1:{server.port}'
    assert is_signed(sent, 'content-type host x-amz-date')
    with pytest.raises(AssertionError, match='a wrong signature'):
        is_signed(sent._replace(body=sent.body + b' '), '')


def test_a_session_token_is_sent_signed_and_kept_secret(server):
    sent = sent_by(server, session_token=TOKEN)
    assert sent.headers['X-Amz-Security-Token'] == TOKEN
    assert is_signed(sent,
                     'content-type host x-amz-date x-amz-security-token')
    assert {SECRET, TOKEN} <= set(
        service('amazon_ses', session_token=TOKEN).secrets)


@pytest.mark.parametrize('path', ['', '/ses'])
def test_both_questions_of_a_probe_are_signed(path, server):
    server.script(*OK)
    assert service('amazon_ses', server.url + path).probe().ok
    assert [sent.path for sent in server.requests] == [
        f'{path}/v2/email/account', f'{path}/v2/email/identities/example.com']
    for sent in server.requests:
        assert is_signed(sent, 'host x-amz-date')


def test_a_region_is_signed_for(server):
    sent = sent_by(server, region='eu-central-1')
    assert signer_of(sent, {'AKIDEXAMPLE': SECRET}, 'eu-central-1')


def test_the_time_of_a_signature_is_the_time_that_is_handed_in(server):
    cls = service_class('amazon_ses')
    settings = cls.Settings(
        **DATA['amazon_ses']['settings'], base_url=server.url)
    for now, said in ((NOW, '20270115T080000Z'),
                      (NOW + 86_399.9, '20270116T075959Z')):
        clock = Clock(lambda: now, time.monotonic)
        cls('a', settings, 'example.com', clock).send_email(
            an_email(), context())
        assert server.requests[-1].headers['X-Amz-Date'] == said
        assert is_signed(server.requests[-1], 'content-type host x-amz-date')


def test_botocore_is_loaded_only_to_sign():
    subprocess.run(
        [sys.executable, '-c', 'import sys; '
         'from stampman.services import amazon_ses; '
         'assert "botocore" not in sys.modules'], check=True, timeout=60)


# -- the two forms -----------------------------------------------------------

@pytest.mark.parametrize('form, fields', [
    ('Simple', {}),
    ('Simple', {'html': '<p>Hi</p>', 'cc': ['c@example.org']}),
    ('Simple', {'headers': {f'X-{n}': 'v' for n in range(14)}}),
    ('Raw', {'headers': {f'X-{n}': 'v' for n in range(15)}}),
    ('Simple', {'headers': {'X-A': 'v' * 993}}),
    ('Raw', {'headers': {'X-A': 'v' * 994}}),
    ('Raw', {'headers': {'X-A': ''}}),
    ('Raw', {'headers': {'X-A': 'größer'}}),
    ('Raw', {'headers': {'X-A': '=?utf-8?q?x?='}}),
    ('Raw', {'subject': '=?utf-8?q?x?='}),
    ('Raw', {'subject': ''}),
    ('Raw', {'recipients': [], 'cc': ['c@example.org']}),
    ('Raw', {'attachments': [{'filename': 'a.txt', 'content': 'YQ=='}]}),
])
def test_what_the_simple_form_would_not_carry_whole_goes_as_mime(
        form, fields, server):
    email = an_email(**fields)
    sent = sent_by(server, email)
    assert list(sent.json['Content']) == [form]
    read = read_amazon_ses(sent)
    assert read['subject'] == email.subject
    assert read['headers'].items() >= email.headers.items()
    assert read['headers']['X-Stampman-Id'] == f'{MESSAGE}/{ATTEMPT}'


def test_a_message_is_mime_to_the_last_byte_and_names_no_bcc(server):
    email = an_email(
        from_name='Shop', bcc=['di@example.org'], tags=['gold'],
        attachments=[{'filename': 'a.txt', 'content_type': 'text/plain',
                      'content': 'YWJj'}], track_opens=False)
    sent = sent_by(server, email, configuration_set='events')
    message = base64.b64decode(
        sent.json['Content'].pop('Raw')['Data'], validate=True)
    boundary = message_from_bytes(message).get_boundary()
    assert message.decode().split('\r\n') == [
        'From: Shop <shop@example.com>',
        'To: ann@example.org',
        'Subject: Order',
        'Date: Fri, 15 Jan 2027 08:00:00 +0000',
        f'Message-ID: <{MESSAGE}@example.com>',
        f'X-Stampman-Id: {MESSAGE}/{ATTEMPT}',
        'MIME-Version: 1.0',
        f'Content-Type: multipart/mixed; boundary="{boundary}"', '',
        f'--{boundary}',
        'Content-Type: text/plain; charset="us-ascii"',
        'Content-Transfer-Encoding: 7bit', '', 'Hello',
        f'--{boundary}',
        'Content-Type: text/plain',
        'Content-Disposition: attachment; filename="a.txt"',
        'Content-Transfer-Encoding: base64', '', 'YWJj',
        f'--{boundary}--', '']
    fields = sent.json
    del fields['Content']
    assert fields == {
        'Destination': {'ToAddresses': ['ann@example.org'],
                        'BccAddresses': ['di@example.org']},
        'EmailTags': [{'Name': 'stampman_id', 'Value': MESSAGE},
                      {'Name': 'stampman_attempt', 'Value': ATTEMPT},
                      {'Name': 'stampman_tag_1', 'Value': 'gold'}],
        'ConfigurationSetName': 'events',
        'ConfigurationOverrides': {
            'Tracking': {'OpenTrackingEnabled': 'DISABLED'}}}


def test_some_recipients_alone_are_the_envelope_under_the_same_header(server):
    email = an_email(
        recipients=['Ann <ann@example.org>', 'bo@example.org'],
        cc=['Cy <cy@example.org>'], bcc=['di@example.org', 'e@example.org'])
    sent = sent_by(server, email, ('bo@example.org', 'di@example.org'))
    assert sent.json['Destination'] == {'ToAddresses': ['bo@example.org'],
                                        'BccAddresses': ['di@example.org']}
    message = message_from_bytes(base64.b64decode(
        sent.json['Content']['Raw']['Data']), policy=policy.default)
    assert message['To'] == 'Ann <ann@example.org>, bo@example.org'
    assert message['Cc'] == 'Cy <cy@example.org>'
    assert message['Bcc'] is None


@pytest.mark.parametrize('fields, reason', [
    ({'metadata': {'k' * 256: 'v' * 256}}, ''),
    ({'metadata': {'k': 'ü' * 94}}, ''),
    ({'tags': ['t' * 256, 'a b' * 63]}, ''),
    ({'metadata': {'a.b': 'v'}}, 'metadata: a key is not of 1 to 256'),
    ({'metadata': {'k' * 257: 'v'}}, 'metadata: a key is not of 1 to 256'),
    ({'metadata': {'k': 'v' * 257}}, 'metadata: at most 256 characters'),
    ({'metadata': {'k': 'ü' * 95}}, 'metadata: at most 256 characters'),
    ({'tags': ['t' * 257]}, 'tags: at most 256 characters'),
    ({'tags': ['t', 'a b' * 63 + ' ']}, 'tags: at most 256 characters')])
def test_metadata_and_tags_are_carried_whole_or_not_at_all(
        fields, reason, server):
    email = an_email(**fields)
    outcome = service('amazon_ses', server.url).send_email(email, context())
    if reason:
        assert outcome.kind is Kind.unsupported
        assert outcome.reason.startswith(reason)
        assert not server.requests
        return
    read = read_amazon_ses(server.requests[-1])
    assert read['tags'] == list(email.tags)
    assert read['metadata'].items() >= email.metadata.items()


def raw_size(sent):
    return len(base64.b64decode(sent.json['Content']['Raw']['Data']))


def test_a_message_has_at_most_40_megabytes_before_its_base64(server):
    """Only a last line of the file is not as long as the others."""
    def with_file(size):
        return Email(
            from_email='shop@example.com', recipients=['ann@example.org'],
            subject='Order', content='x', attachments=[
                {'filename': 'a', 'content': bytes(size)}])

    room = 40_000_000 - raw_size(sent_by(server, with_file(57)))
    lines = room // 78          # 76 characters and their end
    size = 57 * (lines + 1) + (room % 78 - 2) // 4 * 3
    sent = sent_by(server, with_file(size), timeout=LONG)
    assert 40_000_000 - 80 < raw_size(sent) <= 40_000_000
    before = len(server.requests)
    outcome = service('amazon_ses', server.url).send_email(
        with_file(size + 57), context())
    assert outcome.kind is Kind.unsupported
    assert re.fullmatch('the whole email: at most 40000000 bytes are '
                        'carried, not 400000[0-9]{2}', outcome.reason)
    assert len(server.requests) == before


def test_a_text_and_its_html_count_together_as_utf_8(server):
    outcome = service('amazon_ses', server.url).send_email(Email(
        from_email='shop@example.com', recipients=['ann@example.org'],
        subject='Order', content='x' * 20_000_000,
        html='\u00fc' * 10_000_000 + '!'), context())
    assert outcome.kind is Kind.unsupported
    assert outcome.reason == ('the whole email: at most 40000000 bytes are '
                              'carried, not 40000001')
    assert not server.requests


@pytest.mark.parametrize('region', ['us-iso-east-1', 'eu-isoe-west-1'])
def test_a_region_without_ses_is_refused_by_name(region):
    with pytest.raises(ValidationError) as failure:
        service('amazon_ses', region=region)
    assert f'there is no Amazon SES in "{region}"' in str(failure.value)


def test_people_are_told_of_the_limits_of_tags_and_metadata():
    told = service('amazon_ses').capabilities.described()
    assert told['size'] == 'up to 40,000,000 bytes as MIME'
    assert 'of up to 256 characters' in told['tags']
    assert 'up to 189 bytes' in told['tags']
    assert 'a key of up to 256 of A-Z, a-z, 0-9, "_" and "-"' in (
        told['metadata'])
