"""`stampman check --live` of all providers, against the simulator."""

import pytest

from stampman.simulator import Simulator

from test_check_live import KEYS
from test_cli import CONFIG, POOL, Folder

pytestmark = pytest.mark.long

WELL = ('sendgrid', 'mailgun', 'amazon_ses', 'mandrill', 'smtp')
# The settings that are wrong, and what is said of the service then.
WRONG = {
    'sendgrid': ({'api_key': 'SG.other'}, 'the key is not valid'),
    'amazon_ses': ({'secret_access_key': 'other-secret'},
                   'the access key or its secret is wrong'),
    'mandrill': ({'api_key': 'another-key'}, 'the key is not valid'),
    'smtp': ({'password': 'another-password'},
             'the login is refused'),
}
# What each says once its quota is used up, or its key lacks something.
USED_UP = {
    'sendgrid': 'FAILED: the quota is used up until 2026-02-01',
    'mailgun': 'FAILED: the queue of example.com is disabled: until ',
    'amazon_ses': 'FAILED: the quota is used up: 50000 of 50000 emails in 24 '
                  'hours',
    'mandrill': 'FAILED: the quota is used up: 40 emails wait',
    'smtp': 'FAILED: MAIL: 451: the quota is used up: ',
}
LIMITED = {
    'sendgrid': 'FAILED: the key lacks the scope mail.send',
    'mailgun': 'ok: ',
    'amazon_ses': 'not proven: cannot be known: the IAM policy does not '
                  'allow ses:GetAccount; ',
    'mandrill': 'not proven: HTTP 403: the key may not ask that: ',
    'smtp': 'ok: ',
}


@pytest.fixture(scope='module')
def running():
    with Simulator(domains=['example.com'], smtp_port=0) as simulator:
        yield simulator


@pytest.fixture
def simulator(running):
    running.faults.clear()
    return running


def checked(folder, simulator, domain='example.com', wrong={}):
    """Return the exit code, and the line about each service."""
    services = {name: {**settings, **wrong.get(name, {})}
                for name, settings in simulator.services().items()}
    there = Folder(folder)
    there.configure({**CONFIG, 'pools': [
        {**POOL, 'domain': domain, 'services': services}]})
    result = there.run('check', '--live', **KEYS)
    lines = {}
    for line in result.stdout.splitlines():
        place, _, told = line.partition(': ')
        lines[place.removeprefix(f'{domain} ')] = told
    return result.returncode, lines


def test_all_are_well(tmp_path, simulator):
    code, lines = checked(tmp_path, simulator)
    assert code == 0
    assert all(lines[name].startswith('ok: ') for name in WELL), lines
    assert not simulator.ledger.entries()


def test_a_wrong_credential_is_named(tmp_path, simulator):
    code, lines = checked(tmp_path, simulator, wrong={
        name: settings for name, (settings, _) in WRONG.items()})
    assert code == 1
    for name, (_, said) in WRONG.items():
        assert lines[name].startswith('FAILED: ') and said in lines[name]


def test_a_domain_that_is_not_there_is_named(tmp_path, simulator):
    code, lines = checked(tmp_path, simulator, domain='example.net')
    assert code == 1
    for name in WELL:
        assert lines[name].startswith('FAILED: '), lines[name]
        assert 'example.net' in lines[name]


def test_a_domain_may_be_given_in_its_own_letters(tmp_path):
    with Simulator(domains=['Bücher.example'], smtp_port=0) as simulator:
        code, lines = checked(tmp_path, simulator, 'xn--bcher-kva.example')
    assert code == 0
    assert all(lines[name].startswith('ok: ') for name in WELL), lines


@pytest.mark.parametrize('state, said', [
    ('quota', USED_UP), ('scope', LIMITED)])
def test_a_quota_and_a_scope_are_named(tmp_path, simulator, state, said):
    simulator.faults.add(f'*:{state}')
    code, lines = checked(tmp_path, simulator)
    assert code == 1
    for name in WELL:
        assert lines[name].startswith(said[name]), lines[name]
    assert not simulator.ledger.entries()


def test_a_quota_is_named_where_no_question_is_answered(tmp_path, simulator):
    simulator.faults.add('sendgrid:error=ACCOUNT,on=any')
    simulator.faults.add('mailgun:error=ACCOUNT,on=any')
    code, lines = checked(tmp_path, simulator)
    assert code == 1
    assert lines['sendgrid'].startswith(
        'FAILED: HTTP 401: the quota is used up: ')
    assert lines['mailgun'].startswith(
        'FAILED: HTTP 403: Domain example.com is not allowed to send: ')


def test_who_is_throttled_is_not_proven_and_nothing_is_wrong(
        tmp_path, simulator):
    simulator.faults.add('*:error=RATE_LIMIT,on=any')
    code, lines = checked(tmp_path, simulator)
    assert code == 0
    for name in WELL[:4]:
        assert lines[name].startswith(
            'not proven: cannot be known now: too many requests')
    assert lines['smtp'].startswith('not proven: MAIL: 454: ')
    assert lines['The config is valid; not proven'] == ', '.join(
        f'example.com {name}' for name in WELL) + '.'


def test_an_outage_is_told_and_no_mail_is_sent(tmp_path, simulator):
    simulator.faults.add('*:status=503,on=any')
    code, lines = checked(tmp_path, simulator)
    assert code == 1
    for name in ('sendgrid', 'mailgun', 'amazon_ses', 'mandrill'):
        assert lines[name].startswith('FAILED: HTTP 503'), lines[name]
    assert not simulator.ledger.entries()
