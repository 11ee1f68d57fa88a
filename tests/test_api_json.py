"""The body of a request: strict JSON, whole, and within the limit."""

import json
import socket
import time

import pytest

from stampman.helpers import strict_json
from stampman.helpers.exceptions import BadRequest

from gateway_server import (
    EMAIL, PATIENCE, POOL_KEY, GatewayServer, config)

LIMIT = 4000    # bytes of a body, in this module's server


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    with GatewayServer(tmp_path_factory.mktemp('json'), config(
            limits={'body_bytes': LIMIT})) as running:
        yield running


GOOD = [
    (b'{}', {}),
    (b' {"a": "\\u00e9\xc3\xa9"} \n', {'a': 'éé'}),
    (b'{"a": "\\ud83d\\ude00"}', {'a': '😀'}),
    (b'{"a": [1, -2.5e3, true, null, "]}[{"]}',
     {'a': [1, -2500.0, True, None, ']}[{']}),
    (b'{"a": "' + b'[{' * 50 + b'"}', {'a': '[{' * 50}),
    (b'{"a": "' + b'\\\\\\"[' * 50 + b'"}', {'a': '\\"[' * 50}),
    (b'{"a":' + b'[' * 31 + b']' * 31 + b'}', None),
]

BAD = [     # body, what the detail says
    (b'', 'empty'),
    (b'\xef\xbb\xbf{}', 'byte order mark'),
    ('{}'.encode('utf-16'), 'not UTF-8'),
    ('{"a": 1}'.encode('utf-16-le'), 'not JSON'),
    ('{}'.encode('utf-32'), 'not UTF-8'),
    (b'{"a": "\xff"}', 'position 7'),
    (b'{"a": "\xed\xa0\x80"}', 'not UTF-8'),
    (b'[]', 'not an array'),
    (b'"x"', 'not a string'),
    (b'null', 'not null'),
    (b'true', 'not a boolean'),
    (b'7', 'not a number'),
    (b'{"a": 1', 'column 8'),
    (b'{"a": 1}\n{"b": 2}', 'line 2'),
    (b"{'a': 1}", 'not JSON'),
    (b'{"a": 1,}', 'not JSON'),
    (b'{"a": "line\nbreak"}', 'control character'),
    (b'{"a": 1, "a": 2}', '"a" stands twice'),
    (b'{"a": {"b": 1, "b": 1}}', '"b" stands twice'),
    (b'{"a": NaN}', 'NaN'),
    (b'{"a": Infinity}', 'Infinity'),
    (b'{"a": -Infinity}', '-Infinity'),
    (b'{"a": 1e400}', '1e400'),
    (b'{"a": -1e400}', '-1e400'),
    (b'{"a": ' + b'9' * 5000 + b'}', '5000 digits'),
    (b'{"a": 0.' + b'1' * 5000 + b'}', 'too large'),
    (b'{"a":' + b'[' * 32 + b']' * 32 + b'}', 'nested'),
    (b'[' * 100_000, 'nested'),
    (b'{"a":' * 100_000, 'nested'),
    (b'{"a": "\\ud800"}', 'a contains a lone surrogate'),
    (b'{"a": {"b": ["x", "\\udfff"]}}', 'a.b[1] contains'),
    (b'{"\\udc00": 1}', 'lone surrogate'),
]


@pytest.mark.parametrize('body, value', GOOD)
def test_json_is_read(body, value):
    found = strict_json.parse(body)

    assert found == (json.loads(body) if value is None else value)


@pytest.mark.parametrize('body, words', BAD)
def test_what_is_not_strict_json_is_refused_and_the_place_told(body, words):
    with pytest.raises(BadRequest) as refused:
        strict_json.parse(body)

    assert words in refused.value.detail
    refused.value.detail.encode()


@pytest.mark.parametrize('body', [
    b'{"a": "' + b'\\"' * 3_000_000, b'{"a": "' + b'"[' * 3_000_000,
    b'{"a": "' + b'[' * 6_000_000 + b'\\', b'{' * 40 + b'"' * 6_000_000])
