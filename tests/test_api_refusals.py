"""What is refused is refused by name, and the client sees the answer."""

import socket
import time

import pytest

from gateway_server import (
    EMAIL, POOL_KEY, WRONG_KEY, GatewayServer, config, sendgrid_at)

SEND = '/example.com/send'


@pytest.fixture(scope='module')
def server(tmp_path_factory, taking):
    with GatewayServer(tmp_path_factory.mktemp('refusals'), config(
            {'sendgrid': sendgrid_at(taking.url)})) as running:
        yield running


def form(*parts):
    """Return a multipart form: of (name, file name or None, content)."""
    fields = [('pool_api_key', None, POOL_KEY),
              ('from_email', None, 'shop@example.com'),
              ('recipients', None, 'ann@example.org'),
              ('subject', None, 'Files'), ('html', None, 'See them.')]
    lines = []
    for name, file_name, content in [*fields, *parts]:
        named = '' if file_name is None else f'; filename="{file_name}"'
        lines.append(f'--xx\r\nContent-Disposition: form-data; '
                     f'name="{name}"{named}\r\n\r\n{content}\r\n')
    return ''.join([*lines, '--xx--\r\n']).encode()


def post(server, body):
    return server.request('POST', SEND, body, {
        'Content-Type': 'multipart/form-data; boundary=xx'})


def test_the_files_of_a_form_are_sent(server, taking):
    before = len(taking.requests)
    assert post(server, form(
        ('attachments', 'a.txt', 'A'), ('attachments', 'b.txt', 'B'))
    ).status == 200
    sent = taking.requests[before].json['attachments']
    assert [part['filename'] for part in sent] == ['a.txt', 'b.txt']


@pytest.mark.parametrize('parts, field', [
    ([('attachment', 'inv.txt', 'x')], 'attachment'),
    ([('attachments[]', 'inv.txt', 'x')], 'attachments[]'),
    ([('content', 'inv.txt', 'x')], 'content'),
    ([('attachments', '', 'x')], 'attachments'),
    ([('attachments', None, 'foo'), ('attachments', 'a.txt', 'x')],
     'attachments')])
def test_no_part_of_a_form_is_ignored(server, taking, parts, field):
    before = len(taking.requests)
    reply = post(server, form(*parts))
    assert reply.status == 422
    assert reply.fields == [field]
    assert len(taking.requests) == before


def test_an_empty_choice_of_files_is_none(server):
    assert post(server, form(('attachments', '', ''))).status == 200


def test_a_form_that_is_not_utf_8_is_refused(server):
    reply = server.request(
        'POST', SEND, b'pool_api_key=' + POOL_KEY.encode()
        + b'&from_email=shop%40example.com&recipients=a%40example.org'
        b'&content=x&subject=caf%e9', {
            'Content-Type': 'application/x-www-form-urlencoded'})
    assert reply.status == 400


@pytest.mark.parametrize('word', [
    '=?utf-8?b?YQ==DQpCY2M6IGVAdi5pbA==?=',
    '=?utf-16?b?AA0ACgBCAGMAYwA6ACAAZQBAAHYALgBpAGw=?=',
    '=?UTF-16?q?=00=0D=00=0A=00B?=', '=?utf-7?q?+AA0ACg-Bcc:?=',
    '=?utf-32be?b?AAAADQAAAAo=?=', '=?utf-16be?q?=20=28?='])
@pytest.mark.parametrize('fields', [
    lambda word: {'subject': word}, lambda word: {'from_name': word},
    lambda word: {'headers': {'X-A': word}},
    lambda word: {'attachments': [{'filename': word, 'content': 'YQ=='}]}])
def test_no_reader_finds_a_control_character(server, taking, word, fields):
    before = len(taking.requests)
    assert server.send({**EMAIL, **fields(word)}).status == 422
    assert len(taking.requests) == before


@pytest.mark.parametrize('method, path', [
    ('GET', ''), ('POST', '/retry'), ('POST', '/cancel'),
    ('POST', '/resolve'), ('POST', '/erase'), ('DELETE', '')])
def test_a_key_is_refused_where_it_means_nothing(server, method, path):
    message = server.send().json['id']
    place = f'/example.com/messages/{message}'
    reply = server.request(method, place + path, None,
                           {'Idempotency-Key': 'x'}, POOL_KEY)
    assert reply.status == 400
    assert reply.fields == ['Idempotency-Key']
    assert 'erased_at' not in server.get(place, POOL_KEY).json


@pytest.mark.parametrize('path, headers, status', [
    (SEND, {'Authorization': f'Bearer {WRONG_KEY}'}, 401),
    (SEND, {'Content-Type': 'text/plain'}, 415),
    (SEND, {'Content-Encoding': 'gzip'}, 415),
    ('/nowhere.example/send', {}, 404), ('/no/such/route', {}, 404)])
def test_a_large_body_does_not_cost_the_client_its_answer(
        server, path, headers, status):
    """It writes all of it first, and then the connection is closed."""
    body = b' ' * 6_000_000
    told = {'Authorization': f'Bearer {POOL_KEY}', 'Connection': 'close',
            'Content-Type': 'application/json', **headers}
    assert server.request('POST', path, body, told).status == status


@pytest.mark.long
def test_a_body_that_does_not_come_is_given_up(server):
    with socket.create_connection(('127.0.0.1', server.port)) as client:
        client.sendall(
            f'POST {SEND} HTTP/1.1\r\nHost: localhost\r\n'
            f'Authorization: Bearer {POOL_KEY}\r\n'
            'Content-Type: application/json\r\n'
            'Content-Length: 500\r\n\r\n{'.encode())
        began = time.monotonic()
        client.settimeout(30)
        assert client.recv(65536).startswith(b'HTTP/1.1 400')
        assert time.monotonic() - began < 20
