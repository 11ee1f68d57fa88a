"""`stampman check --live` of all providers, against the simulator."""

import pytest

from stampman.simulator import Simulator

from test_check_live import KEYS
from test_cli import CONFIG, POOL, Folder

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


@pytest.fixture(scope='module')
def simulator():
    with Simulator(domains=['example.com'], smtp_port=0) as running:
        yield running


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
        lines[place.rpartition(' ')[2]] = told
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
    for name in ('sendgrid', 'mailgun', 'amazon_ses', 'mandrill'):
        assert lines[name].startswith('FAILED: '), lines[name]
        assert 'example.net' in lines[name]


def test_an_outage_is_told_and_no_mail_is_sent(tmp_path, simulator):
    simulator.faults.add('*:status=503,on=any')
    try:
        code, lines = checked(tmp_path, simulator)
    finally:
        simulator.faults.clear()
    assert code == 1
    for name in ('sendgrid', 'mailgun', 'amazon_ses', 'mandrill'):
        assert lines[name].startswith('FAILED: HTTP 503'), lines[name]
    assert not simulator.ledger.entries()
