"""Every provider over HTTP, broken in every way, before a healthy backup.

The rows are the faults P1 to P25 that a provider can have. Whatever happens:
the outcome is honest, it comes in time, nobody is called twice, and the
backup takes what may be sent again.
"""

import json
import math
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from stampman.helpers.delivery import Kind
from stampman.services.base import SendContext
from stampman.services.pool import PooledEmailService
from stampman.services.transport import Transport

from certificates import Authority
from fakes import (
    EveryoneIsWell, MemoryJournal, ScriptedService, Time, message, outcome)
from servers import (
    RawServer, Recorder, after_the_request, closed_port, endlessly, reset)
from test_services import CLOCK, DATA, HTTP, an_email, service

TIMEOUT = 0.4       # seconds that a call may take here
IN_TIME = 2.0       # seconds by which it must be over, on a busy machine
OK = b'HTTP/1.1 200 OK\r\nX-Message-Id: some-id\r\n'
CHUNKED = OK + b'Transfer-Encoding: chunked\r\n\r\n'
LARGE = [{'filename': 'large', 'content': 'AAAA' * 1_500_000}]


def proof(provider):
    """Return a whole answer by which `provider` accepts."""
    status, body, *headers = DATA[provider]['accepts']['answer']
    raw = (body if isinstance(body, str) else json.dumps(body)).encode()
    lines = [f'HTTP/1.1 {status} OK', f'Content-Length: {len(raw)}', *(
        f'{name}: {value}' for name, value in
        (headers[0] if headers else {}).items()), '', '']
    return '\r\n'.join(lines).encode(), raw


def says(*pieces, **how):
    """Return what gives a provider's own `after_the_request`."""
    return lambda provider: after_the_request(*(
        piece if isinstance(piece, bytes) else piece(provider)
        for piece in pieces), **how)


def ever(head, piece):
    return lambda provider: endlessly(head, piece)


def first_kilobyte(*pieces, end):
    def behave(connection, server):
        connection.recv(1024)
        for piece in pieces:
            connection.sendall(piece)
        end(connection)
    return lambda provider: behave


def unread(provider):
    return lambda connection, server: reset(connection)


def close(connection):
    connection.close()


def drain(connection):
    while connection.recv(65_536):
        pass


def head_of(provider):
    return proof(provider)[0]


def all_but_the_end(provider):
    head, body = proof(provider)
    return (head.replace(b'Content-Length: %d' % len(body),
                         b'Content-Length: %d' % (len(body) + 1)) + body)


def inside_the_headers(provider):
    return proof(provider)[0][:-4]


# What goes wrong, how a provider does it, and what it must come to.
FAULTS = [
    ('P5 hangs', says(), 'uncertain'),
    ('P6 slow headers', says(head_of, drip=0.05), 'uncertain'),
    ('P7 slow body', says(OK + b'Content-Length: 900\r\n\r\n', b'x' * 900,
                          drip=0.05), 'uncertain'),
    ('P8 early 413', first_kilobyte(
        b'HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n',
        end=drain), 'unsupported'),
    ('P8 early reset', first_kilobyte(end=reset), 'deferred'),
    ('P9 reset unread', unread, 'deferred'),
    ('P9 reset after reading', says(end=reset), 'uncertain'),
    ('P9 end after reading', says(end=close), 'uncertain'),
    ('P11 flood of 100', ever(
        b'', b'HTTP/1.1 100 Continue\r\n\r\n'), 'uncertain'),
    ('P11 103 is the last', says(
        b'HTTP/1.1 103 Early Hints\r\n\r\n', end=close), 'uncertain'),
    ('P11 101', says(b'HTTP/1.1 101 Switching\r\n\r\n'), 'uncertain'),
    ('P20 garbage', says(b'\0\1garbage\r\n\r\n'), 'uncertain'),
    ('P21 endless body', ever(OK + b'\r\n', b'x' * 65_536),
     'uncertain'),
    ('P21 flood of headers', ever(OK, b'X-Flood: 1\r\n'), 'uncertain'),
    ('P22 truncated chunks', says(CHUNKED + b'5\r\nhel', end=close),
     'uncertain'),
    ('P22 short length', says(all_but_the_end, end=close), 'uncertain'),
    ('P22 bad chunk size', says(CHUNKED + b'zz\r\n{}\r\n0\r\n\r\n'),
     'uncertain'),
    ('P23 cut inside the headers', says(inside_the_headers, end=close),
     'uncertain'),
]
# They come before the request is written, so it must be a large one.
NOT_READ_WHOLE = ('P8', 'P9 reset unread')


