"""deploy/nginx.conf, by a real nginx in front of real servers."""

import json
import threading
import time
from contextlib import ExitStack, closing

import pytest

from fronts import Nginx
from gateway_server import (
    EMAIL, POOL_KEY, GatewayServer, config, sendgrid_at)
from processes import Server
from servers import RawServer, Recorder, closed_port, reset

pytestmark = pytest.mark.long

HEADERS = {'Authorization': f'Bearer {POOL_KEY}',
           'Content-Type': 'application/json'}
SEND = '/example.com/send'
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}'
THREADS = 4


@pytest.fixture(scope='module')
def served(tmp_path_factory):
    with GatewayServer(tmp_path_factory.mktemp('served'), config(),
                       threads=THREADS) as server:
        server.request('GET', '/healthz')
        yield server


@pytest.fixture(scope='module')
def front(tmp_path_factory, served):
    with Nginx(tmp_path_factory.mktemp('front'), served.port) as front:
        yield front


def send(front, email=EMAIL):
    return front.request('POST', SEND, json.dumps(email), HEADERS)


def test_nginx_has_nothing_against_it(front):
    told = front.check()
    assert told.returncode == 0, told.stderr
    assert '[emerg]' not in told.stderr


def test_an_email_goes_through_and_is_logged_without_the_query(front):
    reply = send(front)
    assert reply.json['status'] == 'accepted'
    assert 'max-age' in reply.headers['Strict-Transport-Security']
    listed = front.request(
        'GET', '/example.com/messages/?recipient=ada@example.org',
        headers=HEADERS)
    assert len(listed.json['messages']) == 1
    log = front.logged(f'request_id={listed.headers["X-Request-Id"]}')
    assert '"GET /example.com/messages/" 200' in log
    assert 'ada@' not in log and 'recipient' not in log


def test_the_cookie_knows_that_the_browser_came_by_tls(front):
    reply = front.request('GET', '/login', headers={
        'Accept': 'text/html', 'Accept-Encoding': 'gzip'})
    assert '; Secure' in reply.headers['Set-Cookie']
    assert 'Content-Encoding' not in reply.headers


@pytest.mark.parametrize('header', [
    'X-Forwarded-Proto', 'X-Forwarded-Ssl', 'X-Forwarded-Protocol'])
def test_what_a_client_says_of_the_way_it_came_is_not_believed(
        front, header):
    reply = front.request('GET', '/login', headers={
        'Accept': 'text/html', header: 'http'})
    assert reply.status == 200
    assert '; Secure' in reply.headers['Set-Cookie']


def test_what_comes_in_the_clear_is_not_passed_on(front):
    assert front.request('POST', SEND, json.dumps(EMAIL), HEADERS,
                         plain=True).status == 403
    moved = front.request('GET', '/example.com/', plain=True)
    assert moved.status == 301
    assert moved.headers['Location'] == \
        'https://mail.example.com/example.com/'


def test_slow_clients_hold_no_thread(front):
    body = json.dumps(EMAIL).encode()
    headers = {**HEADERS, 'Content-Length': str(len(body))}
    with ExitStack() as open_ones:
        slow = [open_ones.enter_context(closing(front.connect()))
                for _ in range(3 * THREADS)]
        for client in slow:
            client.putrequest('POST', SEND)
            for name, value in headers.items():
                client.putheader(name, value)
            client.endheaders(body[:20])
        began = time.monotonic()
        assert send(front).status == 200
        assert time.monotonic() - began < 5
        for client in slow:
            client.send(body[20:])
        for client in slow:
            assert client.getresponse().status in (200, 202)


def padded(size):
    """Return an email that is some `size` bytes long as JSON."""
    return {**EMAIL, 'attachments': [{
        'filename': 'large.bin', 'content_type': 'application/octet-stream',
        'content': 'A' * (size // 4 * 4)}]}


def test_a_body_of_25_mb_passes(front):
    assert send(front, padded(25_000_000)).json['status'] == 'accepted'


def test_a_larger_one_than_stampman_takes_is_refused_in_its_words(front):
    reply = send(front, padded(31_000_000))
    assert reply.status == 413
    assert reply.json['detail'] == 'At most 30000000 bytes are read.'


def test_one_that_is_much_larger_is_not_even_read(front):
    reply = front.request('GET', SEND, headers={
        **HEADERS, 'Content-Length': '50000000'})
    assert reply.status == 413


def read_and_break(end):
    """Answer the first request of each connection, not the second one."""
    def behave(connection, server):
        assert server.read_request(connection)
        connection.sendall(ANSWER)
        if server.read_request(connection):
            end(connection)
    return behave


def only_break(end):
    def behave(connection, server):
        if server.read_request(connection):
            end(connection)
    return behave


@pytest.mark.parametrize('end', [reset, lambda connection:
                                 connection.close()])
def test_a_post_that_a_server_has_read_is_sent_to_no_other(tmp_path, end):
    with RawServer(only_break(end)) as one, RawServer(
            only_break(end)) as other, Nginx(
            tmp_path, one.port, other.port) as front:
        assert send(front).status == 502
        assert one.complete_requests + other.complete_requests == 1


@pytest.mark.parametrize('end', [reset, lambda connection:
                                 connection.close()])
def test_nor_on_a_connection_that_was_kept(tmp_path, end):
    with RawServer(read_and_break(end)) as server, Nginx(
            tmp_path, server.port) as front:
        assert send(front).status == 200
        assert send(front).status == 502
        assert server.connections == 1
        assert server.complete_requests == 2


def test_where_one_machine_is_away_the_other_is_asked(tmp_path, served):
    with Nginx(tmp_path, closed_port(), served.port) as front:
        for _ in range(3):
            assert send(front).json['status'] == 'accepted'


def test_a_server_that_is_killed_got_the_email_once(tmp_path):
    (tmp_path / 'front').mkdir()
    with Recorder() as provider:
        provider.answer(202, b'', {'X-Message-Id': 'theirs'})
        provider.hold()
        server = Server(tmp_path).configure(
            config({'sendgrid': sendgrid_at(provider.url)}))
        replies = []
        with Nginx(tmp_path / 'front', server.port) as front:
            with server:
                thread = threading.Thread(
                    target=lambda: replies.append(send(front)))
                thread.start()
                provider.wait_for(1)
                server.kill()
                thread.join()
            assert replies[0].status == 502
            provider.release()
            with server:
                listed = front.request(
                    'GET', '/example.com/messages/', headers=HEADERS).json
                assert len(listed['messages']) == 1
        assert len(provider.requests) == 1
