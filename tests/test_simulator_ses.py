"""The simulated SES takes what the sheet lets it take."""

import base64
import json

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

import simulating
from simulating import ACCESS_KEY, SECRET_KEY, SES_MAIL, call
from stampman.simulator import Simulator

JSON = 'application/json'
FORM = 'application/x-www-form-urlencoded'


@pytest.fixture(scope='module')
def simulator():
    with Simulator(domains=['example.com']) as running:
        yield running


@pytest.fixture
def ledger(simulator):
    simulator.ledger.clear()
    return simulator.ledger


def ask(simulator, method, path, body=b'', access=ACCESS_KEY,
        secret=SECRET_KEY, token=None, service='ses', form=False):
    """Send a request that the vendor's own library has signed."""
    request = AWSRequest(method, f'{simulator.url}{path}', data=body,
                         headers={'Content-Type': FORM if form else JSON})
    SigV4Auth(Credentials(access, secret, token), service,
              'eu-west-1').add_auth(request)
    return call(simulator, method, path, body, request.headers.items())


def send(simulator, mail=SES_MAIL, **more):
    return ask(simulator, 'POST', simulating.SES_PATH,
               json.dumps(mail).encode(), **more)


def kind_of(got):
    return got.headers['x-amzn-errortype'].partition(':')[0]


def raw(message=simulating.MIME, **more):
    return {'Content': {'Raw': {'Data': base64.b64encode(message).decode()}},
            **more}


def simple(**changes):
    return {**SES_MAIL, 'Content': {'Simple': {
        **SES_MAIL['Content']['Simple'], **changes}}}


FILE = {'RawContent': 'aGVsbG8=', 'FileName': 'a.txt',
        'ContentType': 'text/plain', 'ContentDisposition': 'ATTACHMENT'}


def test_a_simple_mail_is_taken_and_has_an_id(simulator, ledger):
    got = send(simulator)
    assert got.status == 200
    assert got.headers['x-amzn-requestid']
    entry, = ledger.entries('amazon_ses')
    assert got.json == {'MessageId': entry.provider_ids[0]}
    assert (entry.stampman_id, entry.stampman_attempt) == (
        'message-1', 'attempt-1')
    assert entry.sender == 'shop@example.com'
    assert [(one.email, one.kind) for one in entry.recipients] == [
        ('ann@example.net', 'to'), ('carl@example.net', 'bcc')]
    assert entry.subject == 'Your order'
    assert ledger.content(entry.number) == {
        'text': 'It is sent.', 'html': '<p>It is sent.</p>'}


@pytest.mark.parametrize('destination, expected', [
    ({}, [('ann@example.net', 'to')]),
    ({'Destination': {'ToAddresses': ['ann@example.net'],
                      'BccAddresses': ['carl@example.net']}},
     [('ann@example.net', 'to'), ('carl@example.net', 'bcc')])])
def test_raw_mime_is_taken_for_its_envelope(
        simulator, ledger, destination, expected):
    assert send(simulator, raw(**destination)).status == 200
    entry, = ledger.entries()
    assert [(one.email, one.kind) for one in entry.recipients] == expected
    assert (entry.sender, entry.subject, entry.stampman_id) == (
        'shop@example.com', 'Your order', 'message-1')
    assert entry.size == len(simulating.MIME)


@pytest.mark.parametrize('mail', [
    simple(Attachments=[FILE]),
    simple(Attachments=[{**FILE, 'ContentDisposition': 'INLINE',
                         'ContentId': 'logo'}]),
    simple(Headers=[{'Name': f'X-{n}', 'Value': 'a'} for n in range(15)]),
    {**SES_MAIL, 'ReplyToAddresses': ['a@example.com', 'b@example.com']},
    {**SES_MAIL, 'ConfigurationSetName': 'events'},
    {**SES_MAIL, 'EmailTags': [{'Name': f'tag_{n}', 'Value': 'a'}
                               for n in range(200)]},
    {**SES_MAIL, 'ConfigurationOverrides': {'Tracking': {
        'OpenTrackingEnabled': 'DISABLED'}}},
    {**SES_MAIL, 'Content': {'Template': {
        'TemplateName': 'order', 'TemplateData': '{}'}}}])
def test_what_the_sheet_allows_is_taken(simulator, mail):
    assert send(simulator, mail).status == 200


@pytest.mark.parametrize('wrong, kind', [
    ({'access': 'AKIAOTHER'}, 'UnrecognizedClientException'),
    ({'token': 'session'}, 'UnrecognizedClientException'),
    ({'secret': 'other'}, 'SignatureDoesNotMatch'),
    ({'service': 'email'}, 'SignatureDoesNotMatch')])
def test_other_credentials_are_403(simulator, ledger, wrong, kind):
    got = send(simulator, **wrong)
    assert (got.status, kind_of(got)) == (403, kind)
    assert not ledger.entries()
    assert ask(simulator, 'GET', '/ses/v2/email/account', **wrong
               ).status == 403


@pytest.mark.parametrize('field, message', [
    ('FromEmailAddress', 'FromEmailAddress is missing'),
    ('Destination', 'Destination has no address'),
    ('Content', 'Content must have exactly one')])
def test_each_required_field_is_missed(simulator, ledger, field, message):
    got = send(simulator, {name: value for name, value in SES_MAIL.items()
                           if name != field})
    assert (got.status, kind_of(got)) == (400, 'BadRequestException')
    assert message in got.json['message']
    assert not ledger.entries()


def destination(*addresses):
    return {**SES_MAIL, 'Destination': {'ToAddresses': list(addresses)}}


