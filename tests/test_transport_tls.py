"""Encrypted calls: only with the right host, and in time."""

import ssl
import time

import pytest

from stampman.services.transport import (
    Answer, Fault, Stage, Transport)

from calling import LARGE, PLENTY, REAL, SOON, call, call_in_time
from certificates import Authority
from servers import RawServer, Recorder, reset

HEAD = b'HTTP/1.1 202 Accepted\r\nContent-Length: 500\r\n\r\n'


@pytest.fixture(scope='module')
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp('ca'))


@pytest.fixture(scope='module')
def tls(authority):
    return authority.server('127.0.0.1', 'localhost')


def test_a_call_is_encrypted_and_its_connection_kept(authority, tls):
    with Recorder(tls=tls) as provider:
        provider.answer(202, {'id': 'abc'})
        transport = Transport(REAL, ca_file=authority.file)
        for url in (provider.url, provider.url,
                    f'https://localhost:{provider.port}'):
            assert call(url, transport=transport).json == {'id': 'abc'}
        assert provider.connections == 2


def test_a_large_body_arrives_whole_over_tls(authority, tls):
    with Recorder(tls=tls) as provider:
        provider.answer(202)
        assert call(provider.url, body=LARGE,
                    ca_file=authority.file).status == 202
        assert provider.requests[0].body == LARGE


# -- whom we speak to --------------------------------------------------------

@pytest.mark.parametrize('names, options, told', [
    (['127.0.0.1'], {'expired': True}, 'expired'),
    (['other.example'], {}, 'mismatch')])
def test_a_certificate_that_is_wrong_gets_no_request_and_an_alert(
        authority, names, options, told):
    with Recorder(tls=authority.server(*names, **options)) as provider:
        fault = call_in_time(provider.url, PLENTY, ca_file=authority.file)
        assert (fault.stage, fault.alert) == (Stage.nothing, True)
        assert told in fault.reason
        assert not provider.requests


def test_a_certificate_signed_by_itself_gets_no_request_and_an_alert(
        authority):
    with Recorder(tls=authority.signed_by_itself()) as provider:
        fault = call_in_time(provider.url, PLENTY)
        assert (fault.stage, fault.alert) == (Stage.nothing, True)
        assert 'self-signed certificate' in fault.reason
        assert not provider.requests


def test_an_authority_is_not_trusted_because_the_environment_says_so(
        authority, tls, monkeypatch):
    for name in ('REQUESTS_CA_BUNDLE', 'CURL_CA_BUNDLE', 'SSL_CERT_FILE'):
        monkeypatch.setenv(name, authority.file)
    with Recorder(tls=tls) as provider:
        fault = call_in_time(provider.url, PLENTY)
        assert (fault.stage, fault.alert) == (Stage.nothing, True)
        assert 'issuer' in fault.reason
        assert not provider.requests


@pytest.mark.filterwarnings('ignore:ssl.TLSVersion:DeprecationWarning')
@pytest.mark.parametrize('version', ['TLSv1', 'TLSv1_1'])
def test_a_server_of_old_tls_is_not_spoken_to(authority, version):
    old = authority.server('127.0.0.1', newest=ssl.TLSVersion[version])
    with Recorder(tls=old) as provider:
        fault = call_in_time(provider.url, PLENTY, ca_file=authority.file)
        assert (fault.stage, fault.alert) == (Stage.nothing, True)
        assert not provider.requests


# -- stages and time, as without TLS -----------------------------------------

@pytest.mark.parametrize('behave', [
    lambda connection, server: server.stopped.wait(),
    lambda connection, server: connection.recv(1) and reset(connection),
    lambda connection, server: connection.recv(9999) and connection.close(),
    lambda connection, server: (
        connection.recv(9999), connection.sendall(b'HTTP/1.1 400 No\r\n\r\n'),
        server.stopped.wait()),
], ids=['silent', 'resets', 'closes', 'speaks plainly'])
@pytest.mark.parametrize('limits', [
    {'seconds': SOON}, {'seconds': PLENTY, 'connect_limit': SOON}])
def test_a_handshake_that_fails_is_told_as_nothing_in_time(
        authority, behave, limits):
    began = time.monotonic()
    with RawServer(behave) as server:
        fault = call_in_time(f'https://127.0.0.1:{server.port}',
                             ca_file=authority.file, **limits)
    assert isinstance(fault, Fault) and fault.stage is Stage.nothing
    assert time.monotonic() - began < PLENTY / 4
    assert server.connections == 1


def drip(connection, server, content):
    for byte in content:
        connection.sendall(bytes([byte]))
        if server.stopped.wait(0.02):
            return


@pytest.mark.parametrize('then, stage', [
    (lambda connection, server: server.stopped.wait(), Stage.written),
    (lambda connection, server: reset(connection), Stage.written),
    (lambda connection, server: connection.close(), Stage.written),
    (lambda connection, server: drip(connection, server, HEAD * 9),
     Stage.written),
    (lambda connection, server: (connection.sendall(HEAD),
                                 drip(connection, server, b'x' * 500)),
     Stage.answered),
    (lambda connection, server: (connection.sendall(HEAD + b'x'),
                                 connection.close()), Stage.answered),
], ids=['silent', 'resets', 'closes', 'drips', 'drips the body', 'cuts'])
def test_the_stage_is_told_as_without_tls(authority, tls, then, stage):
    def behave(connection, server):
        assert server.read_request(connection)
        then(connection, server)

    with RawServer(behave, tls=tls) as server:
        fault = call_in_time(server.url, ca_file=authority.file)
    assert isinstance(fault, Fault) and fault.stage is stage
    assert (server.connections, server.complete_requests) == (1, 1)


@pytest.mark.parametrize('then, told', [
    (lambda connection, server: server.stopped.wait(),
     'the request was not fully written in time'),
    (lambda connection, server: reset(connection), 'the connection'),
    (lambda connection, server: connection.close(), 'the connection')],
    ids=['stalls', 'resets', 'closes'])
def test_a_request_not_taken_whole_is_told_as_nothing(
        authority, tls, then, told):
    def behave(connection, server):
        connection.recv(1024)
        then(connection, server)

    with RawServer(behave, tls=tls) as server:
        fault = call_in_time(server.url, body=LARGE, ca_file=authority.file)
    assert fault.stage is Stage.nothing and fault.reason.startswith(told)


def test_a_refusal_before_the_request_is_whole_is_read(authority, tls):
    def behave(connection, server):
        connection.recv(1024)
        connection.sendall(b'HTTP/1.1 413 Large\r\nContent-Length: 0\r\n\r\n')
        server.stopped.wait()

    with RawServer(behave, tls=tls) as server:
        answer = call_in_time(server.url, body=LARGE, ca_file=authority.file)
    assert isinstance(answer, Answer) and answer.status == 413
