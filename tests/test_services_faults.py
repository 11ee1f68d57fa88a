"""What can go wrong with a provider, and what must not come out of it."""

import base64
import time
from email.utils import formatdate

import pytest

from stampman.helpers.delivery import Clock, Kind
from stampman.services import service_class
from stampman.services.base import SendContext
from stampman.services.transport import Answer

from servers import RawServer, Recorder, closed_port, reset
from test_services import (
    CLOCK, DATA, HTTP, NOW, an_email, context, service)

DEADLINE = 0.3      # seconds


def hang(connection, server):
    server.read_request(connection)
    server.stopped.wait(10)


def read_and_reset(connection, server):
    server.read_request(connection)
    reset(connection)


def read_and_end(connection, server):
    server.read_request(connection)


def cut_short(connection, server):
    server.read_request(connection)
    connection.sendall(b'HTTP/1.1 200 OK\r\nX-Message-Id: abc\r\n'
                       b'Content-Length: 100\r\n\r\n{"id": "<a@b>"')


def cut_in_the_header(connection, server):
    server.read_request(connection)
    connection.sendall(b'HTTP/1.1 202 Accepted\r\nX-Message-Id: ab')


def reset_unread(connection, server):
    reset(connection)


@pytest.mark.parametrize('provider', HTTP)
@pytest.mark.parametrize('behave', [
    hang, read_and_reset, read_and_end, cut_short, cut_in_the_header])
def test_a_request_without_a_whole_answer_is_uncertain(provider, behave):
    with RawServer(behave) as server:
        started = time.monotonic()
        outcome = service(provider, server.url).send_email(
            an_email(), context(DEADLINE))
        assert time.monotonic() - started < 2.0
        assert server.complete_requests == server.connections == 1
    assert outcome.kind is Kind.uncertain
    assert outcome.reason


@pytest.mark.parametrize('provider', HTTP)
def test_a_connection_that_is_refused_is_a_deferral(provider):
    outcome = service(
        provider, f'http://127.0.0.1:{closed_port()}').send_email(
            an_email(), context())
    assert outcome.kind is Kind.deferred
    assert outcome.reason


@pytest.mark.parametrize('provider', HTTP)
def test_a_request_that_was_not_written_whole_is_a_deferral(provider):
    email = an_email(attachments=[{
        'filename': 'large', 'content': base64.b64encode(
            bytes(12_000_000)).decode()}])
    with RawServer(reset_unread) as server:
        outcome = service(provider, server.url).send_email(email, context())
        assert server.complete_requests == 0
    assert outcome.kind is Kind.deferred


@pytest.mark.parametrize('provider', HTTP)
def test_nothing_is_written_once_the_deadline_has_come(provider):
    with Recorder() as server:
        outcome = service(provider, server.url).send_email(
            an_email(), context(-1))
        assert not server.requests
    assert outcome.kind is Kind.deferred


@pytest.mark.parametrize('provider', HTTP)
def test_a_redirect_is_not_followed(provider):
    with Recorder() as other, Recorder() as server:
        other.answer(*DATA[provider]['accepts']['answer'])
        for status in (301, 302, 303, 307, 308):
            server.answer(status, '', {'Location': f'{other.url}/'})
            outcome = service(provider, server.url).send_email(
                an_email(), context())
            assert outcome.kind is Kind.refused and outcome.alert
        assert not other.connections


@pytest.mark.parametrize('provider', HTTP)
def test_an_email_goes_to_the_provider_once(provider):
    with Recorder() as server:
        for status in (500, 503, 429, 408, 401):
            server.answer(status)
            service(provider, server.url).send_email(an_email(), context())
        assert len(server.requests) == 5


@pytest.mark.parametrize('provider', HTTP)
@pytest.mark.parametrize('status', [400, 401, 500, 502])
def test_what_a_provider_echoes_is_masked(provider, status):
    ours = service(provider)
    email = an_email(
        from_name='Secret Name', subject='Secret Subject',
        content='Secret Text', html='<p>Secret Html</p>',
        recipients='Secret Person <ann.ash@example.org>',
        headers={'X-A': 'Secret Header'}, metadata={'k': 'Secret Meta'},
        tags=['SecretTag'], attachments=[
            {'filename': 'Secret.pdf', 'content': 'JVBERi0xLjc='}])
    echo = ' '.join((
        *ours.secrets, 'Secret Name Secret Subject', 'Secret Text',
        '<p>Secret Html</p>', 'Secret Person', 'ann.ash@example.org',
        'Secret Header', 'Secret Meta', 'SecretTag', 'Secret.pdf'))
    with Recorder() as server:
        for body in (echo, {'message': echo}, {'errors': [
                {'message': echo, 'field': echo, 'error_id': echo}]}):
            server.answer(status, body)
            outcome = service(provider, server.url).send_email(
                email, context())
            told = outcome.reason + outcome.code
            assert 'Secret' not in told and 'ann.ash' not in told
            assert not any(secret and secret in told
                           for secret in ours.secrets)
            assert 'a***@example.org' in told


