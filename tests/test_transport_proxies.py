"""Calls through the proxy that is set, and never through another."""

import select
import socket

import pytest

from stampman.services.transport import Answer, Fault, Stage, Transport

from calling import KEY, PLENTY, REAL, SOON, call, call_in_time
from certificates import Authority
from servers import RawServer, Recorder, closed_port

ESTABLISHED = b'HTTP/1.1 200 Connection established\r\n\r\n'


@pytest.fixture(scope='module')
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp('ca'))


@pytest.fixture
def provider(authority):
    with Recorder(tls=authority.server('127.0.0.1')) as recorder:
        recorder.answer(202, {'id': 'abc'})
        yield recorder


def tunnel(connection, server):
    """Behave as a proxy does: CONNECT, then bytes both ways."""
    head = b''
    while not head.endswith(b'\r\n\r\n'):
        head += connection.recv(1)
    server.requests.append(head)
    host, port = head.split()[1].decode().split(':')
    with socket.create_connection((host, int(port))) as beyond:
        connection.sendall(ESTABLISHED)
        other = {connection: beyond, beyond: connection}
        while True:
            for side in select.select(list(other), [], [])[0]:
                part = side.recv(65_536)
                if not part:
                    return
                other[side].sendall(part)


def test_an_encrypted_call_goes_through_the_proxys_tunnel(
        authority, provider):
    with RawServer(tunnel) as proxy:
        transport = Transport(
            REAL, proxy=proxy.url.replace('//', '//someone:secret@'),
            ca_file=authority.file)
        for _ in range(2):
            answer = call(provider.url, transport=transport)
            assert isinstance(answer, Answer) and answer.status == 202
        transport.close()
    [head] = proxy.requests
    assert head.startswith(b'CONNECT 127.0.0.1:%d HTTP/1.1\r\n'
                           % provider.port)
    assert b'\r\nProxy-Authorization: Basic ' in head
    assert KEY.encode() not in head
    for request in provider.requests:
        assert request.headers['Authorization'] == f'Bearer {KEY}'
        assert 'Proxy-Authorization' not in request.headers


def test_the_certificate_is_still_the_providers(authority):
    with (Recorder(tls=authority.server('other.example')) as other,
          RawServer(tunnel) as proxy):
        fault = call(other.url, proxy=proxy.url, ca_file=authority.file)
        assert (fault.stage, fault.alert) == (Stage.nothing, True)
        assert 'mismatch' in fault.reason and not other.requests


def answers(content, end=None, drip=0.0):
    def behave(connection, server):
        connection.recv(65_536)
        for byte in content:
            connection.sendall(bytes([byte]))
            if drip and server.stopped.wait(drip):
                return
        if end:
            connection.close()
        else:
            server.stopped.wait()
    return behave


@pytest.mark.parametrize('behave, alert', [
    (answers(b'HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n'), True),
    (answers(b'HTTP/1.1 502 Bad\r\n\r\n'), True),
    (answers(b''), False),
    (answers(b'', end=True), False),
    (answers(ESTABLISHED[:20], end=True), False),
    (answers(ESTABLISHED * 20, drip=0.02), False),
    (answers(ESTABLISHED), False),
])
def test_a_proxy_that_lets_nobody_through_is_told_as_nothing(
        authority, provider, behave, alert):
    with RawServer(behave) as proxy:
        fault = call_in_time(
            provider.url, PLENTY, proxy=proxy.url, ca_file=authority.file,
            connect_limit=SOON)
        assert isinstance(fault, Fault)
        assert (fault.stage, fault.alert) == (Stage.nothing, alert)
        assert not provider.connections


def test_a_proxy_that_is_not_there_is_told_as_nothing(provider):
    fault = call(provider.url, proxy=f'http://127.0.0.1:{closed_port()}')
    assert fault.stage is Stage.nothing
    assert 'through the proxy 127.0.0.1: Connection refused' in fault.reason
    assert not provider.connections


def test_a_plain_call_is_forwarded_by_the_proxy_with_its_credentials():
    with Recorder() as proxy, Recorder() as plain:
        proxy.answer(202)
        at = proxy.url.replace('//', '//someone:secret@')
        assert call(plain.url, proxy=at).status == 202
        [request] = proxy.requests
        assert request.path == '/send'
        assert request.headers['Host'] == plain.url.removeprefix('http://')
        assert request.headers['Proxy-Authorization'].startswith('Basic ')
        assert not plain.connections


@pytest.mark.parametrize('proxy', [
    'socks5://127.0.0.1:1', 'https://127.0.0.1:1', '127.0.0.1:1', 'http://'])
def test_another_kind_of_proxy_is_an_error_at_the_start(proxy):
    with pytest.raises(ValueError, match='http://host:port'):
        Transport(REAL, proxy=proxy)