class Journal(MemoryJournal):
    """A journal whose deadlines are of the clock that calls are held to."""

    def begin(self, service, seconds, replays=None):
        return super().begin(service, seconds)._replace(
            deadline=CLOCK.monotonic() + seconds)


def walk(ours, **fields):
    """Send by `ours`, and a healthy backup behind it; return the outcome of
    ours and the seconds it took."""
    backup = ScriptedService('backup', outcome('accepted'))
    journal = Journal(message(), Time())
    pool = PooledEmailService(
        [ours, backup], journal, EveryoneIsWell(), CLOCK)
    started = time.monotonic()
    pool.send_email(an_email(**fields), SendContext('m', '', math.inf))
    took = time.monotonic() - started
    first = journal.message.attempts[0].outcome
    told = first.reason + first.code
    assert first.reason and not [
        secret for secret in ours.secrets if secret and secret in told]
    assert len(backup.calls) == 1
    return first, took


@pytest.mark.parametrize('provider', HTTP)
@pytest.mark.parametrize('name, behave, kind', FAULTS,
                         ids=[fault[0] for fault in FAULTS])
def test_a_broken_provider(provider, name, behave, kind):
    with RawServer(behave(provider)) as server:
        ours = service(provider, server.url, timeout=TIMEOUT)
        large = name.startswith(NOT_READ_WHOLE)
        first, took = walk(ours, **{'attachments': LARGE} if large else {})
        assert first.kind == kind, first.reason
        assert took < IN_TIME
        assert server.connections == 1
        assert server.complete_requests == (not large)


ANSWERS = [
    ('P13 401', 401, '', {}, 'refused'),
    ('P13 403', 403, '', {}, 'refused'),
    ('P14 402', 402, '', {}, 'refused'),
    ('P15 413', 413, '', {}, 'unsupported'),
    ('P16 429', 429, '', {}, 'deferred'),
    ('P18 502 HTML', 502, '<script>alert(1)</script>', {}, 'uncertain'),
    ('P18 504', 504, '', {}, 'uncertain'),
    ('P20 200 HTML', 200, '<html>OK</html>', {}, 'uncertain'),
    ('P20 200 empty', 200, '', {}, 'uncertain'),
    ('P20 200 null', 200, 'null', {}, 'uncertain'),
    ('P20 200 list', 200, '[]', {}, 'uncertain'),
    ('P20 200 object', 200, '{}', {}, 'uncertain'),
    ('P20 200 ids of a wrong type', 200,
     '{"id": 1, "MessageId": ["x"], "_id": {}}', {}, 'uncertain'),
    ('P20 204', 204, '', {}, 'uncertain'),
    ('P25 duplicate keys', 200,
     '{"id": "a", "id": "b", "MessageId": "a", "MessageId": "b"}', {},
     'uncertain'),
    ('P25 NaN', 200, '{"id": "a", "MessageId": "a", "x": NaN}', {},
     'uncertain'),
    ('P25 nesting', 200, '[' * 10_000 + ']' * 10_000, {}, 'uncertain'),
    ('P25 not UTF-8', 200, b'{"id": "\xff", "MessageId": "\xff"}', {},
     'uncertain'),
]


@pytest.mark.parametrize('provider', HTTP)
@pytest.mark.parametrize('status, body, headers, kind', [
    answer[1:] for answer in ANSWERS], ids=[one[0] for one in ANSWERS])
