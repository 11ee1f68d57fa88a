"""SMTP's settings, and what a vendor's headers say of an email."""

import json
from email import message_from_bytes, policy

import pytest
from pydantic import ValidationError

from stampman.helpers.delivery import Kind
from stampman.services import service_class

from servers import RawServer
from smtp_calling import (
    ATTEMPT, CLOCK, LOGIN, MESSAGE, an_email, closing, send, service)
from smtp_servers import Script

IDS = {'stampman_id': MESSAGE, 'stampman_attempt': ATTEMPT}
IDS_JSON = (f'{{"stampman_id": "{MESSAGE}", '
            f'"stampman_attempt": "{ATTEMPT}"}}')


def settings(**given):
    return service_class('smtp').Settings(**{'host': 'mx.example.net',
                                             **given})


def made(**given):
    return service_class('smtp')('smtp', settings(**given), 'example.com',
                                 CLOCK)


@pytest.mark.parametrize('given, place, message', [
    ({'host': 'a b'}, 'host', 'is not a domain name'),
    ({'host': ''}, 'host', 'is not a domain name'),
    ({'host': None}, 'host', ''),
    ({'host': 'https://mx.example.net'}, 'host', 'is not a domain name'),
    ({'port': 0}, 'port', ''), ({'port': 65_536}, 'port', ''),
    ({'port': True}, 'port', 'must be a number'),
    ({'tls': 'yes'}, 'tls', ''), ({'tls': False}, 'tls', ''),
    ({'base_url': 'https://mx.example.net'}, 'base_url', 'does not apply'),
    ({'proxy': 'http://proxy.example:3128'}, 'proxy', 'does not apply'),
    ({'username': 'a'}, None, 'needs both "username" and "password"'),
    ({'password': 'a'}, None, 'needs both "username" and "password"'),
    ({'username': 'a\0b', 'password': 'c'}, 'username', 'U+0000'),
    ({'username': 'a', 'password': ''}, 'password', ''),
    ({**LOGIN, 'tls': 'none'}, None, 'to this machine only'),
    ({**LOGIN, 'tls': 'none', 'host': '10.0.0.1'}, None,
     'to this machine only'),
    ({'vendor': 'acme'}, 'vendor', ''), ({'api_key': 'x'}, 'api_key', '')])
def test_a_wrong_setting_is_named(given, place, message):
    with pytest.raises(ValidationError) as failure:
        settings(**given)
    error = failure.value.errors()[0]
    assert error['loc'] == ((place,) if place else ())
    assert message in error['msg']


@pytest.mark.parametrize('given, url', [
    ({}, 'smtp://mx.example.net:587'),
    ({'tls': 'tls'}, 'smtp://mx.example.net:465'),
    ({'tls': 'none'}, 'smtp://mx.example.net:25'),
    ({'port': 2525, 'host': 'MX.example.net'}, 'smtp://mx.example.net:2525'),
    ({'host': 'mail'}, 'smtp://mail:587'),
    ({'host': 'bücher.example'}, 'smtp://xn--bcher-kva.example:587'),
    ({'host': '0:0::1', **LOGIN, 'tls': 'none'}, 'smtp://[::1]:25'),
    ({'host': 'localhost', **LOGIN, 'tls': 'none'}, 'smtp://localhost:25')])
def test_the_port_is_that_of_the_way_it_is_secured(given, url):
    assert made(**given).base_url == url


def test_an_account_is_a_server_and_a_login():
    accounts = [made(**given).account for given in (
        {}, {'port': 25}, LOGIN, {**LOGIN, 'password': 'other'},
        {**LOGIN, 'username': 'other'})]
    assert len(set(accounts)) == 5
    assert made(**LOGIN, vendor='mailgun').account == accounts[2]
    assert all(account.startswith('smtp:') for account in accounts)


def test_a_password_is_a_secret_in_every_form_that_is_sent():
    assert {'pass-6d0f2c', 'cGFzcy02ZDBmMmM=',
            'AHNob3AtbG9naW4AcGFzcy02ZDBmMmM='} <= set(made(**LOGIN).secrets)
    assert 'pass-6d0f2c' not in repr(made(**LOGIN).settings)


FULL = {'tags': ['welcome', 'a-b'], 'metadata': {'order': '4711'},
        'track_opens': True, 'track_clicks': False}
