"""How requests find their view, and in which form they are answered."""

import socket
import subprocess
import sys
import uuid

import pytest

from gateway_server import (
    ADMIN_KEY, EMAIL, PATIENCE, POOL_KEY, GatewayServer, config)

JSON, HTML = 'application/json', 'text/html; charset=utf-8'
BROWSER = ('text/html,application/xhtml+xml,application/xml;q=0.9,'
           'image/avif,image/webp,*/*;q=0.8')


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    with GatewayServer(tmp_path_factory.mktemp('routing'), config(
            trusted_hosts=['mail.example.com', '.internal.example'])
            ) as running:
        yield running


@pytest.mark.parametrize('words', [
    'import flask_api.app', 'from werkzeug.urls import url_decode_stream',
    'from flask.globals import _request_ctx_stack'])
def test_flask_api_still_needs_what_we_put_back(words):
    """When this fails, api/_flask_api.py may go."""
    found = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', words], text=True,
        capture_output=True)

    assert 'ImportError' in found.stderr


@pytest.mark.parametrize('accept, content_type', [
    (None, JSON), ('*/*', JSON), (JSON, JSON), (BROWSER, HTML),
    ('text/html', HTML), ('text/*', HTML), ('TEXT/HTML', HTML),
    ('text/html;q=0.5, application/json;q=0.9', JSON),
    ('text/html;q=0.9, application/json;q=0.5', HTML),
    ('application/json, text/html', JSON), ('text/html;q=0, */*', JSON),
    ('application/xml', JSON), ('image/png', JSON), ('text/plain', JSON),
    ('application/json;q=0', JSON), ('', JSON), (';;;,,q=,=', JSON),
    ('text/html;q=x', JSON), ('*', JSON), ('a' * 5000, JSON),
    ('application/json; indent=4', JSON), ('*/*;q=0', JSON)])
def test_an_answer_comes_as_it_is_wanted_or_as_json(
        server, accept, content_type):
    headers = {} if accept is None else {'Accept': accept}

    assert server.get('/', **headers).headers['Content-Type'] == content_type
    sent = server.send(**headers)
    assert (sent.status, sent.headers['Content-Type']) == (200, content_type)
    assert 'Accept' in sent.headers['Vary']


@pytest.mark.parametrize('path', ['/healthz', '/readyz', '/openapi.json'])
def test_what_is_for_programs_is_json_even_in_a_browser(server, path):
    reply = server.get(path, Accept=BROWSER)

    assert (reply.status, reply.headers['Content-Type']) == (200, JSON)


@pytest.mark.parametrize('path', [
    '/example.com/send', '/example.com/send/', '/EXAMPLE.com/send',
    '/Example.Com/send/'])
def test_neither_case_nor_a_last_slash_matters(server, path):
    reply = server.request('POST', path, EMAIL, key=POOL_KEY)

    assert reply.status == 200
    assert '/example.com/messages/' in reply.json['url']


@pytest.mark.parametrize('path', [
    '/b%C3%BCcher.example', '/B%C3%9CCHER.example/',
    '/xn--bcher-kva.example/', '/XN--BCHER-KVA.EXAMPLE'])
def test_a_domain_is_found_in_every_spelling(server, path):
    reply = server.get(path)

    assert (reply.status, reply.json['domain']) == (
        200, 'xn--bcher-kva.example')


@pytest.mark.parametrize('path', [
    '//example.com/send', '/example.com//send', '/example.com/send//',
    '/example.com/./send', '/example.com/%2e%2e/send', '/nothing/here',
    '/example.com/nothing', '/example.com%00/', '/example.net/', '/.env',
    '/static/../pools.py', '/static/%2e%2e/pools.py', '/static/',
    '/flask-api/static/js/default.js', '/console', '/%ff/', '/' + 'x' * 2000,
    '/xn--/', '/example.com./'])
@pytest.mark.parametrize('method', ['GET', 'POST'])
def test_what_is_no_address_is_refused_and_never_redirected(
        server, method, path):
    reply = server.request(
        method, path, EMAIL if method == 'POST' else None, key=POOL_KEY)

    assert reply.status in (404, 405), reply.text
    assert reply.json['code'] in ('not_found', 'method_not_allowed')


@pytest.mark.parametrize('method', ['PUT', 'PATCH', 'DELETE', 'PROPFIND'])
def test_another_method_is_a_405_that_names_the_right_ones(server, method):
    reply = server.request(method, '/example.com/send')

    assert (reply.status, reply.json['code']) == (405, 'method_not_allowed')
    assert {'GET', 'POST'} <= set(reply.headers['Allow'].split(', '))


@pytest.mark.parametrize('headers', [
    {'X-HTTP-Method-Override': 'DELETE'}, {'X-HTTP-Method': 'DELETE'}])
def test_no_header_turns_a_request_into_another(server, headers):
    assert server.send(**headers).status == 200