@pytest.mark.parametrize('provider', HTTP)
def test_a_key_is_masked_wherever_it_stands(provider):
    secret = service(provider).secrets[-1]
    with Recorder() as server:
        for length in range(0, 1300, 7):
            server.answer(401, 'x' * length + ' ' + f'{secret} ' * 5)
            outcome = service(provider, server.url).send_email(
                an_email(), context())
            assert secret[:8] not in outcome.reason
            assert len(outcome.reason) <= 300


@pytest.mark.parametrize('provider', HTTP)
def test_a_probe_masks_the_key_and_says_what_is_wrong(provider):
    secret = service(provider).secrets[-1]
    with Recorder() as server:
        server.answer(500, f'{secret} ann@example.org')
        result = service(provider, server.url).probe()
    assert result.ok is False
    assert result.detail == 'HTTP 500: ' + result.detail.partition(': ')[2]
    assert secret not in result.detail and 'ann@' not in result.detail


@pytest.mark.parametrize('provider', HTTP)
def test_a_probe_of_a_provider_that_is_gone_fails_in_time(provider):
    gone = service(provider, f'http://127.0.0.1:{closed_port()}').probe()
    assert gone.ok is False and gone.detail
    with RawServer(hang) as server:
        started = time.monotonic()
        hung = service(provider, server.url, timeout=DEADLINE).probe()
        assert time.monotonic() - started < 2.0
    assert hung.ok is False and hung.detail


@pytest.mark.parametrize('provider', HTTP)
def test_controls_in_an_answer_do_not_reach_the_reason(provider):
    with Recorder() as server:
        server.answer(400, b'a\0b\r\nc\x1b[31m\xff')
        outcome = service(provider, server.url).send_email(
            an_email(), context())
    assert outcome.reason.endswith('a b c [31m\ufffd')


@pytest.mark.parametrize('status, kind', [
    (100, 'uncertain'), (199, 'uncertain'), (226, 'uncertain'),
    (304, 'refused'), (409, 'unsupported'), (420, 'refused'),
    (421, 'deferred'), (425, 'deferred'), (422, 'unsupported'),
    (501, 'uncertain'), (505, 'uncertain'), (522, 'uncertain'),
    (599, 'uncertain'), (600, 'uncertain'), (999, 'uncertain')])
def test_a_status_that_no_sheet_proves_safe_is_uncertain(status, kind):
    outcome = service('sendgrid').interpret(
        Answer(status, {}, b''), an_email(), context())
    assert outcome.kind == kind


@pytest.mark.parametrize('ahead, expected', [
    (0, 1.0), (1, 1.0), (30, 30.0), (600, 600.0), (601, None), (-1, None),
    (3601, None)])
@pytest.mark.parametrize('wrong_by', [0, 86_400, -86_400])
def test_sendgrids_reset_is_counted_by_sendgrids_clock(
        ahead, expected, wrong_by):
    def too_fast(connection, server):
        server.read_request(connection)
        date = formatdate(there, usegmt=True)
        connection.sendall(
            f'HTTP/1.1 429 Too Many\r\nDate: {date}\r\nContent-Length: 0\r\n'
            f'X-RateLimit-Reset: {int(there) + ahead}\r\n\r\n'.encode())

    there = NOW + wrong_by
    with RawServer(too_fast) as server:
        outcome = service('sendgrid', server.url).send_email(
            an_email(), context())
    assert outcome.retry_after == expected
    assert outcome.kind == ('refused' if ahead == 601 else 'deferred')


def test_sendgrids_reset_is_counted_by_our_clock_where_it_has_none():
    answer = Answer(429, {'X-RateLimit-Reset': str(int(NOW) + 42)}, b'')
    outcome = service('sendgrid').interpret(
        answer, an_email(), context())
    assert outcome.retry_after == 42.0


def test_a_proxys_password_and_mailguns_login_are_secrets_too():
    ours = service('mailgun', proxy='http://user:proxy-word@127.0.0.1:1')
    login = base64.b64encode(b'api:key-of-the-tests').decode()
    assert {'proxy-word', 'key-of-the-tests', login} <= set(ours.secrets)


def test_a_large_email_may_take_longer():
    ours = service('sendgrid', timeout=10)
    assert ours.seconds_for(an_email()) == 10
    large = an_email(attachments=[{
        'filename': 'a', 'content': base64.b64encode(
            bytes(5_000_000)).decode()}])
    assert 28 < ours.seconds_for(large) < 30


@pytest.mark.parametrize('provider', HTTP)
def test_a_time_out_is_of_the_monotonic_clock(provider):
    """A wall clock that jumps does not stretch a deadline."""
    jumping = iter(range(0, 10**9, 10**6))
    clock = Clock(lambda: NOW + next(jumping), time.monotonic)
    cls = service_class(provider)
    with Recorder() as server:
        server.answer(*DATA[provider]['accepts']['answer'])
        settings = cls.Settings(
            **DATA[provider]['settings'], base_url=server.url)
        outcome = cls('a', settings, 'example.com', clock).send_email(
            an_email(), SendContext('m', 'a', CLOCK.monotonic() + 5))
    assert outcome.kind is Kind.accepted