WITH_ORDER = IDS_JSON.replace('{', '{"order": "4711", ')
VENDORS = [
    (None, {'tags': ['welcome', 'ü, b']}, {
        'X-Stampman-Tag': ['welcome', 'ü, b'],
        'X-Stampman-Metadata': [IDS_JSON]}),
    (None, {'metadata': {'order': 'ü'}}, {
        'X-Stampman-Metadata': [
            IDS_JSON.replace('{', '{"order": "\\u00fc", ')]}),
    ('sendgrid', FULL, {'X-SMTPAPI': [
        '{"category": ["welcome", "a-b"], "unique_args": ' + WITH_ORDER
        + ', "filters": {"opentrack": {"settings": {"enable": 1}}, '
        '"clicktrack": {"settings": {"enable": 0}}}}']}),
    ('sendgrid', {}, {'X-SMTPAPI': ['{"unique_args": ' + IDS_JSON + '}']}),
    ('mailgun', FULL, {
        'X-Mailgun-Tag': ['welcome', 'a-b'],
        'X-Mailgun-Variables': [WITH_ORDER],
        'X-Mailgun-Track-Opens': ['yes'], 'X-Mailgun-Track-Clicks': ['no']}),
    ('amazon_ses', {'metadata': {'order': '4711'}}, {
        'X-SES-MESSAGE-TAGS': [
            f'order=4711, stampman_id={MESSAGE}, '
            f'stampman_attempt={ATTEMPT}']}),
    ('mandrill', FULL, {
        'X-MC-Tags': ['welcome,a-b'], 'X-MC-Metadata': [WITH_ORDER],
        'X-MC-Track': ['opens']}),
    ('mandrill', {'track_opens': True, 'track_clicks': True}, {
        'X-MC-Metadata': [IDS_JSON], 'X-MC-Track': ['opens,clicks']}),
    ('postmark', {**FULL, 'tags': ['welcome']}, {
        'X-PM-Tag': ['welcome'], 'X-PM-Metadata-order': ['4711'],
        'X-PM-Metadata-stampman_id': [MESSAGE],
        'X-PM-Metadata-stampman_attempt': [ATTEMPT],
        'X-PM-TrackOpens': ['true'], 'X-PM-TrackLinks': ['None']}),
    ('postmark', {'track_opens': False, 'track_clicks': True}, {
        'X-PM-Metadata-stampman_id': [MESSAGE],
        'X-PM-Metadata-stampman_attempt': [ATTEMPT],
        'X-PM-TrackOpens': ['false'], 'X-PM-TrackLinks': ['HtmlAndText']}),
]


def delivered(vendor, fields):
    """Return the outcome, and the vendor's headers by name."""
    script = Script()
    with RawServer(script) as server, closing(
            service(server.port, vendor=vendor)) as smtp:
        outcome = send(smtp, an_email(**fields))
    if not script.messages:
        return outcome, None
    assert max(map(len, script.messages[0].split(b'\r\n'))) <= 998
    message = message_from_bytes(script.messages[0], policy=policy.default)
    return outcome, {
        name: [str(value) for value in message.get_all(name)]
        for name in message if name.startswith('X-')
        and name != 'X-Stampman-Id'}


@pytest.mark.parametrize('vendor, fields, expected', VENDORS)
def test_tags_metadata_and_tracking_are_headers(vendor, fields, expected):
    outcome, headers = delivered(vendor, fields)
    assert outcome.kind is Kind.accepted, outcome.reason
    assert headers == expected


@pytest.mark.parametrize('vendor, fields, reason', [
    (None, {'track_opens': False}, 'track_opens: '),
    (None, {'track_clicks': True}, 'track_clicks: '),
    ('sendgrid', {'tags': ['t'] * 11}, 'tags: '),
    ('sendgrid', {'metadata': {'a': 'v' * 2000}}, 'tags, metadata: '),
    ('mailgun', {'tags': ['ü']}, 'tags: only ASCII'),
    ('amazon_ses', {'tags': ['a']}, 'tags: '),
    ('amazon_ses', {'metadata': {'a': 'b c'}}, 'metadata: '),
    ('amazon_ses', {'track_opens': True}, 'track_opens: '),
    ('mandrill', {'tags': ['a,b']}, 'tags: a comma'),
    ('mandrill', {'track_opens': True}, 'track_opens: '),
    ('mandrill', {'track_clicks': True}, 'track_clicks: '),
    ('mandrill', {'track_opens': False, 'track_clicks': False},
     'track_opens: '),
    ('postmark', {'tags': ['a', 'b']}, 'tags: '),
    ('postmark', {'metadata': {'a b': 'c'}}, 'metadata: a key'),
    ('postmark', {'metadata': {'a': 'b', 'A': 'c'}}, 'metadata: a key')])
def test_what_a_vendors_headers_cannot_say_is_unsupported(
        vendor, fields, reason):
    outcome, headers = delivered(vendor, fields)
    assert outcome.kind is Kind.unsupported and headers is None
    assert outcome.reason.startswith(reason)


def test_json_in_a_header_holds_nothing_that_is_decoded():
    word = '=?utf-8?q?=22=2C=22to=22?='
    outcome, headers = delivered('sendgrid', {'metadata': {'a': word}})
    assert outcome.kind is Kind.accepted
    text, = headers['X-SMTPAPI']
    assert '=?' not in text
    assert json.loads(text)['unique_args'] == {'a': word, **IDS}
