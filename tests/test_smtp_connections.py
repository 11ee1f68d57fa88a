"""One connection carries several messages, as long as it is fit for that."""

import gc
import os
import threading

import pytest

from stampman.helpers.delivery import Clock, Kind

from calling import SOON
from fakes import NOW
from servers import RawServer
from smtp_calling import CLOCK, LOGIN, an_email, closing, send, service
from smtp_servers import MailServer, Script


def sent_by(smtp, count):
    return [send(smtp).kind for _ in range(count)]


def test_twenty_messages_go_over_one_connection_and_one_login():
    script = Script()
    with RawServer(script) as server, closing(
            service(server.port, **LOGIN)) as smtp:
        assert sent_by(smtp, 20) == [Kind.accepted] * 20
        assert server.connections == 1
    assert len(script.messages) == 20
    assert [line[:4] for line in script.heard].count('AUTH') == 1


def test_a_server_that_counts_messages_is_asked_again_at_once():
    script = Script(MAIL=['250 Ok'] * 3 + ['421 4.7.0 Too many messages']
                    + ['250 Ok'])
    with RawServer(script) as server, closing(
            service(server.port)) as smtp:
        assert sent_by(smtp, 6) == [Kind.accepted] * 6
        assert server.connections == 2


@pytest.mark.parametrize('end', [
    lambda connection, server: connection.sendall(
        b'250 Ok\r\n421 4.4.2 Idle for too long\r\n'),
    lambda connection, server: connection.sendall(b'250 Ok\r\n')])
def test_a_server_that_closes_between_messages_costs_none(end):
    script = Script(dot=end)
    with RawServer(script) as server, closing(
            service(server.port)) as smtp:
        assert sent_by(smtp, 3) == [Kind.accepted] * 3
        for thread in server.threads:   # the connection has ended there
            thread.join(5)
        assert send(smtp).kind is Kind.accepted
        assert server.connections == 4
    assert len(script.messages) == 4


def test_a_server_that_restarts_between_messages_costs_none():
    with MailServer() as server, closing(service(server.port)) as smtp:
        assert sent_by(smtp, 2) == [Kind.accepted] * 2
        server.restart()
        assert sent_by(smtp, 2) == [Kind.accepted] * 2
        assert server.connections == 2
        assert len(server.mails) == 4


@pytest.mark.parametrize('step, ends, kind, connections', [
    ('MAIL', None, Kind.deferred, 2), ('RCPT', None, Kind.deferred, 2),
    ('DATA', None, Kind.deferred, 2), ('dot', None, Kind.uncertain, 1),
    ('MAIL', '421 4.3.2 Bye', Kind.deferred, 2),
    ('RCPT', '421 4.3.2 Bye', Kind.deferred, 2),
    ('DATA', '421 4.3.2 Bye', Kind.deferred, 2),
    ('dot', '421 4.3.2 Bye', Kind.deferred, 1)])
def test_only_what_was_not_handed_over_is_begun_again(
        step, ends, kind, connections):
    """Over a fresh connection it is an end like any other."""
    script = Script()
    with RawServer(script) as server, closing(service(server.port)) as smtp:
        assert send(smtp).kind is Kind.accepted
        script.replies[step] = ends or (lambda connection, server: None)
        assert send(smtp).kind is kind
        assert server.connections == connections


def test_a_kept_connection_that_is_closed_at_rcpt_costs_nothing():
    script = Script(RCPT=['250 Ok', '250 Ok', '421 4.7.0 Enough', '250 Ok'])
    with RawServer(script) as server, closing(service(server.port)) as smtp:
        assert send(smtp).kind is Kind.accepted
        two = an_email(recipients=['a@example.org', 'b@example.org'])
        assert send(smtp, two).kind is Kind.accepted
        assert server.connections == 2
    assert len(script.messages) == 2


def test_a_connection_that_is_not_kept_any_more_ends_with_quit():
    script = Script()
    with RawServer(script) as server:
        with closing(service(server.port)) as smtp:
            send(smtp)
        for thread in server.threads:
            thread.join(5)
    assert script.heard[-1] == 'QUIT'


