"""What an ordinary call promises: sent once, as it was built, and by whom."""

import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from stampman.helpers.delivery import Clock
from stampman.services.transport import (
    Answer, Fault, Request, Stage, Transport)

from calling import CONTENT, KEY, LARGE, PLENTY, REAL, call, post
from servers import RawServer, Recorder, closed_port

OK = b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'


def wait_until_closed(server):
    """Wait until the server has seen the end of every connection."""
    server.wait_for(1)
    for thread in server.threads:
        thread.join(PLENTY)


@pytest.fixture
def provider():
    with Recorder() as recorder:
        recorder.answer(202, {'id': 'abc'}, {'X-Message-Id': 'abc'})
        yield recorder


def test_a_call_carries_the_request_as_it_is_and_returns_the_answer(provider):
    answer = call(provider.url)
    assert (answer.status, answer.json, answer.complete) == (
        202, {'id': 'abc'}, True)
    assert answer.headers['x-message-id'] == 'abc'
    [request] = provider.requests
    assert (request.method, request.path, request.query, request.body) == (
        'POST', '/send', 'token=query-7c2e', CONTENT)
    assert request.headers['Authorization'] == f'Bearer {KEY}'
    assert request.headers['Content-Length'] == str(len(CONTENT))


def test_encodings_are_not_asked_for_even_where_the_request_would(provider):
    Transport(REAL).call(
        Request('GET', provider.url, {'accept-encoding': 'gzip'}),
        time.monotonic() + PLENTY)
    assert provider.requests[0].headers.get_all('Accept-Encoding') == [
        'identity']


@pytest.mark.parametrize('method', ['GET', 'DELETE', 'PUT', 'HEAD'])
def test_a_call_without_a_body_works_with_any_method(provider, method):
    answer = Transport(REAL).call(
        Request(method, provider.url, {}), time.monotonic() + PLENTY)
    assert answer.status == 202 and provider.requests[0].method == method


def test_a_request_that_should_have_a_body_says_that_it_has_none(provider):
    for method in ('POST', 'PUT', 'GET'):
        Transport(REAL).call(
            Request(method, provider.url, {}), time.monotonic() + PLENTY)
    assert [request.headers['Content-Length']
            for request in provider.requests] == ['0', '0', None]


def test_every_header_is_sent_once_in_whatever_case_it_is_given(provider):
    Transport(REAL).call(
        Request('POST', provider.url, {
            'accept': 'text/plain', 'content-length': '99', 'x-ID': 'a'},
            CONTENT), time.monotonic() + PLENTY)
    [request] = provider.requests
    names = [name.lower() for name in request.headers]
    assert sorted(names) == sorted({*names}) == [
        'accept', 'accept-encoding', 'content-length', 'host', 'user-agent',
        'x-id']
    assert request.headers['Accept'] == 'text/plain'
    assert request.headers['Content-Length'] == str(len(CONTENT))
    assert request.headers['Host'] == provider.url.removeprefix('http://')


@pytest.mark.parametrize('port, host', [
    ('', 'api.example'), (':80', 'api.example'), (':81', 'api.example:81'),
    ('.:81', 'api.example:81')])
def test_the_host_is_named_without_what_goes_without_saying(
        provider, port, host):
    def resolve(*_):
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, '',
                 ('127.0.0.1', provider.port))]

    Transport(REAL, resolve=resolve).call(
        Request('GET', f'http://someone:secret@API.example{port}/a b?c\r\nd',
                {}), time.monotonic() + PLENTY)
    [request] = provider.requests
    assert request.headers['Host'] == host
    assert (request.path, request.query) == ('/a%20b', 'c%0D%0Ad')
    assert 'Authorization' not in request.headers


def test_a_large_body_arrives_whole(provider):
    assert call(provider.url, body=LARGE).status == 202
    assert provider.requests[0].body == LARGE


def test_a_cookie_that_a_provider_sets_is_not_kept(provider):
    provider.answer(200, b'', {'Set-Cookie': 'session=1'})
    transport = Transport(REAL)
    call(provider.url, transport=transport)
    call(provider.url, transport=transport)
    assert 'Cookie' not in provider.requests[1].headers


@pytest.mark.parametrize('headers', [
    {'Authorization': f'Bearer {KEY}\r\nX-Other: 1'},
    {'Authorization': f'Bearer {KEY}\n'},
    {'Authorization': f'Bearer {KEY}\u2026'},
    {'X Key': KEY}, {'': KEY}])
def test_a_header_that_is_none_is_a_fault_that_keeps_the_key(
        provider, headers):
    fault = Transport(REAL).call(
        Request('POST', provider.url, headers), time.monotonic() + PLENTY)
    assert (fault.stage, fault.alert) == (Stage.nothing, True)
    assert KEY not in fault.reason and not provider.connections


@pytest.mark.parametrize('url', [
    'http://', 'ftp://127.0.0.1/', 'nowhere', 'http://*.example/',
    f'http://{"x" * 64}.example/', 'http://127.0.0.1:99999/'])
def test_a_url_that_is_none_is_a_fault(url):
    fault = Transport(REAL).call(
        Request('GET', url, {}), time.monotonic() + PLENTY)
    assert isinstance(fault, Fault) and fault.stage is Stage.nothing


