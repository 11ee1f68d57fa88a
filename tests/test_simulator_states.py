"""How things stand at a provider: a quota that is used up, a limited key."""

import json

import pytest

import simulating
from simulating import basic, call, call_json, mailgun, mandrill, sendgrid
from stampman.helpers.delivery import Kind
from stampman.simulator import Simulator
from test_services import CLOCK, HTTP
from test_simulator_services import send
from test_simulator_ses import ask, kind_of
from test_simulator_ses import send as send_by_ses
from test_simulator_smtp import Client, PLAIN

HELLO = 'EHLO me', 'AUTH PLAIN ' + PLAIN
CODES = [250, 235]


@pytest.fixture(scope='module')
def running():
    with Simulator(keys={'smtp': 'user:right'}, smtp_port=0,
                   domains=['example.com', 'bücher.example']) as simulator:
        yield simulator


@pytest.fixture
def simulator(running):
    running.faults.clear()
    running.ledger.clear()
    return running


def of_sendgrid(simulator, path):
    return call(simulator, 'GET', f'/sendgrid/v3/{path}', headers={
        'Authorization': f'Bearer {simulating.SENDGRID_KEY}'}).json


def of_mandrill(simulator, path):
    return call_json(simulator, f'/mandrill/api/1.4/{path}', {
        'key': simulating.MANDRILL_KEY})


def test_sendgrid_has_no_credits_left(simulator):
    simulator.faults.add('sendgrid:quota')
    got = sendgrid(simulator)
    assert got.status == 401
    assert got.json['errors'][0]['message'] == 'Maximum credits exceeded'
    left = of_sendgrid(simulator, 'user/credits')
    assert (left['remain'], left['used'], left['total']) == (0, 1000, 1000)
    assert not simulator.ledger.entries()


def test_sendgrid_s_key_lacks_the_scope(simulator):
    simulator.faults.add('sendgrid:scope')
    got = sendgrid(simulator)
    assert got.status == 403
    assert got.json['errors'][0]['message'] == 'access forbidden'
    assert 'user.credits.read' in of_sendgrid(simulator, 'scopes')['scopes']
    assert 'mail.send' not in of_sendgrid(simulator, 'scopes')['scopes']


def test_mailgun_s_queue_is_disabled(simulator):
    simulator.faults.add('mailgun:quota')
    got = mailgun(simulator)
    assert (got.status, got.json['message']) == (429, (
        'Domain example.com is not allowed to send: monthly limit exceeded, '
        'try again after 86400 seconds'))
    queues = call(simulator, 'GET',
                  '/mailgun/v3/domains/example.com/sending_queues',
                  headers=basic()).json
    assert queues['regular']['is_disabled'] is True
    assert queues['regular']['disabled']['until'].endswith(' GMT')


def test_amazon_s_quota_of_24_hours_is_used_up(simulator):
    simulator.faults.add('amazon_ses:quota')
    got = send_by_ses(simulator)
    assert (got.status, kind_of(got)) == (400, 'ThrottlingException')
    assert 'Daily message quota exceeded' in got.json['message']
    quota = ask(simulator, 'GET', '/ses/v2/email/account').json['SendQuota']
    assert quota['SentLast24Hours'] == quota['Max24HourSend'] > 0


def test_amazon_s_policy_allows_nothing(simulator):
    simulator.faults.add('amazon_ses:scope')
    for got in (send_by_ses(simulator),
                ask(simulator, 'GET', '/ses/v2/email/account')):
        assert (got.status, kind_of(got)) == (403, 'AccessDeniedException')
    wrong = send_by_ses(simulator, secret='other')
    assert kind_of(wrong) == 'SignatureDoesNotMatch'


def test_mandrill_lets_all_wait(simulator):
    simulator.faults.add('mandrill:quota')
    assert {(one['status'], one['queued_reason'])
            for one in mandrill(simulator).json} == {
        ('queued', 'hourly-quota-exhausted')}
    assert len(simulator.ledger.entries()) == 1
    account = of_mandrill(simulator, 'users/info').json
    assert (account['hourly_quota'], account['backlog']) == (0, 40)


def test_mandrill_s_key_may_call_nothing_but_ping(simulator):
    simulator.faults.add('mandrill:scope')
    for got in (mandrill(simulator), of_mandrill(simulator, 'users/info')):
        assert (got.status, got.json['name']) == (403, 'PermissionDenied')
    assert of_mandrill(simulator, 'users/ping').json == 'PONG!'


def test_the_relay_says_so_to_a_sender(simulator):
    simulator.faults.add('smtp:quota')
    with Client(simulator.smtp) as client:
        client.reply()
        assert client.say_all(*HELLO, 'MAIL FROM:<a@example.com>') == [
            *CODES, 451]
        simulator.faults.clear()
        assert client.say('MAIL FROM:<a@example.com>') == 250


@pytest.mark.parametrize('sender, code', [
    ('a@example.com', 250), ('a@EXAMPLE.com', 250), ('', 250),
    ('a@xn--bcher-kva.example', 250), ('a@bücher.example', 250),
    ('a@example.net', 553), ('a@sub.example.com', 553),
    ('a@[127.0.0.1]', 553), ('a@localhost', 553)])
def test_only_its_own_domains_may_send_by_smtp(simulator, sender, code):
    with Client(simulator.smtp) as client:
        client.reply()
        assert client.say_all(*HELLO, f'MAIL FROM:<{sender}> SMTPUTF8') == [
            *CODES, code]


@pytest.mark.parametrize('provider', HTTP)
def test_our_services_understand_it(provider):
    with Simulator(clock=CLOCK) as simulator:
        simulator.faults.add(f'{provider}:quota')
        outcome = send(simulator, provider)
        if provider == 'mandrill':      # it is taken, and waits there
            assert outcome.kind is Kind.accepted
        else:
            assert (outcome.kind, outcome.alert) == (Kind.refused, True)
            assert 'quota' in outcome.reason
        simulator.faults.clear()
        if provider != 'mailgun':
            simulator.faults.add(f'{provider}:scope')
            outcome = send(simulator, provider)
            assert (outcome.kind, outcome.alert) == (Kind.refused, True)


def test_they_are_switched_on_and_off_while_it_runs(simulator):
    got = call_json(simulator, '/faults', {
        'provider': 'sendgrid', 'what': 'quota'})
    assert (got.status, got.json['on']) == (201, 'any')
    assert [sendgrid(simulator).status for _ in range(2)] == [401, 401]
    call(simulator, 'DELETE', f'/faults/{json.loads(got.body)["number"]}')
    assert sendgrid(simulator).status == 202


@pytest.mark.parametrize('domain', ['not a domain', 'localhost', ''])
def test_a_domain_must_be_one(domain):
    with pytest.raises(ValueError, match='is not a domain name'):
        Simulator(domains=[domain])
