"""Our own services over HTTP, sending to the simulator.

Neither half was written from the other: both are held to the sheets.
"""

import json
from pathlib import Path

import pytest

from stampman.helpers.delivery import Kind
from stampman.helpers.mail import submission
from stampman.services import service_class
from stampman.simulator import Simulator
from test_services import ATTEMPT, CLOCK, HTTP, MESSAGE, an_email, context

EMAILS = json.loads(
    (Path(__file__).parent / 'emails.json').read_text('utf-8'))
OTHER_KEYS = {
    'sendgrid': {'api_key': 'SG.other'}, 'mailgun': {'api_key': 'other'},
    'mandrill': {'api_key': 'other'},
    'amazon_ses': {'secret_access_key': 'other'}}
KINDS = {
    'AUTH': Kind.refused, 'ACCOUNT': Kind.refused,
    'RATE_LIMIT': Kind.deferred, 'UNAVAILABLE': Kind.deferred,
    'RECIPIENT': Kind.rejected, 'SENDER': Kind.rejected,
    'CONTENT': Kind.unsupported, 'PAYLOAD': Kind.unsupported,
    'TOO_LARGE': Kind.unsupported}
# Where a sheet says better: emails of a 5xx were seen to go out; a sender is
# not valid for Mandrill's account, and may be for another provider.
OWN_KINDS = {('mailgun', 'UNAVAILABLE'): Kind.uncertain,
             ('mandrill', 'SENDER'): Kind.refused}


@pytest.fixture(scope='module')
def open_to_all():
    with Simulator(clock=CLOCK) as simulator:
        yield simulator


@pytest.fixture(scope='module')
def running():
    with Simulator(clock=CLOCK, domains=['example.com']) as simulator:
        yield simulator


@pytest.fixture
def simulator(running):
    running.faults.clear()
    running.ledger.clear()
    return running


def service(simulator, provider, domain='example.com', **settings):
    cls = service_class(provider)
    return cls(provider, cls.Settings(**{
        **simulator.services()[provider], **settings}), domain, CLOCK)


def send(simulator, provider, email=None, **more):
    return service(simulator, provider, **more).send_email(
        email or an_email(), context())


@pytest.mark.parametrize('provider', HTTP)
def test_an_email_is_taken_whole_and_bears_our_ids(simulator, provider):
    outcome = send(simulator, provider, an_email(
        recipients=['Ann <ann@example.org>', 'amy@example.org'],
        cc='bob@example.org', bcc='carl@example.org', subject='Grüße',
        content='Hallo', html='<p>Hallo</p>', reply_to='help@example.com',
        tags=['order'], metadata={'order': '7'}, headers={'X-Own': 'yes'},
        attachments=[{'filename': 'a.txt', 'content': 'aGVsbG8=',
                      'content_type': 'text/plain'}]))
    entry, = simulator.ledger.entries(provider)
    assert outcome.kind is Kind.accepted
    assert outcome.provider_message_id in entry.provider_ids or {
        one.provider_message_id for one in outcome.recipients
    } == set(entry.provider_ids)
    assert (entry.stampman_id, entry.stampman_attempt) == (MESSAGE, ATTEMPT)
    assert (entry.sender, entry.subject) == ('shop@example.com', 'Grüße')
    assert [(one.email, one.kind) for one in entry.recipients] == [
        ('ann@example.org', 'to'), ('amy@example.org', 'to'),
        ('bob@example.org', 'cc'), ('carl@example.org', 'bcc')]
    content = simulator.ledger.content(entry.number)
    assert (content['text'].strip(), content['html'].strip()) == (
        'Hallo', '<p>Hallo</p>')


@pytest.mark.parametrize('provider', HTTP)
@pytest.mark.parametrize('case', EMAILS, ids=[one['name'] for one in EMAILS])
def test_every_awkward_email_is_taken_or_never_sent(open_to_all, provider,
                                                    case):
    """A 400 would be our own fault: the simulator is strict."""
    simulator = open_to_all
    simulator.ledger.clear()
    email = submission(case['email']).email()
    outcome = send(simulator, provider, email)
    if not simulator.ledger.entries():
        assert outcome.kind is Kind.unsupported
        assert not simulator.ledger.calls()
        return
    entry, = simulator.ledger.entries()
    assert outcome.kind is Kind.accepted
    assert entry.subject == email.subject
    assert sorted((one.email, one.kind) for one in entry.recipients) == (
        sorted((one.email, kind) for kind, group in (
            ('to', email.recipients), ('cc', email.cc), ('bcc', email.bcc))
            for one in group))


