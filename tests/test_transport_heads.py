"""How the head of an answer is read: strictly, and where its body ends."""

import time

import pytest

from stampman.services.transport import Fault, Request, Stage, Transport

from calling import PLENTY, REAL, call
from servers import RawServer, after_the_request


def answered(*lines, body=b'ok'):
    """Return what an answer of these lines, and a body, is read as."""
    head = b'\r\n'.join((*lines, b'', b''))
    with RawServer(after_the_request(head + body)) as server:
        return call(server.url)


@pytest.mark.parametrize('lines, value', [
    ([b'X-Id: a'], 'a'), ([b'x-id:a'], 'a'), ([b'X-ID:\t a b \t'], 'a b'),
    ([b'X-Id:'], ''), ([b'X-Id: a:b'], 'a:b'), ([b'X-Id: caf\xe9'], 'caf\xe9'),
    ([b'X-Id: a', b'X-Other: 1', b'x-id: b'], 'a, b'),
    ([b'X-Id: a', b' b', b'\tc '], 'a b\tc'),
    ([b'X-Id: a', b'X(1)/2: odd, but no harm'], 'a')])
def test_a_header_is_read_as_http_writes_it(lines, value):
    answer = answered(b'HTTP/1.1 202 Accepted', *lines, b'Content-Length: 2')
    assert (answer.status, answer.body) == (202, b'ok')
    assert answer.headers['X-Id'] == value


@pytest.mark.parametrize('first', [
    b'HTTP/1.1 202', b'HTTP/1.1 202 ', b'HTTP/1.1  202\tYes',
    b'HTTP/1.0 202 a',
    b'HTTP/1.1 202 \xc3\xa4 b c'])
def test_a_status_line_may_say_anything_behind_the_status(first):
    assert answered(first, b'Content-Length: 2').status == 202


@pytest.mark.parametrize('line', [
    b'no colon', b': no name', b'X-Id : a', b'X Id: a', b'X-\xe4: a',
    b'X-Id: a\rContent-Length: 9', b'X-Id: a\x00', b' X-Id: folded first'])
def test_a_line_that_is_no_header_is_told_as_written(line):
    fault = answered(b'HTTP/1.1 202 Accepted', line, b'Content-Length: 2')
    assert isinstance(fault, Fault) and fault.stage is Stage.written


@pytest.mark.parametrize('first', [
    b'HTTP/1.1 +202 Yes', b'HTTP/1.1 2_2 Yes', b'HTTP/1.1 099 No',
    b'HTTP/1.1 2020 No', b'HTTP/2 202', b'ICY 200 OK', b' HTTP/1.1 202 Yes',
    b'HTTP/1.1 202 Yes\rX-Id: a', b''])
def test_a_line_that_is_no_status_line_is_told_as_written(first):
    fault = answered(first, b'Content-Length: 2')
    assert isinstance(fault, Fault) and fault.stage is Stage.written


def test_what_is_not_http_is_not_waited_for_to_its_end():
    with RawServer(after_the_request(b'SSH-2.0-OpenSSH\r\n')) as server:
        began = time.monotonic()
        fault = call(server.url)
        assert time.monotonic() - began < PLENTY / 2
    assert fault.stage is Stage.written and 'not HTTP' in fault.reason


def test_more_than_99_headers_are_told_as_written():
    lines = [b'X-%d: 1' % number for number in range(100)]
    fault = answered(b'HTTP/1.1 202 Accepted', *lines)
    assert isinstance(fault, Fault) and fault.stage is Stage.written


@pytest.mark.parametrize('lines, body', [
    ([b'Content-Length: 2'], b'ok'), ([b'Content-Length: 2, 2'], b'ok'),
    ([b'Content-Length: 2', b'Content-Length: 2'], b'ok'),
    ([b'Transfer-Encoding: Chunked'], b'2\r\nok\r\n0\r\n\r\n'),
    ([b'Transfer-Encoding: chunked', b'Content-Length: 9'],
     b'1;a=b\r\no\r\n1\r\nk\r\n0\r\nX-Trailer: 1\r\n\r\n')])
def test_a_body_ends_where_the_head_says(lines, body):
    assert answered(b'HTTP/1.1 200 OK', *lines, body=body).body == b'ok'


@pytest.mark.parametrize('lines', [
    [], [b'Content-Length: two'], [b'Content-Length: -2'],
    [b'Content-Length: ' + b'9' * 5000], [b'Transfer-Encoding: gzip']])
def test_a_body_without_a_length_ends_with_the_connection(lines):
    head = b'\r\n'.join((b'HTTP/1.1 200 OK', *lines, b'', b'ok'))
    ends = after_the_request(head, end=lambda connection: connection.close())
    with RawServer(ends) as server:
        assert call(server.url).body == b'ok'


@pytest.mark.parametrize('method, first', [
    ('POST', b'HTTP/1.1 204 None'), ('POST', b'HTTP/1.1 304 None'),
    ('HEAD', b'HTTP/1.1 200 OK')])
@pytest.mark.parametrize('framing', [
    b'Content-Length: 7', b'Transfer-Encoding: chunked', b'X-None: 1'])
def test_an_answer_that_has_no_body_is_not_waited_for(method, first, framing):
    head = b'\r\n'.join((first, framing, b'', b''))
    with RawServer(after_the_request(head)) as server:
        answer = Transport(REAL).call(
            Request(method, server.url, {}), REAL.monotonic() + PLENTY)
    assert (answer.body, answer.complete) == (b'', True)


@pytest.mark.parametrize('first, line, connections', [
    (b'HTTP/1.1', b'X-None: 1', 1), (b'HTTP/1.1', b'Connection: Close', 2),
    (b'HTTP/1.0', b'X-None: 1', 2), (b'HTTP/1.0', b'Connection: Keep-Alive', 1)
])
def test_a_connection_is_used_again_where_the_answer_allows_it(
        first, line, connections):
    answer = b'\r\n'.join((first + b' 200 OK', line, b'Content-Length: 2',
                           b'', b'ok'))

    def serve(connection, server):
        while server.read_request(connection):
            connection.sendall(answer)

    with RawServer(serve) as server:
        transport = Transport(REAL)
        for _ in range(2):
            assert call(server.url, transport=transport).body == b'ok'
        assert server.connections == connections
