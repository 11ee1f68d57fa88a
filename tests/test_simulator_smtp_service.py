"""Our own SMTP service, sending to the simulated relay."""

import contextlib

import pytest

from smtp_calling import ATTEMPT, MESSAGE, an_email, closing, send, service
from stampman.helpers.delivery import Kind
from stampman.simulator import Simulator

USER = {'username': 'simulated', 'password': 'simulated-password'}


@contextlib.contextmanager
def playing(*faults, **settings):
    """Yield a simulator, and a service that sends to it."""
    with Simulator(smtp_port=0, faults=faults) as simulator, closing(
            service(simulator.smtp.port, **{**USER, **settings})) as smtp:
        yield simulator, smtp


def test_an_email_stands_in_the_ledger_with_our_ids():
    email = an_email(cc='bob@example.org', bcc='eve@example.net',
                     subject='Grüße', content='.\n..two\nä')
    with playing() as (simulator, smtp):
        outcome = send(smtp, email)
        [entry] = simulator.ledger.entries('smtp')
        text = simulator.ledger.content(entry.number)['text']
    assert outcome.kind is Kind.accepted
    assert outcome.provider_message_id
    assert (entry.stampman_id, entry.stampman_attempt) == (MESSAGE, ATTEMPT)
    assert [(one.email, one.kind) for one in entry.recipients] == [
        ('ann@example.org', 'to'), ('bob@example.org', 'cc'),
        ('eve@example.net', 'bcc')]
    assert entry.subject == 'Grüße'
    assert text.splitlines() == ['.', '..two', 'ä']


@pytest.mark.parametrize('word, kind', [
    ('AUTH', Kind.refused), ('ACCOUNT', Kind.refused),
    ('RATE_LIMIT', Kind.deferred), ('UNAVAILABLE', Kind.deferred),
    ('RECIPIENT', Kind.rejected), ('SUPPRESSED', Kind.rejected),
    ('SENDER', Kind.rejected), ('CONTENT', Kind.unsupported),
    ('PAYLOAD', Kind.unsupported), ('TOO_LARGE', Kind.unsupported)])
def test_each_class_of_error_comes_to_its_outcome(word, kind):
    with playing(f'smtp:error={word}') as (simulator, smtp):
        assert send(smtp).kind is kind
        assert not simulator.ledger.entries()


@pytest.mark.parametrize('fault, kind, taken', [
    ('close', Kind.uncertain, 0), ('close,took=true', Kind.uncertain, 1),
    ('reset=after', Kind.uncertain, 1), ('garbage', Kind.uncertain, 0),
    ('reset=before', Kind.deferred, 0), ('close,stage=data', Kind.deferred, 0),
    ('close,stage=connect', Kind.deferred, 0),
    ('drip=0.001', Kind.accepted, 1)])
def test_only_what_the_dot_has_ended_may_be_taken(fault, kind, taken):
    with playing(f'smtp:{fault}') as (simulator, smtp):
        assert send(smtp).kind is kind
        assert len(simulator.ledger.entries()) == taken


def test_a_wrong_password_is_refused_and_nothing_is_sent():
    with playing(password='wrong') as (simulator, smtp):
        assert send(smtp).kind is Kind.refused
        assert smtp.probe().ok is False
        assert not simulator.ledger.entries()


def test_recipients_fare_as_the_relay_says():
    email = an_email(recipients=[
        'ann@example.org', 'eve@example.net', 'later@example.org'])
    with playing('smtp:reject=*@example.net', 'smtp:defer=later@*') as (
            simulator, smtp):
        outcome = send(smtp, email)
        [entry] = simulator.ledger.entries()
    assert outcome.kind is Kind.accepted
    assert [one.kind for one in outcome.recipients] == [
        Kind.accepted, Kind.rejected, Kind.deferred]
    assert [one.email for one in entry.recipients] == ['ann@example.org']
