"""Amazon SES without keys of its own: AWS's credential chain gives them."""

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from stampman.helpers.delivery import Clock, Kind
from stampman.services.base import NoCredentials

from servers import PATIENCE, Given, RawServer, Recorder
from test_amazon_ses import TOKEN, signer_of
from test_services import NOW, an_email, context, service


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


@pytest.mark.parametrize('outdated', [
    'ExpiredToken', 'ExpiredTokenException', 'InvalidClientTokenId'])
def test_the_chain_is_asked_again_once_its_keys_are_outdated(
        outdated, files, server):
    write_credentials(files, 1)
    ours = of_chain(server)
    secrets = {f'KEY{n}': f'secret-number-{n}' for n in (1, 2, 3)}
    used = []

    def send():
        ours.send_email(an_email(), context())
        used.append(signer_of(server.requests[-1], secrets)[0])

    send()
    write_credentials(files, 2)
    server.script((403, {'__type': outdated}))
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


# -- a chain that takes its time ---------------------------------------------

def keys_of(number, seconds=3600):
    """Return what a container's endpoint answers."""
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    return {'AccessKeyId': f'KEY{number}', 'Token': f'token-{number}',
            'SecretAccessKey': f'secret-number-{number}',
            'Expiration': until.strftime('%Y-%m-%dT%H:%M:%SZ')}


def signer(server):
    secrets = {f'KEY{number}': f'secret-number-{number}'
               for number in range(9)}
    return signer_of(server.requests[-1], secrets)[0]


def is_late(ours, server):
    """Say that an email for which there is a second is put off by then."""
    before, started = len(server.requests), time.monotonic()
    outcome = ours.send_email(an_email(), context(1.0))
    assert time.monotonic() - started < 2.0
    assert outcome.kind is Kind.deferred and outcome.alert
    assert outcome.reason == (
        'the AWS credential chain did not answer in time')
    return len(server.requests) == before


def sends_at_last(ours, server):
    """Say that an email goes, as soon as the chain has answered."""
    until = time.monotonic() + PATIENCE
    while True:
        outcome = ours.send_email(an_email(), context())
        if outcome.kind is not Kind.deferred or time.monotonic() > until:
            return outcome.kind is Kind.accepted


def test_a_process_that_sleeps_puts_an_email_off_and_is_asked_once(
        files, server):
    (files / 'keys.json').write_text(json.dumps({
        'Version': 1, 'AccessKeyId': 'KEY7',
        'SecretAccessKey': 'secret-number-7'}))
    (files / 'process').write_text(
        f'cd {files}\necho called >> calls\n'
        'until [ -e awake ]; do sleep 0.05; done\ncat keys.json\n')
    (files / 'config').write_text(
        f'[default]\ncredential_process = sh {files}/process\n')
    ours = of_chain(server)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(
                lambda _: is_late(ours, server), range(8)))
        result = service('amazon_ses', server.url, access_key_id=None,
                         secret_access_key=None, timeout=1).probe()
    finally:
        (files / 'awake').touch()
    assert result.ok is False
    assert result.detail == 'the AWS credential chain did not answer in time'
    assert sends_at_last(ours, server)
    assert signer(server) == 'KEY7'
    assert (files / 'calls').read_text() == 'called\n' * 2    # two services


def test_a_process_that_never_ends_is_given_up(files):
    from stampman.services._aws import TOO_LONG, Chain
    (files / 'keys.json').write_text(json.dumps({
        'Version': 1, 'AccessKeyId': 'KEY8',
        'SecretAccessKey': 'secret-number-8'}))
    (files / 'process').write_text(
        f'cd {files}\nmkdir first 2>/dev/null || exec cat keys.json\n'
        'until [ -e awake ]; do sleep 0.05; done\nexit 1\n')
    (files / 'config').write_text(
        f'[default]\ncredential_process = sh {files}/process\n')
    ahead = [0.0]
    chain = Chain(Clock(time.time, lambda: time.monotonic() + ahead[0]))
    try:
        with pytest.raises(NoCredentials):
            chain.keys(0.5)
        assert (files / 'first').exists()
        ahead[0] = TOO_LONG
        assert chain.keys(PATIENCE).access_key == 'KEY8'
    finally:
        (files / 'awake').touch()


