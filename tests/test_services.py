"""Every provider by its data: settings, requests, answers, probes."""

import base64
import functools
import json
import re
import sys
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from stampman.helpers.delivery import Clock, Kind
from stampman.helpers.mail import Email, submission
from stampman.services import providers, service_class
from stampman.services.base import (
    AbstractEmailService, HttpEmailService, SendContext)

from readers import READERS, read_form, read_form_by_email
from servers import Given, Recorder

NOW = 1_800_000_000.0       # 2027-01-15 08:00:00 UTC
CLOCK = Clock(lambda: NOW, time.monotonic)
MESSAGE = '0190a1b2-0000-7000-8000-000000000001'
ATTEMPT = '0190a1b2-0000-7000-8000-000000000002'
HTTP = [name for name in providers()
        if issubclass(service_class(name), HttpEmailService)]
DATA = {name: json.loads(
    (Path(__file__).parent / 'providers' / f'{name}.json').read_text('utf-8'))
    for name in HTTP}


@pytest.fixture(scope='module')
def server():
    with Recorder() as recorder:
        yield recorder


def service(provider, url=None, **settings):
    """Return a service with the settings of its data, and these."""
    cls = service_class(provider)
    settings = {**DATA.get(provider, {}).get('settings', {}), **settings}
    if url:
        settings['base_url'] = url
    return cls(provider, cls.Settings(**settings), 'example.com', CLOCK)


def context(seconds=5.0):
    return SendContext(MESSAGE, ATTEMPT, time.monotonic() + seconds)


def an_email(**fields):
    return submission({'from_email': 'shop@example.com',
                       'recipients': 'ann@example.org', 'subject': 'Order',
                       'content': 'Hello', **fields}).email()


def let_accept(server, provider):
    """Let the server take every email, as the provider would."""
    server.answer_by(functools.partial(acceptance, provider))


def acceptance(provider, request):
    """Return the answer of the data, for `each` recipient if it says so."""
    accepts = DATA[provider]['accepts']
    status, body, *headers = accepts['answer']
    if accepts.get('each'):
        read = READERS[provider](request)
        body = [{**entry, 'email': email} for entry in body
                for email, _ in read['to'] + read['cc'] + read['bcc']]
    return Given(status, body, *headers)


def data(kind):
    return [pytest.param(name, case, id=f'{name}: {case["name"]}')
            for name in HTTP for case in DATA[name][kind]]


@pytest.mark.parametrize('provider, case', data('requests'))
def test_an_email_becomes_the_request_that_the_sheet_asks_for(
        provider, case, server):
    let_accept(server, provider)
    outcome = service(
        provider, server.url, **case.get('settings', {})).send_email(
            submission(case['email']).email(), context())
    assert outcome.kind is Kind.accepted
    assert outcome.provider_message_id == DATA[provider]['accepts']['id']
    sent, expected = server.requests[-1], case['expected']
    assert (sent.method, sent.path, sent.query) == (
        expected['method'], expected['path'], '')
    for name, value in expected['headers'].items():
        assert sent.headers[name] == value
    if 'json' in expected:
        assert json.loads(sent.body) == expected['json']
    else:
        fields, files = read_form(sent)
        assert fields == [tuple(field) for field in expected['fields']]
        assert files == [(*file[:3], raw(file[3]))
                         for file in expected['files']]
        assert [part[:2] for part in read_form_by_email(sent)] == [
            (field[0], None) for field in expected['fields']] + [
            tuple(file[:2]) for file in expected['files']]


def raw(content):
    """A file in the data is base64, or a list of its lines."""
    if isinstance(content, list):
        return '\r\n'.join(content).encode()
    return base64.b64decode(content)


@pytest.mark.parametrize('provider, case', data('answers'))
def test_an_answer_means_what_the_sheet_says(provider, case, server):
    server.answer(*case['answer'])
    before = len(server.requests)
    outcome = service(provider, server.url).send_email(an_email(), context())
    assert len(server.requests) == before + 1
    expected = {'http_status': case['answer'][0], **case['outcome']}
    assert expected.pop('reason', '') in outcome.reason
    told = outcome.model_dump(mode='json', exclude_defaults=True)
    told.pop('reason', None)
    assert told == expected


@pytest.mark.parametrize('provider, case', data('probes'))
def test_a_probe_says_whether_we_may_send(provider, case, server):
    server.script(*case['answers'])
    before = len(server.requests)
    result = service(provider, server.url).probe()
    assert result.ok is case['ok'], result.detail
    assert case['detail'] in result.detail
    assert result.domain_only is case.get('domain_only', False)
    sent = server.requests[before:]
    assert len(sent) == len(case['answers'])
    for request, expected in zip(sent, DATA[provider]['probe'], strict=True):
        assert (request.method, request.path, request.query) == (
            expected['method'], expected['path'], expected.get('query', ''))
        for name, value in expected['headers'].items():
            assert request.headers[name] == value
        assert (json.loads(request.body) if request.body else None
                ) == expected.get('json')


@pytest.mark.parametrize('provider, settings, url', [
    (name, *case) for name in HTTP for case in DATA[name]['base_urls']])
def test_a_region_has_its_own_host(provider, settings, url):
    assert service(provider, **settings).base_url == url


@pytest.mark.parametrize('provider, settings, named', [
    (name, *case) for name in HTTP for case in DATA[name]['wrong_settings']])
def test_a_wrong_setting_is_named(provider, settings, named):
    with pytest.raises(ValidationError) as failure:
        service(provider, **settings)
    assert [error['loc'][0] for error in failure.value.errors()] == [named]


@pytest.mark.parametrize('provider', providers())
def test_a_provider_is_known_by_its_name(provider):
    cls = service_class(provider)
    assert issubclass(cls, AbstractEmailService)
    assert cls.provider == provider == cls.__module__.rpartition('.')[2]
    assert cls.__doc__ and sys.modules[cls.__module__].__doc__


def test_a_provider_that_is_not_there_is_told_with_those_that_are():
    with pytest.raises(KeyError) as failure:
        service_class('pigeon')
    assert all(name in str(failure.value) for name in providers())


@pytest.mark.parametrize('provider', HTTP)
def test_an_account_is_one_key_at_one_place_and_shows_no_secret(provider):
    first = service(provider).account
    assert first == service(provider).account
    for settings in DATA[provider]['other_accounts']:
        assert first != service(provider, **settings).account
    assert first != service(provider, 'http://127.0.0.1:1').account
    assert re.fullmatch(rf'{provider}:[0-9a-f]{{12}}', first)
    secrets = [text for text in service(provider).secrets if text]
    assert secrets
    assert not any(text in repr(service(provider).settings)
                   for text in secrets)


def test_capture_takes_everything_and_says_that_nothing_went_out():
    email = Email(from_email='shop@example.com', bcc=['jürgen@example.org'],
                  html='<p>Hi</p>', tags=['größe'] * 50)
    outcome = service('capture').send_email(email, context())
    assert outcome.model_dump(mode='json', exclude_defaults=True) == {
        'kind': 'accepted', 'simulated': True,
        'provider_message_id': f'capture-{ATTEMPT}'}
    assert service('capture').probe().ok
    assert service('capture').account.startswith('capture:')