@pytest.mark.parametrize('mail, message', [
    (destination(), 'no address'),
    (destination('ann'), "Missing final '@domain'"),
    (destination('a b@example.net'), 'control or whitespace'),
    (destination('a\n@example.net'), 'control or whitespace'),
    (destination('änn@example.net'), 'non-ASCII'),
    (destination('Änn <ann@example.net>'), 'non-ASCII'),
    (destination(*(f'u{n}@example.net' for n in range(51))), 'exceeds 50'),
    ({**SES_MAIL, 'Content': {**SES_MAIL['Content'], **raw()['Content']}},
     'exactly one'),
    ({**SES_MAIL, 'EmailTags': [{'Name': 'a', 'Value': 'b c'}]}, 'Tag'),
    ({**SES_MAIL, 'EmailTags': [{'Name': 'a'}]}, 'EmailTags'),
    ({**SES_MAIL, 'EmailTags': [{'Name': 'a', 'Value': 'x' * 257}]}, 'Tag'),
    ({**SES_MAIL, 'ReplyTo': []}, 'ReplyTo'),
    ({**SES_MAIL, 'FromEmailAddress': 1}, 'FromEmailAddress'),
    ({**SES_MAIL, 'ConfigurationOverrides': {'Tracking': {
        'OpenTrackingEnabled': False}}}, 'OpenTrackingEnabled'),
    (simple(Body={}), 'Subject and Body'),
    (simple(Subject={'Data': 'grün'}), 'no Charset'),
    (simple(Headers=[{'Name': f'X-{n}', 'Value': 'a'} for n in range(16)]),
     'More than 15'),
    (simple(Headers=[{'Name': 'X:', 'Value': 'a'}]), 'X:'),
    (simple(Headers=[{'Name': 'X', 'Value': 'a' * 996}]), 'header X'),
    (simple(Attachments=[{**FILE, 'RawContent': '%'}]), 'base64'),
    (simple(Attachments=[{'RawContent': 'aGk='}]), 'FileName'),
    (simple(Attachments=[{**FILE, 'ContentDisposition': 'inline'}]),
     'ContentDisposition'),
    (raw(b'\r\nno headers'), 'not MIME'),
    (raw(b'To: a@example.net\r\n\r\nx'), 'no From'),
    (raw(b'From: a@example.com\r\n\r\nx'), 'recipients'),
    ({'Content': {'Raw': {'Data': '%'}}}, 'base64'),
    ({**SES_MAIL, 'Content': {'Template': {}}}, 'exactly one')])
def test_what_is_wrong_is_400_and_named(simulator, ledger, mail, message):
    got = send(simulator, mail)
    assert (got.status, kind_of(got)) == (400, 'BadRequestException')
    assert message in got.json['message']
    assert not ledger.entries()


def test_another_sender_domain_is_not_verified(simulator):
    got = send(simulator, {**SES_MAIL, 'FromEmailAddress': 'a@example.org'})
    assert (got.status, kind_of(got)) == (400, 'MessageRejected')
    assert got.json['message'] == (
        'Email address is not verified. The following identities failed the '
        'check in region EU-WEST-1: a@example.org')


def test_a_message_over_40_mb_is_too_large(simulator):
    got = send(simulator, raw(simulating.MIME + b'x' * 41_943_040))
    assert (got.status, kind_of(got)) == (
        413, 'RequestEntityTooLargeException')


def test_our_ids_may_stand_in_the_header(simulator, ledger):
    mail = simple(Headers=[{'Name': 'X-Stampman-Id',
                            'Value': 'message-2/attempt-2'}])
    assert send(simulator, {**mail, 'EmailTags': []}).status == 200
    assert ledger.entries()[0].stampman_id == 'message-2'


def test_one_rejected_recipient_refuses_all(simulator, ledger):
    simulator.faults.add('amazon_ses:reject=carl@*')
    try:
        got = send(simulator)
        assert (got.status, kind_of(got)) == (400, 'BadRequestException')
        assert send(simulator, destination('ann@example.net')).status == 200
    finally:
        simulator.faults.clear()
    assert len(ledger.entries()) == 1


def test_a_body_of_another_type_is_415(simulator):
    got = ask(simulator, 'POST', simulating.SES_PATH, b'a=b', form=True)
    assert got.status == 415


def test_what_is_no_json_is_told(simulator):
    got = ask(simulator, 'POST', simulating.SES_PATH, b'{')
    assert (got.status, kind_of(got)) == (400, 'SerializationException')


def test_the_probes_answer(simulator):
    account = ask(simulator, 'GET', '/ses/v2/email/account').json
    assert account['SendingEnabled'] is True
    assert account['SendQuota']['Max24HourSend'] > 0
    identity = ask(simulator, 'GET',
                   '/ses/v2/email/identities/example.com').json
    assert identity['VerifiedForSendingStatus'] is True
    got = ask(simulator, 'GET', '/ses/v2/email/identities/example.org')
    assert (got.status, kind_of(got)) == (404, 'NotFoundException')


def test_an_unknown_operation_is_404(simulator):
    assert ask(simulator, 'POST', '/ses/v2/email/account').status == 404


def test_a_session_token_is_wanted_where_there_is_one():
    keys = {'amazon_ses': f'{ACCESS_KEY}:{SECRET_KEY}:session:1'}
    with Simulator(keys=keys) as simulator:
        assert send(simulator, token='session:1').status == 200
        assert send(simulator).status == 403
        assert simulator.services()['amazon_ses']['session_token'] == (
            'session:1')
