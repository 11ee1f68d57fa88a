"""Providers that break: the stage that is told is true, and comes in time."""

import gzip
import socket
import threading
import tracemalloc

import pytest

from stampman.services.transport import (
    Answer, Fault, Stage, Transport)

from calling import (
    CONTENT, KEY, LARGE, PLENTY, REAL, SOON, call, call_in_time)
from servers import (
    RawServer, Recorder, after_the_request, closed_port, endlessly, reset)

HEAD = (b'HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\n'
        b'Content-Length: 12\r\n\r\n')
ANSWER = HEAD + b'{"id": "abc"}'[:12]
REFUSAL = (b'HTTP/1.1 413 Payload Too Large\r\nContent-Length: 9\r\n'
           b'\r\ntoo large')


def fate(behave, body=CONTENT, **options):
    """Return how one call to a server ended, and the server."""
    with RawServer(behave) as server:
        result = call_in_time(server.url, body=body, **options)
    for secret in (KEY, 'query-7c2e', 'canary-4711'):
        assert not isinstance(result, Fault) or secret not in result.reason
    assert server.connections == 1      # never twice, whatever happened
    return result, server


# -- before anything is written ----------------------------------------------

def test_a_closed_port_is_told_as_nothing_written():
    fault = call_in_time(f'http://127.0.0.1:{closed_port()}')
    assert fault == (Stage.nothing,
                     'no connection to 127.0.0.1: Connection refused', False)


def test_a_host_that_swallows_what_is_sent_is_given_up_early():
    with socket.create_server(('127.0.0.1', 0), backlog=0) as full:
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(('127.0.0.1', port))
        fault = call_in_time(f'http://127.0.0.1:{port}', connect_limit=SOON)
        for client in waiting:
            client.close()
    assert fault == (Stage.nothing, 'no connection to 127.0.0.1 in time',
                     False)


@pytest.mark.parametrize('failure, told', [
    (socket.gaierror(socket.EAI_AGAIN, 'Try again'), 'Try again'),
    (UnicodeError('label too long'), 'not a host name'),
    ([], 'no address')])
def test_a_name_without_an_address_is_told_as_nothing_written(failure, told):
    def resolve(host, port):
        if isinstance(failure, Exception):
            raise failure
        return failure

    fault = call_in_time('http://api.example', resolve=resolve)
    assert fault.stage is Stage.nothing
    assert fault.reason.startswith('cannot look up api.example: ')
    assert told in fault.reason


def test_a_name_server_that_does_not_answer_is_bounded_by_the_deadline():
    answered = threading.Event()
    fault = call_in_time('http://api.example',
                         resolve=lambda *_: answered.wait(PLENTY) and [])
    answered.set()
    assert fault == (Stage.nothing, 'no connection to api.example in time',
                     False)


def test_a_name_is_looked_up_once_for_all_who_wait_and_each_address_tried():
    asked, results = [], []
    begun, answered = threading.Event(), threading.Event()

    def resolve(host, port):
        asked.append(host)
        begun.set()
        assert answered.wait(PLENTY)
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, '',
                 ('127.0.0.1', place)) for place in (closed_port(), port)]

    with Recorder() as provider:
        transport = Transport(REAL, resolve=resolve)
        url = f'http://api.example:{provider.port}'
        first = threading.Thread(target=lambda: results.append(
            call(url, transport=transport)))
        first.start()
        assert begun.wait(PLENTY)
        assert call_in_time(
            url, transport=transport).stage is Stage.nothing
        answered.set()
        first.join()
    assert asked == ['api.example']
    assert results[0].status == 500
    assert provider.requests[0].headers['Host'] == url[7:]


# -- while the request is written --------------------------------------------

def first_kilobyte(then):
    def behave(connection, server):
        connection.recv(1024)
        then(connection, server)
    return behave