def test_an_endpoint_that_hangs_puts_an_email_off(
        files, monkeypatch, server):
    with Recorder() as machine:
        machine.answer(200, keys_of(1))
        machine.hold()
        monkeypatch.setenv('AWS_CONTAINER_CREDENTIALS_FULL_URI',
                           f'{machine.url}/keys')
        ours = of_chain(server)
        assert is_late(ours, server)
        machine.release()
        assert sends_at_last(ours, server)
        asked = len(machine.requests)
        for _ in range(3):
            assert sends_at_last(ours, server)
        assert len(machine.requests) == asked
    assert signer(server) == 'KEY1'


def test_an_endpoint_that_drips_puts_an_email_off(
        files, monkeypatch, server):
    is_well = threading.Event()

    def drip(connection, machine):
        machine.read_request(connection)
        body = json.dumps(keys_of(2)).encode()
        connection.sendall(b'HTTP/1.1 200 OK\r\nConnection: close\r\n'
                           b'Content-Length: %d\r\n\r\n' % len(body))
        for number in range(len(body)):
            if not is_well.is_set():
                is_well.wait(0.1)
            connection.sendall(body[number:number + 1])

    with RawServer(drip) as machine:
        monkeypatch.setenv('AWS_CONTAINER_CREDENTIALS_FULL_URI',
                           f'{machine.url}/keys')
        ours = of_chain(server)
        assert is_late(ours, server)
        assert is_late(ours, server)
        assert machine.connections == 1
        is_well.set()
        assert sends_at_last(ours, server)
    assert signer(server) == 'KEY2'


def test_keys_that_still_serve_are_not_waited_for_while_they_are_renewed(
        files, monkeypatch, server):
    with Recorder() as machine:
        machine.answer(200, keys_of(3, seconds=240))
        monkeypatch.setenv('AWS_CONTAINER_CREDENTIALS_FULL_URI',
                           f'{machine.url}/keys')
        ours = of_chain(server)
        assert sends_at_last(ours, server)
        machine.answer(200, keys_of(4))
        machine.hold()
        for _ in range(3):
            assert ours.send_email(
                an_email(), context(1.0)).kind is Kind.accepted
            assert signer(server) == 'KEY3'
        machine.release()
        until = time.monotonic() + PATIENCE
        while signer(server) == 'KEY3' and time.monotonic() < until:
            assert sends_at_last(ours, server)
    assert signer(server) == 'KEY4'


def test_keys_that_still_serve_outlive_a_renewal_that_fails(
        files, monkeypatch, server):
    with Recorder() as machine:
        machine.answer(200, keys_of(5, seconds=240))
        monkeypatch.setenv('AWS_CONTAINER_CREDENTIALS_FULL_URI',
                           f'{machine.url}/keys')
        ours = of_chain(server)
        assert sends_at_last(ours, server)
        asked = len(machine.requests)
        machine.answer(503)
        assert sends_at_last(ours, server)
        machine.wait_for(asked + 3)     # all that botocore tries
        assert sends_at_last(ours, server)
    assert signer(server) == 'KEY5'


def test_a_process_after_a_fork_asks_by_itself(files, server):
    """A thread that looks keys up is not there in the fork's child."""
    (files / 'process').write_text(
        f'cd {files}\nuntil [ -e awake ]; do sleep 0.05; done\n'
        'echo \'{"Version": 1, "AccessKeyId": "KEY8", '
        '"SecretAccessKey": "secret-number-8"}\'\n')
    (files / 'config').write_text(
        f'[default]\ncredential_process = sh {files}/process\n')
    script = textwrap.dedent(f'''
        import os, pathlib, sys, time
        from stampman.helpers.delivery import Clock
        from stampman.helpers.mail import Email
        from stampman.services import service_class
        from stampman.services.base import SendContext
        ses = service_class('amazon_ses')
        ours = ses('a', ses.Settings(
            region='us-east-1', base_url={server.url!r}), 'example.com',
            Clock(lambda: {NOW}, time.monotonic))
        email = Email(from_email='shop@example.com', subject='Order',
                      recipients=['ann@example.org'], content='Hello')
        def kind(seconds):
            return ours.send_email(email, SendContext(
                'a', 'b', time.monotonic() + seconds)).kind
        assert kind(0.5) == 'deferred'
        child = os.fork()
        pathlib.Path({str(files / 'awake')!r}).touch()
        assert kind({PATIENCE}) == 'accepted'
        if child:
            _, status = os.waitpid(child, 0)
            sys.exit(os.waitstatus_to_exitcode(status))
        ''')
    subprocess.run([sys.executable, '-c', script], check=True, timeout=60)
    assert [request.json['FromEmailAddress'] for request in server.requests
            ] == ['shop@example.com'] * 2
    assert signer(server) == 'KEY8'