@pytest.mark.parametrize('word', KINDS)
@pytest.mark.parametrize('provider', HTTP)
def test_each_class_of_error_comes_to_its_outcome(simulator, provider, word):
    simulator.faults.add(f'{provider}:error={word}')
    outcome = send(simulator, provider)
    assert outcome.kind is OWN_KINDS.get((provider, word), KINDS[word])
    assert not simulator.ledger.entries()


def test_who_is_suppressed_at_mandrill_is_rejected(simulator):
    simulator.faults.add('mandrill:error=SUPPRESSED')
    assert send(simulator, 'mandrill').kind is Kind.rejected


@pytest.mark.parametrize('provider', HTTP)
def test_a_wrong_key_is_refused(simulator, provider):
    outcome = send(simulator, provider, **OTHER_KEYS[provider])
    assert (outcome.kind, outcome.alert) == (Kind.refused, True)
    assert not simulator.ledger.entries()


@pytest.mark.parametrize('provider', HTTP)
def test_a_sender_s_domain_that_is_not_there_is_refused(simulator, provider):
    outcome = send(simulator, provider, an_email(
        from_email='shop@example.net'), domain='example.net')
    assert (outcome.kind, outcome.domain_only) == (Kind.refused, True)


@pytest.mark.parametrize('provider', HTTP)
@pytest.mark.parametrize('fault, kind, taken', [
    ('hang=0', Kind.uncertain, 0), ('hang=0,took=true', Kind.uncertain, 1),
    ('reset=after', Kind.uncertain, 1), ('close', Kind.uncertain, 0),
    ('garbage,took=true', Kind.uncertain, 1),
    ('truncated', Kind.uncertain, 1), ('drip=0', Kind.accepted, 1),
    ('status=503,took=true', None, 1),
    ('redirect=http://127.0.0.1:1/', Kind.refused, 0)])
def test_what_may_be_taken_is_never_called_refused(
        simulator, provider, fault, kind, taken):
    simulator.faults.add(f'{provider}:{fault}')
    outcome = send(simulator, provider)
    assert outcome.kind is kind or kind is None and outcome.kind in (
        Kind.deferred, Kind.uncertain)
    assert len(simulator.ledger.entries()) == taken
    assert len(simulator.ledger.calls()) == 1


@pytest.mark.parametrize('provider', HTTP)
@pytest.mark.parametrize('fault', ['huge=2000000', 'endless'])
def test_an_answer_without_measure_is_not_read_to_its_end(
        simulator, provider, fault):
    simulator.faults.add(f'{provider}:{fault}')
    assert send(simulator, provider).kind in (Kind.accepted, Kind.uncertain)
    assert len(simulator.ledger.entries()) == 1


def test_mandrill_s_recipients_fare_each_in_its_own_way(simulator):
    simulator.faults.add('mandrill:reject=bob@*')
    outcome = send(simulator, 'mandrill', an_email(recipients=[
        'ann@example.org', 'bob@example.org', 'invalid@example.org']))
    assert {one.email: one.kind for one in outcome.recipients} == {
        'ann@example.org': Kind.accepted, 'bob@example.org': Kind.rejected,
        'invalid@example.org': Kind.rejected}
    assert outcome.kind is Kind.accepted
    entry, = simulator.ledger.entries()
    assert [one.email for one in entry.recipients] == ['ann@example.org']


def test_a_backlog_that_may_never_drain_is_stalled(simulator):
    outcome = send(simulator, 'mandrill', an_email(
        recipients='queued-sending-paused@example.org'))
    assert (outcome.kind, outcome.stalled) == (Kind.accepted, True)
    assert len(simulator.ledger.entries()) == 1


@pytest.mark.parametrize('provider', HTTP)
def test_a_probe_tells_a_key_that_works_from_one_that_does_not(
        simulator, provider):
    assert service(simulator, provider).probe().ok is True
    # Mailgun's key for sending alone looks like a wrong one.
    assert service(simulator, provider, **OTHER_KEYS[provider]).probe().ok is (
        None if provider == 'mailgun' else False)
    assert service(simulator, provider,
                   domain='example.net').probe().ok is not True


@pytest.mark.parametrize('provider', HTTP)
def test_a_probe_passes_where_any_domain_may_send(open_to_all, provider):
    assert service(open_to_all, provider).probe().ok is True