@pytest.mark.parametrize('method, path, body, status', [
    ('GET', '/nowhere', None, 404), ('PUT', '/', None, 405),
    ('POST', '/example.com/send', b'x', 415),
    ('POST', '/example.com/send', {}, 422),
    ('GET', '/example.com/messages/', None, 401)])
def test_every_error_is_a_problem(server, method, path, body, status):
    reply = server.request(method, path, body, key=(
        POOL_KEY if body is not None else None))

    assert reply.status == status
    assert reply.headers['Content-Type'] == 'application/problem+json'
    problem = reply.json
    assert problem['status'] == status
    assert {'type', 'title', 'detail', 'code'} <= set(problem)
    assert problem['request_id'] == reply.headers['X-Request-Id']


@pytest.mark.parametrize('given', ['abc-123', 'x' * 128, 'a b', '"{}%'])
def test_a_request_id_is_echoed_and_logged(server, given):
    reply = server.get('/healthz', **{'X-Request-Id': given})

    assert reply.headers['X-Request-Id'] == given
    assert 'abc-123' not in given or 'abc-123' in server.log


@pytest.mark.parametrize('given', [None, '', 'x' * 129, 'é', 'a\tb'])
def test_a_request_id_is_made_where_none_can_be_used(server, given):
    headers = {} if given is None else {'X-Request-Id': given}

    made = server.get('/healthz', **headers).headers['X-Request-Id']

    assert uuid.UUID(made).version == 7


@pytest.mark.parametrize('host, prefix', [
    ('mail.example.com', 'http://mail.example.com'),
    ('MAIL.example.com:8443', 'http://mail.example.com:8443'),
    ('a.internal.example', 'http://a.internal.example'),
    ('localhost', 'http://localhost'), ('127.0.0.1:1', 'http://127.0.0.1:1'),
    ('[::1]:8000', 'http://[::1]:8000'), ('evil.example', ''),
    # No URL can be made of these, and still the email was sent.
    ('localhost:99999', 'http://localhost:99999'),
    ('[::1]:99999', 'http://[::1]:99999'),
    ('mail.example.com.evil.example', ''), ('localhost.evil.example', ''),
    ('127.0.0.1.evil.example', ''), ('10.0.0.7', '')])
def test_urls_name_only_hosts_that_are_ours(server, host, prefix):
    reply = server.send(Host=host)

    path = f'/example.com/messages/{reply.json["id"]}'
    assert reply.status == 200
    assert reply.json['url'] == reply.headers['Location'] == prefix + path


@pytest.mark.parametrize('host', [
    'mail.example.com@evil', 'evil.example#mail.example.com', '"><script>',
    'a b', 'mail.example.com, evil.example'])
def test_what_is_no_host_is_refused(server, host):
    assert server.send(Host=host).status == 400


def test_two_hosts_are_refused(server):
    with socket.create_connection(('127.0.0.1', server.port)) as client:
        client.sendall(b'GET /healthz HTTP/1.1\r\nHost: localhost\r\n'
                       b'Host: evil.example\r\nConnection: close\r\n\r\n')
        assert b' 400 ' in client.recv(65536).partition(b'\r\n')[0]


def test_forwarded_hosts_are_not_believed(server):
    reply = server.send(**{'X-Forwarded-Host': 'evil.example',
                           'Forwarded': 'host=evil.example'})

    assert 'evil' not in reply.text


def test_the_public_url_wins_over_every_host(tmp_path):
    with GatewayServer(
            tmp_path, config(),
            STAMPMAN_PUBLIC_URL='https://api.example.com/mail/') as server:
        reply = server.send(Host='evil.example')
        page = server.get('/', Accept=BROWSER)

    assert reply.json['url'].startswith(
        'https://api.example.com/mail/example.com/messages/')
    assert 'href="/mail/static/style.css"' in page.text


def test_a_request_without_a_host_is_refused_unless_it_is_old(server):
    def ask(version):
        with socket.create_connection(
                ('127.0.0.1', server.port), timeout=PATIENCE) as connection:
            connection.sendall(b'GET /healthz HTTP/%s\r\n'
                               b'Connection: close\r\n\r\n' % version)
            return connection.recv(65536)

    assert b' 400 ' in ask(b'1.1').partition(b'\r\n')[0]
    assert b' 200 ' in ask(b'1.0').partition(b'\r\n')[0]


def test_head_and_options_are_served(server):
    head = server.request('HEAD', '/example.com/')
    options = server.request('OPTIONS', '/example.com/send')

    assert (head.status, head.body) == (200, b'')
    assert options.status == 200 and 'POST' in options.headers['Allow']


def test_a_health_check_needs_nothing_and_readiness_tells_its_checks(server):
    assert server.get('/healthz', Host='10.0.0.7').json == {'status': 'ok'}
    ready = server.get('/readyz')
    assert (ready.status, ready.json['status']) == (200, 'ok')
    assert ready.json['checks']['store'] == 'ok'
    for secret in (POOL_KEY, ADMIN_KEY):
        assert secret not in ready.text