@pytest.mark.parametrize('then', [
    lambda connection, server: server.stopped.wait(),
    lambda connection, server: reset(connection),
    lambda connection, server: connection.close(),
    lambda connection, server: (
        connection.shutdown(socket.SHUT_WR), server.stopped.wait()),
    lambda connection, server: (
        connection.sendall(REFUSAL[:20]), reset(connection)),
    lambda connection, server: (
        connection.sendall(b'HTTP/1.1 100 Continue\r\n\r\n'),
        reset(connection)),
], ids=['stalls', 'resets', 'closes', 'half-closes', 'stammers',
        'continues'])
def test_a_request_that_is_not_taken_whole_is_told_as_nothing(then):
    fault, server = fate(first_kilobyte(then), LARGE)
    assert isinstance(fault, Fault) and fault.stage is Stage.nothing
    assert not server.complete_requests


def test_a_peer_that_reads_byte_by_byte_is_bounded_by_the_deadline():
    def sip(connection, server):
        while connection.recv(1) and not server.stopped.wait(0.01):
            pass

    fault, _ = fate(sip, LARGE)
    assert fault == (Stage.nothing,
                     'the request was not fully written in time', False)


@pytest.mark.parametrize('end', [
    lambda connection, server: server.stopped.wait(),
    lambda connection, server: reset(connection)], ids=['waits', 'resets'])
def test_a_refusal_before_the_request_is_whole_is_read(end):
    def refuse(connection, server):
        connection.sendall(REFUSAL)
        end(connection, server)

    answer, server = fate(first_kilobyte(refuse), LARGE)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.text) == (413, 'too large')
    assert not server.complete_requests


def test_a_100_continue_in_the_middle_does_not_stop_the_writing():
    def encourage(connection, server):
        connection.sendall(b'HTTP/1.1 100 Continue\r\n\r\n')
        after_the_request(ANSWER)(connection, server)

    answer, server = fate(encourage, LARGE, seconds=PLENTY)
    assert answer.status == 202 and server.complete_requests == 1


# -- after it is written -----------------------------------------------------

@pytest.mark.parametrize('behave', [
    after_the_request(),
    after_the_request(end=reset),
    after_the_request(end=socket.socket.close),
    after_the_request(HEAD * 50, drip=0.02),
    after_the_request(b'garbage\r\n\r\n'),
    after_the_request(b'HTTP/2.0 200 OK\r\n\r\n'),
    after_the_request(b'HTTP/1.1 2OO OK\r\n\r\n'),
    after_the_request(b'\x16\x03\x01\x00\x05hello\r\n'),
    after_the_request(b'HTTP/1.1 101 Switching Protocols\r\n\r\n'),
    after_the_request(b'HTTP/1.1 103 Early Hints\r\n\r\n'),
    after_the_request(b'HTTP/1.1 103 Early Hints\r\n\r\n',
                      end=socket.socket.close),
    endlessly(b'', b'HTTP/1.1 100 Continue\r\n\r\n'),
    endlessly(b'', b'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n'),
    endlessly(b'HTTP/1.1 200 OK\r\n', b'X-Flood: 1\r\n'),
    endlessly(b'HTTP/1.1 200 OK\r\nX-Flood: ', b'x' * 1000),
    endlessly(b'', b'x' * 1000),
])
def test_without_status_and_headers_it_is_told_as_written(behave):
    fault, server = fate(behave)
    assert isinstance(fault, Fault) and fault.stage is Stage.written
    assert server.complete_requests == 1


@pytest.mark.parametrize('cut', range(len(HEAD)))
def test_an_answer_cut_anywhere_inside_its_headers_is_none(cut):
    fault, _ = fate(after_the_request(HEAD[:cut], end=socket.socket.close))
    assert isinstance(fault, Fault) and fault.stage is Stage.written


@pytest.mark.parametrize('interim', [
    b'HTTP/1.1 100 Continue\r\n\r\n',
    b'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n',
    b'HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n'])
def test_interim_answers_before_the_final_one_are_passed_over(interim):
    answer, _ = fate(after_the_request(interim + ANSWER), seconds=PLENTY)
    assert (answer.status, answer.body) == (202, ANSWER[-12:])


CHUNKED = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'