def test_a_refusal_over_a_kept_connection_is_not_asked_for_twice():
    script = Script(MAIL=['250 Ok', '550 5.7.1 Not you', '250 Ok'])
    with RawServer(script) as server, closing(
            service(server.port)) as smtp:
        assert send(smtp).kind is Kind.accepted
        assert send(smtp).kind is Kind.refused
        assert server.connections == 1


def test_a_kept_connection_that_hangs_is_not_tried_over():
    script = Script()
    with RawServer(script) as server, closing(
            service(server.port)) as smtp:
        assert send(smtp).kind is Kind.accepted
        script.replies['MAIL'] = lambda _, server: server.stopped.wait()
        outcome = send(smtp, seconds=SOON)
        assert (outcome.kind, outcome.reason) == (
            Kind.deferred, 'MAIL: no reply in time')
        assert server.connections == 1


@pytest.mark.parametrize('idle, connections', [(4.9, 1), (5.0, 2)])
def test_a_connection_is_used_again_only_if_it_was_used_just_now(
        idle, connections):
    passed = [0.0]
    clock = Clock(lambda: NOW, lambda: CLOCK.monotonic() + passed[0])
    with RawServer(Script()) as server, closing(
            service(server.port, clock)) as smtp:
        assert send(smtp).kind is Kind.accepted
        passed[0] += idle
        assert send(smtp, seconds=60).kind is Kind.accepted
        assert server.connections == connections


@pytest.mark.parametrize('step, reply', [
    ('RCPT', '550 5.1.1 No'), ('MAIL', '550 5.7.1 No'),
    ('DATA', '451 4.3.0 No'), ('dot', '554 5.7.1 Spam')])
def test_a_refused_message_leaves_the_connection_to_the_next(step, reply):
    script = Script(**{step: [reply, Script().replies[step]]})
    with RawServer(script) as server, closing(
            service(server.port)) as smtp:
        assert send(smtp).kind is not Kind.accepted
        assert ('RSET' in script.heard) == (step != 'dot')
        assert send(smtp).kind is Kind.accepted
        assert server.connections == 1


@pytest.mark.parametrize('rset', [
    '421 4.3.2 Bye', '500 What?', lambda connection, server: None])
def test_a_connection_that_is_not_reset_is_not_used_again(rset):
    script = Script(RCPT=['550 5.1.1 No', '250 Ok'], RSET=rset)
    with RawServer(script) as server, closing(
            service(server.port)) as smtp:
        assert send(smtp).kind is Kind.rejected
        assert send(smtp).kind is Kind.accepted
        assert server.connections == 2


def test_threads_never_speak_over_the_same_connection():
    with MailServer() as server, closing(service(server.port)) as smtp:
        def work(number):
            for turn in range(5):
                email = an_email(subject=f'{number}/{turn}',
                                 recipients=f'a{number}@example.org')
                outcomes.append((send(smtp, email).kind))

        outcomes = []
        threads = [threading.Thread(target=work, args=(number,))
                   for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert outcomes == [Kind.accepted] * 30
    assert len(server.mails) == 30 and server.connections <= 6
    for mail in server.mails:
        number = mail.recipients[0].partition('@')[0][1:]
        assert f'Subject: {number}/'.encode() in mail.content


def test_a_fork_shares_no_connection():
    with MailServer() as server, closing(service(server.port)) as smtp:
        assert send(smtp).kind is Kind.accepted
        child = os.fork()
        if not child:
            kind = send(smtp).kind
            os._exit(0 if kind is Kind.accepted else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert send(smtp).kind is Kind.accepted
        assert server.connections == 2 and len(server.mails) == 3


def test_a_service_that_is_gone_leaves_no_connection_open():
    script = Script()
    with RawServer(script) as server:
        assert send(service(server.port)).kind is Kind.accepted
        gc.collect()
        server.threads[0].join(5)
        assert not server.threads[0].is_alive()
