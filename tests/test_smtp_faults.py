"""SMTP servers that break: honest about what was taken, and in time."""

import ssl
import threading
import tracemalloc

import pytest

from stampman.helpers.delivery import Kind

from calling import BOUNDED, PLENTY, SOON
from certificates import Authority
from servers import RawServer, closed_port, reset
from smtp_calling import CLOCK, LOGIN, an_email, closing, send, service
from smtp_servers import EHLO, Script

STEPS = ('greeting', 'EHLO', 'AUTH', 'MAIL', 'RCPT', 'DATA', 'dot')
LARGE = 'x' * 70 + '\n'
EHLO_TLS = EHLO.replace('\r\n', '\r\n250-STARTTLS\r\n', 1)
SOONER = 0.15       # seconds where an early end shows the same


def hang(connection, server):
    server.stopped.wait()


def drip(connection, server):
    """A reply that never ends, a byte at a time."""
    while not server.stopped.wait(0.02):
        connection.sendall(b'2')


def drip_lines(connection, server):
    while not server.stopped.wait(0.01):
        connection.sendall(b'250-more\r\n')


def close(connection, server):
    """Leave the `with` of the server."""


def die(connection, server):
    reset(connection)


def says(data):
    def behave(connection, server):
        connection.sendall(data)
        server.stopped.wait()
    return behave


def endless(piece):
    def behave(connection, server):
        while not server.stopped.is_set():
            connection.sendall(piece)
    return behave


FAULTS = {
    'hangs': hang, 'drips': drip, 'drips lines': drip_lines,
    'closes': close, 'resets': die,
    'says garbage': says(b'\x00\xff\xfe what?\r\n'),
    'speaks HTTP': says(b'HTTP/1.1 200 OK\r\n\r\n'),
    'ends within a line': says(b'250 2.0.0 O'),
    'says a number too long': says(b'2500 Ok\r\n'),
    'says two codes in one': says(b'250-Ok\r\n550 no\r\n'),
    'never ends a line': endless(b'2' * 65_536),
    'never ends a reply': endless(b'250-more\r\n' * 6_000),
    'says 421': '421 4.3.2 Shutting down',
    'says 199': '199 nothing'}


def fate(script, email=None, seconds=SOON, **settings):
    """Return how one message ended before a server, in time."""
    with RawServer(script) as server:
        with closing(service(server.port, **settings)) as smtp:
            began = CLOCK.monotonic()
            outcome = send(smtp, email, seconds)
            took = CLOCK.monotonic() - began
    assert took < seconds + BOUNDED
    assert 'pass-6d0f2c' not in outcome.reason
    return outcome


@pytest.mark.parametrize('step', STEPS)
@pytest.mark.parametrize('fault', FAULTS)
def test_a_server_that_breaks_is_uncertain_behind_the_dot_and_not_before(
        step, fault):
    script = Script(**{step: FAULTS[fault]})
    outcome = fate(script, seconds=SOON if step == 'dot' else SOONER,
                   **LOGIN)
    after = step == 'dot' and fault != 'says 421'
    assert outcome.kind is (Kind.uncertain if after else Kind.deferred)
    assert len(script.messages) == (step == 'dot')
    assert outcome.reason and 'Hello' not in outcome.reason


def test_nobody_there_is_deferred():
    outcome = send(service(closed_port()))
    assert (outcome.kind, outcome.reason) == (
        Kind.deferred, 'no connection to 127.0.0.1: Connection refused')


@pytest.mark.parametrize('found, reason', [
    ([], 'it has no address'), (UnicodeError(), 'not a host name')])
def test_a_name_that_is_not_found_is_deferred(found, reason):
    def resolve(host, port):
        if isinstance(found, Exception):
            raise found
        return found

    outcome = send(service(25, host='mx.example.net',
                           means={'resolve': resolve}))
    assert outcome.kind is Kind.deferred and reason in outcome.reason


def test_a_name_that_is_looked_up_for_ever_ends_by_the_limit():
    answered = threading.Event()
    try:
        began = CLOCK.monotonic()
        outcome = send(service(25, host='mx.example.net', means={
            'resolve': lambda *_: answered.wait(PLENTY) and [],
            'connect_limit': 0.1}))
        assert CLOCK.monotonic() - began < 0.1 + BOUNDED
    finally:
        answered.set()
    assert (outcome.kind, outcome.reason) == (
        Kind.deferred, 'no connection to mx.example.net in time')


@pytest.mark.filterwarnings('ignore:ssl.TLSVersion:DeprecationWarning')
def test_an_old_version_of_tls_is_not_spoken(tmp_path):
    tls = Authority(tmp_path)
    old = tls.server('127.0.0.1', newest=ssl.TLSVersion.TLSv1_1)
    with RawServer(Script(), tls=old) as server:
        outcome = send(service(server.port, tls='tls', **LOGIN,
                               means={'ca_file': tls.file}))
    assert (outcome.kind, outcome.alert) == (Kind.deferred, True)
    assert outcome.reason.startswith('no TLS with 127.0.0.1')


def test_a_deadline_that_has_passed_writes_nothing():
    script = Script()
    with RawServer(script) as server:
        assert send(service(server.port), seconds=-1).kind is Kind.deferred
        assert not server.connections


def test_a_handshake_that_hangs_ends_by_the_limit_of_connecting():
    for tls, script in (('tls', hang), ('starttls', Script(
            EHLO=EHLO_TLS,
            STARTTLS=says(b'220 Ready\r\n')))):
        with RawServer(script) as server:
            began = CLOCK.monotonic()
            outcome = send(service(server.port, tls=tls,
                                   means={'connect_limit': 0.2}))
            assert CLOCK.monotonic() - began < 0.2 + BOUNDED
        assert outcome.kind is Kind.deferred
        assert 'no connection to 127.0.0.1 in time' in outcome.reason


