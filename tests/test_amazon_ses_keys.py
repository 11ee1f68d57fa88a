"""Amazon SES without keys of its own: AWS's credential chain gives them."""

import os
from datetime import UTC, datetime, timedelta

import pytest

from stampman.helpers.delivery import Kind

from servers import Given, Recorder
from test_amazon_ses import TOKEN, signer_of
from test_services import an_email, context, service


@pytest.fixture
def server():
    with Recorder() as recorder:
        recorder.answer(200, {'MessageId': 'abc-1'})
        yield recorder


@pytest.fixture
def files(monkeypatch, tmp_path):
    """An environment without any credentials, and where files may give
    some."""
    for name in list(os.environ):
        if name.startswith(('AWS_', 'BOTO')) or name.lower() in (
                'http_proxy', 'https_proxy', 'all_proxy'):
            monkeypatch.delenv(name)
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('AWS_EC2_METADATA_DISABLED', 'true')
    monkeypatch.setenv('BOTO_CONFIG', str(tmp_path / 'boto'))
    monkeypatch.setenv('AWS_CONFIG_FILE', str(tmp_path / 'config'))
    monkeypatch.setenv(
        'AWS_SHARED_CREDENTIALS_FILE', str(tmp_path / 'credentials'))
    return tmp_path


def of_chain(server):
    return service('amazon_ses', server.url, access_key_id=None,
                   secret_access_key=None)


def write_credentials(files, number):
    (files / 'credentials').write_text(
        f'[default]\naws_access_key_id = KEY{number}\n'
        f'aws_secret_access_key = secret-number-{number}\n')


def test_the_chain_reads_the_environment(files, monkeypatch, server):
    monkeypatch.setenv('AWS_ACCESS_KEY_ID', 'KEY0')
    monkeypatch.setenv('AWS_SECRET_ACCESS_KEY', 'secret-number-0')
    monkeypatch.setenv('AWS_SESSION_TOKEN', TOKEN)
    ours = of_chain(server)
    account = ours.account
    assert ours.secrets == ('',)
    assert ours.send_email(an_email(), context()).kind is Kind.accepted
    sent = server.requests[-1]
    assert sent.headers['X-Amz-Security-Token'] == TOKEN
    assert signer_of(sent, {'KEY0': 'secret-number-0'})[0] == 'KEY0'
    assert ours.account == account
    server.answer(403, {'message': f'secret-number-0 {TOKEN} is wrong'})
    outcome = ours.send_email(an_email(), context())
    assert outcome.reason.endswith('[secret] [secret] is wrong')


def test_the_chain_is_asked_again_once_its_keys_are_outdated(files, server):
    write_credentials(files, 1)
    ours = of_chain(server)
    secrets = {f'KEY{n}': f'secret-number-{n}' for n in (1, 2, 3)}
    used = []

    def send():
        ours.send_email(an_email(), context())
        used.append(signer_of(server.requests[-1], secrets)[0])

    send()
    write_credentials(files, 2)
    server.script((403, {'__type': 'ExpiredTokenException'}))
    send()
    send()
    write_credentials(files, 3)
    server.script((403, {'__type': 'UnrecognizedClientException'}), 403)
    assert ours.probe().ok is False
    send()
    assert used == ['KEY1', 'KEY1', 'KEY2', 'KEY3']
    assert {'secret-number-2', 'secret-number-3'} <= set(ours.secrets)


def test_keys_that_run_out_renew_themselves(files, monkeypatch, server):
    def keys(request):
        number = len(machine.requests)
        until = datetime.now(UTC) + timedelta(seconds=60)
        return Given(200, {
            'AccessKeyId': f'KEY{number}', 'Token': f'token-number-{number}',
            'SecretAccessKey': f'secret-number-{number}',
            'Expiration': until.strftime('%Y-%m-%dT%H:%M:%SZ')})

    with Recorder() as machine:
        machine.answer_by(keys)
        monkeypatch.setenv('AWS_CONTAINER_CREDENTIALS_FULL_URI',
                           f'{machine.url}/keys')
        ours, used = of_chain(server), []
        secrets = {f'KEY{n}': f'secret-number-{n}' for n in range(9)}
        for _ in range(2):
            ours.send_email(an_email(), context())
            used.append(signer_of(server.requests[-1], secrets)[0])
    assert used[0] < used[1]


@pytest.mark.parametrize('environ, config, told', [
    ({}, '', 'no AWS credentials: set "access_key_id"'),
    ({'AWS_PROFILE': 'nobody'}, '', 'ProfileNotFound'),
    ({}, '[default]\ncredential_process = sh -c "echo hidden-word >&2; '
     'exit 1"\n', 'CredentialRetrievalError'),
    ({'AWS_ACCESS_KEY_ID': 'KEY0'}, '', 'PartialCredentialsError')])
def test_a_chain_without_credentials_is_a_refusal(
        environ, config, told, files, monkeypatch, server):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    (files / 'config').write_text(config)
    outcome = of_chain(server).send_email(an_email(), context())
    assert outcome.kind is Kind.refused and outcome.alert
    assert told in outcome.reason and 'hidden-word' not in outcome.reason
    result = of_chain(server).probe()
    assert result.ok is False and told in result.detail
    assert not server.requests


def test_a_role_that_is_refused_is_asked_for_once(
        files, monkeypatch, server):
    (files / 'token').write_text('hidden-word')
    for name, value in (
            ('AWS_WEB_IDENTITY_TOKEN_FILE', str(files / 'token')),
            ('AWS_ROLE_ARN', 'arn:aws:iam::123456789012:role/a'),
            ('AWS_DEFAULT_REGION', 'us-east-1')):
        monkeypatch.setenv(name, value)
    with Recorder() as tokens:
        monkeypatch.setenv('AWS_ENDPOINT_URL_STS', tokens.url)
        tokens.answer(503, '<ErrorResponse><Error><Code>Busy</Code></Error>'
                      '</ErrorResponse>')
        outcome = of_chain(server).send_email(an_email(), context())
        assert len(tokens.requests) == 1
    assert outcome.kind is Kind.refused and outcome.alert
    assert outcome.reason == 'the AWS credential chain failed: ClientError'
    assert not server.requests