# -- connections -----------------------------------------------------------

def test_a_connection_is_used_again_only_when_it_was_idle_for_under_5_s(
        provider):
    passed = 0.0
    transport = Transport(Clock(time.time, lambda: passed))
    for seconds, connections in ((0, 1), (4.9, 1), (5.1, 2), (1, 2)):
        passed += seconds
        transport.call(post(provider.url), passed + PLENTY)
        assert provider.connections == connections


def test_a_connection_the_provider_closed_meanwhile_is_not_used():
    def once(connection, server):
        server.read_request(connection)
        connection.sendall(OK)

    with RawServer(once) as server:
        transport = Transport(REAL)
        assert call(server.url, transport=transport).status == 200
        wait_until_closed(server)
        assert call(server.url, transport=transport).status == 200
        assert server.connections == server.complete_requests == 2


def test_a_connection_with_more_than_one_answer_is_not_used_again():
    def twice(connection, server):
        while server.read_request(connection):
            connection.sendall(OK + OK.replace(b'ok', b'no'))

    with RawServer(twice) as server:
        transport = Transport(REAL)
        for _ in range(2):
            assert call(server.url, transport=transport).body == b'ok'
        assert server.connections == 2


def test_many_threads_share_one_transport(provider):
    transport = Transport(REAL)
    answers = []

    def several():
        threads = [threading.Thread(target=lambda: answers.append(
            call(provider.url, transport=transport))) for _ in range(30)]
        for thread in threads:
            thread.start()
        return threads

    provider.hold()
    threads = several()
    provider.wait_for(30)       # all at once: nobody waits for a connection
    provider.release()
    for thread in threads:
        thread.join()
    for thread in several():
        thread.join()
    assert [answer.status for answer in answers] == [202] * 60
    assert provider.connections <= 60
    call(provider.url, transport=transport)
    assert provider.connections <= 60


def test_close_ends_idle_connections_and_a_call_makes_them_again():
    ended = threading.Event()

    def serve(connection, server):
        while server.read_request(connection):
            connection.sendall(OK)
        ended.set()

    with RawServer(serve) as server:
        transport = Transport(REAL)
        call(server.url, transport=transport)
        transport.close()
        assert ended.wait(PLENTY)
        assert call(server.url, transport=transport).status == 200


def test_a_fork_shares_no_connection(provider):
    script = textwrap.dedent(f'''
        import os, sys, time
        from stampman.helpers.delivery import Clock
        from stampman.services.transport import Request, Transport
        transport = Transport(Clock(time.time, time.monotonic))
        def call():
            answer = transport.call(Request('GET', {provider.url!r}, {{}}),
                                    time.monotonic() + {PLENTY})
            assert answer.status == 202, answer
        call()
        child = os.fork()
        call()
        if child:
            _, status = os.waitpid(child, 0)
            call()
            sys.exit(os.waitstatus_to_exitcode(status))
        ''')
    subprocess.run([sys.executable, '-c', script], check=True,
                   timeout=60, cwd=Path(__file__).parents[1])
    assert len(provider.requests) == 4 and provider.connections == 2


# -- the deadline's guard ----------------------------------------------------

def test_nothing_is_even_connected_after_the_deadline(provider):
    fault = Transport(REAL).call(post(provider.url), time.monotonic())
    assert fault.stage is Stage.nothing and not provider.connections


@pytest.mark.parametrize('reading', range(1, 12))
def test_not_a_byte_is_written_once_the_deadline_has_passed(reading):
    """The clock jumps over the deadline at its n-th reading, for any n."""
    read = []
    readings = iter(range(1, 1000))

    def serve(connection, server):
        connection.settimeout(PLENTY)
        while part := connection.recv(65_536):
            read.append(part)
            connection.sendall(OK)

    clock = Clock(time.time, lambda: 1000.0 * (next(readings) >= reading))
    with RawServer(serve) as server:
        transport = Transport(clock)
        result = transport.call(post(server.url), 500.0)
        transport.close()
        # Connections are accepted in their order: this is the last one.
        earlier = server.connections
        socket.create_connection(('127.0.0.1', server.port)).close()
        server.wait_for(earlier + 1)
        wait_until_closed(server)
    if isinstance(result, Fault) and result.stage is Stage.nothing:
        assert not read
    else:
        assert read


# -- the environment ---------------------------------------------------------

def test_proxies_netrc_and_ca_bundles_of_the_environment_do_not_count(
        provider, monkeypatch, tmp_path):
    netrc = tmp_path / '.netrc'
    netrc.write_text('machine 127.0.0.1 login somebody password else\n')
    netrc.chmod(0o600)
    elsewhere = f'http://127.0.0.1:{closed_port()}'
    for name, value in {
            'HOME': str(tmp_path), 'NETRC': str(netrc),
            'HTTP_PROXY': elsewhere, 'http_proxy': elsewhere,
            'ALL_PROXY': elsewhere, 'REQUESTS_CA_BUNDLE': '/nowhere',
            'no_proxy': ''}.items():
        monkeypatch.setenv(name, value)
    answer = call(provider.url)
    assert isinstance(answer, Answer)
    assert provider.requests[0].headers['Authorization'] == f'Bearer {KEY}'