@pytest.mark.parametrize('ehlo', [EHLO, '250 mx', '250-mx\r\n250 STARTTLSX'])
def test_where_tls_is_not_offered_nothing_is_said_in_the_clear(ehlo):
    script = Script(EHLO=ehlo)
    outcome = fate(script, tls='starttls', **LOGIN)
    assert (outcome.kind, outcome.alert) == (Kind.refused, True)
    assert outcome.reason == 'the server offers no STARTTLS'
    assert script.heard == ['EHLO example.com']


@pytest.mark.parametrize('reply', ['454 4.7.0 Not now', '502 No', '354 Go'])
def test_where_tls_is_refused_nothing_is_said_in_the_clear(reply):
    script = Script(EHLO=EHLO_TLS, STARTTLS=reply)
    assert fate(script, tls='starttls', **LOGIN).kind is Kind.deferred
    assert script.heard == ['EHLO example.com', 'STARTTLS']


def test_what_is_said_before_tls_is_not_taken_for_said_over_it(tmp_path):
    """CVE-2011-0411, as a client sees it."""
    tls = Authority(tmp_path)
    context, over_tls = tls.server('127.0.0.1'), []

    def inject(connection, server):
        connection.sendall(b'220 Ready\r\n250 AUTH PLAIN\r\n235 Welcome\r\n')
        with context.wrap_socket(connection, server_side=True) as secured:
            over_tls.append(secured.recv(100))

    script = Script(EHLO=EHLO_TLS, STARTTLS=inject)
    with RawServer(script) as server:
        outcome = send(service(server.port, tls='starttls', **LOGIN,
                               means={'ca_file': tls.file}), seconds=SOON)
    assert (outcome.kind, outcome.alert) == (Kind.deferred, True)
    assert not over_tls


@pytest.mark.parametrize('ehlo, reason', [
    ('250 mx', 'no login that we know'),
    ('250-mx\r\n250 AUTH XOAUTH2 NTLM', 'no login that we know')])
def test_a_server_without_a_login_is_refused(ehlo, reason):
    script = Script(EHLO=ehlo)
    outcome = fate(script, **LOGIN)
    assert (outcome.kind, outcome.alert) == (Kind.refused, True)
    assert reason in outcome.reason
    assert script.heard == ['EHLO example.com']


def test_a_login_is_not_asked_for_ever():
    script = Script(EHLO='250-mx\r\n250 AUTH LOGIN', AUTH='334 ', other='334 ')
    assert fate(script, **LOGIN).kind is Kind.deferred
    assert len(script.heard) == 4


def partly(data=b'', end=hang):
    """Return what reads the beginning of a message, and speaks too soon."""
    def behave(connection, server):
        connection.sendall(b'354 Go ahead\r\n')
        connection.recv(100)
        connection.sendall(data)
        end(connection, server)
    return behave


@pytest.mark.parametrize('data, end, kind', [
    (b'', hang, Kind.deferred), (b'', die, Kind.deferred),
    (b'', close, Kind.deferred),
    (b'552 5.3.4 Too large\r\n', hang, Kind.unsupported),
    (b'552 5.3.4 Too large\r\n', close, Kind.unsupported),
    (b'451 4.3.0 Not now\r\n', hang, Kind.deferred),
    (b'250 2.0.0 Ok: queued as EARLY\r\n', hang, Kind.deferred)])
def test_a_message_that_is_not_whole_is_surely_not_taken(data, end, kind):
    """More than any socket buffers, so that the dot is never written."""
    script = Script(DATA=partly(data, end))
    outcome = fate(script, an_email(content=LARGE * 120_000),
                   seconds=1.0 if end is hang and not data else PLENTY)
    assert outcome.kind is kind
    assert not script.messages


@pytest.mark.parametrize('step', ['greeting', 'EHLO', 'MAIL', 'RCPT', 'DATA'])
def test_a_reply_before_it_is_asked_for_proves_nothing(step):
    """Else a message would be accepted that nobody has read."""
    early = {'DATA': '354 Go ahead\r\n250 2.0.0 Ok: queued as EARLY',
             'greeting': '220 mx\r\n250 Ok'}.get(
                 step, '250 Ok\r\n250 Ok\r\n250 Ok\r\n354 Go\r\n250 Ok')
    script = Script(**{step: early})
    outcome = fate(script)
    assert outcome.kind is Kind.deferred
    assert not script.messages


@pytest.mark.parametrize('fault, reason', [
    ('never ends a line', 'a line of the server\'s reply is too long'),
    ('never ends a reply', 'the server\'s reply does not end')])
def test_a_reply_is_read_only_so_far(fault, reason):
    outcome = fate(Script(dot=FAULTS[fault]), seconds=PLENTY)
    assert (outcome.kind, outcome.reason) == (
        Kind.uncertain, f'the end of the message: {reason}')


def test_the_memory_for_replies_is_bounded():
    script = Script(dot=endless(b'250-' + b'x' * 8_000 + b'\r\n'))
    tracemalloc.start()
    try:
        outcome = fate(script, seconds=PLENTY)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert outcome.kind is Kind.uncertain
    assert peak < 3_000_000


def test_the_time_behind_the_dot_is_longer_than_before_it():
    """A server may take long to look at a message; up to the deadline."""
    script = Script(dot=lambda connection, server: (
        server.stopped.wait(0.6), connection.sendall(b'250 Ok\r\n')))
    assert fate(script, seconds=PLENTY, timeout=0.3).kind is Kind.accepted
    slow = Script(RCPT=hang)
    outcome = fate(slow, seconds=PLENTY, timeout=0.3)
    assert outcome.kind is Kind.deferred
    assert outcome.reason == 'RCPT: no reply in time'