def test_no_body_takes_long_to_refuse(body):
    began = time.process_time()

    with pytest.raises(BadRequest):
        strict_json.parse(body)

    assert time.process_time() - began < 5


@pytest.mark.parametrize('body, words', BAD)
def test_a_body_that_is_not_strict_json_is_a_400(server, body, words):
    if len(body) > LIMIT:
        body = body[:LIMIT]
    reply = server.request(
        'POST', '/example.com/send', body,
        {'Content-Type': 'application/json'}, POOL_KEY)

    assert (reply.status, reply.json['code']) == (400, 'bad_request')


@pytest.mark.parametrize('content_type', [
    'application/json', 'application/json; charset=utf-8',
    'APPLICATION/JSON;charset="UTF-8"', 'application/vnd.shop+json'])
def test_json_media_types_are_read(server, content_type):
    assert server.send(**{'Content-Type': content_type}).status == 200


@pytest.mark.parametrize('content_type', [
    'text/plain', 'text/json', 'application/octet-stream', 'x', '',
    'application/xml', 'application/json; charset=utf-16',
    'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x'])
def test_any_other_media_type_is_a_415(server, content_type):
    reply = server.send(**{'Content-Type': content_type})

    assert reply.status == 415
    assert reply.headers['Content-Type'] == 'application/problem+json'


@pytest.mark.parametrize('coding', ['gzip', 'br', 'deflate', 'gzip, gzip'])
def test_a_coded_body_is_a_415(server, coding):
    assert server.send(**{'Content-Encoding': coding}).status == 415


def of_size(size):
    """Return an email whose JSON has exactly `size` bytes."""
    empty = json.dumps({**EMAIL, 'content': ''})
    body = json.dumps({**EMAIL, 'content': 'x' * (size - len(empty))})
    assert len(body) == size
    return body.encode()


@pytest.mark.parametrize('size, status', [
    (LIMIT, 200), (LIMIT + 1, 413), (LIMIT * 10, 413)])
@pytest.mark.parametrize('chunked', [False, True])
def test_a_body_over_the_limit_is_a_413(server, size, status, chunked):
    body = of_size(size)
    if chunked:
        framing = b'Transfer-Encoding: chunked'
        body = b'%x\r\n%s\r\n0\r\n\r\n' % (len(body), body)
    else:
        framing = b'Content-Length: %d' % len(body)

    answer = raw(server, framing, body)

    assert answer.startswith(b'HTTP/1.1 %d ' % status)


def test_a_declared_length_over_the_limit_is_refused_unread(server):
    answer = raw(server, b'Content-Length: 900000000', b'', end=True)

    assert answer.startswith(b'HTTP/1.1 413 ')


@pytest.mark.parametrize('framing, body', [
    (b'Content-Length: 500', b'{"from_email": "shop@example.com"}'),
    (b'Transfer-Encoding: chunked', b'ff\r\n{"from_email": 1}'),
    (b'Transfer-Encoding: chunked', b'zz\r\n{}\r\n0\r\n\r\n')])
def test_a_body_that_ends_early_is_a_400(server, framing, body):
    assert raw(server, framing, body, end=True).startswith(b'HTTP/1.1 400 ')


def raw(server, framing, body, end=False):
    """Post to `send` over a bare socket; return what comes back."""
    with socket.create_connection(
            ('127.0.0.1', server.port), timeout=PATIENCE) as connection:
        connection.sendall(
            b'POST /example.com/send HTTP/1.1\r\nHost: localhost\r\n'
            b'Authorization: Bearer %s\r\nConnection: close\r\n'
            b'Content-Type: application/json\r\n%s\r\n\r\n%s' % (
                POOL_KEY.encode(), framing, body))
        if end:
            connection.shutdown(socket.SHUT_WR)
        answer = b''    # its head: who is unread is listened to for a while
        while b'\r\n\r\n' not in answer and (
                chunk := connection.recv(65536)):
            answer += chunk
        return answer