def test_an_answer_that_is_no_proof(provider, status, body, headers, kind):
    with Recorder() as server:
        server.answer(status, body, headers)
        first, _ = walk(service(provider, server.url))
        assert len(server.requests) == 1
    assert first.kind == kind
    assert first.alert == (kind in ('refused',) or status // 100 == 2)


@pytest.mark.parametrize('provider', HTTP)
@pytest.mark.parametrize('asked, waited', [
    ('7', 7.0), ('0', 1.0), ('-5', None), ('1.5', None), ('1e9', None),
    ('junk', None), ('', None), ('Wed, 01 Jan 2020 00:00:00 GMT', 1.0)])
def test_p17_a_time_to_wait_is_clamped_or_ignored(provider, asked, waited):
    with Recorder() as server:
        server.answer(503, '', {'Retry-After': asked})
        first, _ = walk(service(provider, server.url))
    if first.kind is Kind.deferred:
        assert first.retry_after == waited
    else:       # a sheet may know that this provider's 503 proves nothing
        assert first.kind is Kind.uncertain and provider == 'mailgun'


@pytest.mark.parametrize('provider', HTTP)
@pytest.mark.parametrize('asked', ['1000000000000', '1800',
                                   'Fri, 31 Dec 2999 23:59:59 GMT'])
def test_p17_who_throttles_for_long_has_no_quota_left(provider, asked):
    with Recorder() as server:
        server.answer(429, '', {'Retry-After': asked})
        first, _ = walk(service(provider, server.url))
    assert first.kind is Kind.refused and first.alert


@pytest.mark.parametrize('provider', HTTP)
def test_p1_a_closed_port(provider):
    first, took = walk(service(
        provider, f'http://127.0.0.1:{closed_port()}'))
    assert first.kind is Kind.deferred and took < IN_TIME


@pytest.mark.parametrize('provider', HTTP)
@pytest.mark.parametrize('how', ['fails', 'is empty', 'hangs'])
def test_p2_a_name_that_is_not_found(provider, how):
    answered = threading.Event()

    def resolve(host, port):
        if how == 'fails':
            raise socket.gaierror(socket.EAI_FAIL, 'SERVFAIL')
        if how == 'hangs':
            answered.wait(10)
        return []

    ours = service(provider, 'https://api.example', timeout=TIMEOUT)
    ours.transport = Transport(CLOCK, resolve=resolve)
    first, took = walk(ours)
    answered.set()
    assert first.kind is Kind.deferred and took < IN_TIME


@pytest.mark.parametrize('provider', HTTP)
def test_p3_a_black_hole(provider):
    with socket.create_server(('127.0.0.1', 0), backlog=0) as full:
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(('127.0.0.1', port))
        first, took = walk(service(
            provider, f'http://127.0.0.1:{port}', timeout=TIMEOUT))
        for client in waiting:
            client.close()
    assert first.kind is Kind.deferred and took < IN_TIME


@pytest.mark.parametrize('provider', HTTP)
@pytest.mark.parametrize('wrong', [
    'expired', 'another host', 'signed by itself', 'stalls'])
def test_p4_tls_that_is_wrong_gets_no_request(provider, wrong, tmp_path):
    authority = Authority(tmp_path)
    contexts = {
        'expired': authority.server('127.0.0.1', expired=True),
        'another host': authority.server('other.example'),
        'signed by itself': authority.signed_by_itself(), 'stalls': None}

    def say_nothing(connection, server):
        server.stopped.wait()

    with RawServer(say_nothing, tls=contexts[wrong]) as server:
        url = server.url.replace('http:', 'https:')
        ours = service(provider, url, timeout=TIMEOUT)
        ours.transport = Transport(CLOCK, ca_file=authority.file)
        first, took = walk(ours)
        assert not server.complete_requests
    assert first.kind is Kind.deferred and took < IN_TIME
    assert first.alert == (wrong != 'stalls')


@pytest.mark.parametrize('provider', HTTP)
def test_p10_a_kept_connection_that_breaks_is_not_used_twice(provider):
    def serve_once(connection, server):
        server.read_request(connection)
        connection.sendall(b''.join(proof(provider)))
        server.read_request(connection)
        reset(connection)

    with RawServer(serve_once) as server:
        ours = service(provider, server.url, timeout=TIMEOUT)
        context = SendContext('m', 'a', time.monotonic() + 5)
        assert ours.send_email(
            an_email(), context).kind is Kind.accepted
        first, _ = walk(ours)
        assert first.kind is Kind.uncertain
        assert (server.connections, server.complete_requests) == (1, 2)


@pytest.mark.parametrize('provider', HTTP)
@pytest.mark.parametrize('status', [301, 302, 303, 307, 308])
def test_p12_no_redirect_carries_a_secret_elsewhere(provider, status):
    with Recorder() as elsewhere, Recorder() as server:
        server.answer(status, '', {'Location': f'{elsewhere.url}/v3/x'})
        first, _ = walk(service(provider, server.url))
        assert first.kind is Kind.refused and first.alert
        assert len(server.requests) == 1 and not elsewhere.connections


FLOODS = Path(__file__).parent / 'flooded.py'


@pytest.mark.parametrize('provider', HTTP)
def test_p21_a_flood_costs_less_than_5_mb(provider):
    """In a process of its own, whose memory is measured from outside."""
    found = subprocess.run(
        [sys.executable, str(FLOODS), provider], capture_output=True,
        text=True, timeout=60, check=True)
    grown = json.loads(found.stdout)
    assert set(grown) == {'endless', 'headers', 'gzip', 'chunks'}
    assert max(grown.values()) < 5_000_000, grown