@pytest.mark.parametrize('behave', [
    after_the_request(HEAD.replace(b'12', b'500'), b'x' * 500, drip=0.02),
    after_the_request(ANSWER[:-1]),
    after_the_request(ANSWER[:-1], end=socket.socket.close),
    after_the_request(ANSWER[:-1], end=reset),
    after_the_request(HEAD, end=socket.socket.close),
    after_the_request(CHUNKED, b'5\r\nhel', end=socket.socket.close),
    after_the_request(CHUNKED, b'5\r\nhello\r\n', end=socket.socket.close),
    after_the_request(CHUNKED, b'5\r\nhello\r\nzz\r\n'),
    after_the_request(CHUNKED, b'-5\r\nhello\r\n0\r\n\r\n'),
    after_the_request(CHUNKED, b'-1\r\nhello\r\n0\r\n\r\n'),
    after_the_request(CHUNKED, b'\r\n'),
    after_the_request(CHUNKED, b'1\r\nx\r\n' * 500, drip=0.02),
    after_the_request(b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n'
                      b'Content-Length: 3\r\n\r\nok'),
    after_the_request(b'HTTP/1.1 200 OK\r\n\r\nno length and no end'),
    endlessly(CHUNKED, b'1;' + b'x' * 1000),
    endlessly(CHUNKED + b'-1\r\n', b'x' * 1000),
    endlessly(CHUNKED + b'0\r\n', b'X-Trailer: 1\r\n'),
])
def test_a_body_that_does_not_come_whole_is_told_as_answered(behave):
    fault, server = fate(behave)
    assert isinstance(fault, Fault) and fault.stage is Stage.answered
    assert server.complete_requests == 1


# -- a connection used again -----------------------------------------------

@pytest.mark.parametrize('end', [reset, socket.socket.close])
def test_a_kept_connection_that_breaks_is_not_replaced_silently(end):
    def serve_once(connection, server):
        server.read_request(connection)
        connection.sendall(ANSWER)
        server.read_request(connection)
        end(connection)

    with RawServer(serve_once) as server:
        transport = Transport(REAL)
        assert call(server.url, transport=transport).status == 202
        fault = call(server.url, transport=transport)
        assert isinstance(fault, Fault) and fault.stage is Stage.written
        assert (server.connections, server.complete_requests) == (1, 2)


# -- too much ----------------------------------------------------------------

@pytest.mark.parametrize('head', [
    b'HTTP/1.1 200 OK\r\nContent-Length: 300000000\r\n\r\n',
    b'HTTP/1.1 200 OK\r\n\r\n',
    CHUNKED + b'FFFFFFFFFF\r\n',
    b'HTTP/1.1 307 Temporary Redirect\r\nLocation: /\r\n\r\n'])
def test_an_endless_body_is_cut_at_64_kb_and_takes_no_memory(head):
    tracemalloc.start()
    answer, _ = fate(endlessly(head, b'x' * 65_536), seconds=PLENTY)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(answer.body), answer.complete) == (65_536, False)
    assert peak < 2_000_000


def test_a_body_in_another_encoding_is_not_expanded():
    bomb = gzip.compress(bytes(30_000_000))
    with Recorder() as provider:
        provider.answer(200, bomb, {'Content-Encoding': 'gzip'})
        answer = call(provider.url)
    assert answer.body == bomb[:65_536]
    assert answer.json is None


def test_99_headers_are_read():
    lines = b''.join(b'X-%d: 1\r\n' % number for number in range(98))
    answer, _ = fate(after_the_request(
        b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n' + lines + b'\r\nok'),
        seconds=PLENTY)
    assert answer.headers['X-97'] == '1' and answer.body == b'ok'


# -- elsewhere ---------------------------------------------------------------

@pytest.mark.parametrize('status', [301, 302, 303, 307, 308])
def test_a_redirect_is_an_answer_and_its_target_sees_nobody(status):
    with Recorder() as target, Recorder() as provider:
        provider.answer(status, b'', {'Location': target.url})
        assert call(provider.url).status == status
        assert len(provider.requests) == 1 and not target.connections
