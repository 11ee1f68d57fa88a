"""`stampman check --live`: which key, scope, domain or quota is wrong."""

import pytest

from servers import Recorder, closed_port
from test_cli import CONFIG, POOL, Folder

KEYS = {'STAMPMAN_POOL_KEY': 'pool-key-of-the-tests',
        'STAMPMAN_ADMIN_KEY': 'admin-key-of-the-tests'}
SENDGRID_KEY = 'SG.a-key-of-sendgrid'
MAILGUN_KEY = 'a-key-of-mailgun'
UNAUTHORIZED = {'errors': [{'message': 'authorization required'}]}
FORBIDDEN = {'errors': [{'message': 'access forbidden'}]}

SCOPES = 200, {'scopes': ['mail.send', 'user.credits.read']}
DOMAINS = 200, [{'domain': 'example.com', 'valid': True}]
SENDERS = 200, {'results': []}
CREDITS = 200, {'remain': 900, 'total': 1000, 'overage': 0, 'used': 100,
                'next_reset': '2027-02-01'}
ACTIVE = 200, {'domain': {'name': 'example.com', 'state': 'active'}}
QUEUES = 200, {'regular': {'is_disabled': False},
               'scheduled': {'is_disabled': False}}

# Answers of the two, each in the order of the questions; the exit code; and
# what stands behind `example.com <service>: `.
CASES = {
    'all is well': (
        [SCOPES, DOMAINS, SENDERS, CREDITS], [ACTIVE, QUEUES], 0,
        'ok: the key has the scope mail.send; example.com is authenticated '
        'there; 900 credits are left',
        'ok: example.com is active; its queue is open'),
    'keys that are wrong, which Mailgun does not tell from one that sends': (
        [(401, UNAUTHORIZED)] * 4, [(401, 'Forbidden')] * 2, 1,
        'FAILED: HTTP 401: the key is not valid: authorization required',
        'not proven: HTTP 401: a domain\'s sending key, or a wrong one: '
        'cannot be probed; whether its queue is disabled cannot be known'),
    'keys that may do no more than send': (
        [(200, {'scopes': ['mail.send']})] + [(403, FORBIDDEN)] * 3,
        [(403, {'message': 'Forbidden'})] * 2, 0,
        'ok: the key has the scope mail.send; whether example.com is '
        'authenticated there cannot be known; how many credits are left '
        'cannot be known',
        'not proven: HTTP 403: a domain\'s sending key, or a wrong one: '
        'cannot be probed; whether its queue is disabled cannot be known'),
    'a scope that is missing, a domain that is not there': (
        [(200, {'scopes': ['user.credits.read']}), DOMAINS, SENDERS, CREDITS],
        [(404, {'message': 'Domain not found'})] * 2, 1,
        'FAILED: the key lacks the scope mail.send',
        'FAILED: HTTP 404: example.com is not known there: Domain not found'),
    'domains that are not verified': (
        [SCOPES, (200, [{'domain': 'example.com', 'valid': False}]), SENDERS,
         CREDITS],
        [(200, {'domain': {'state': 'unverified'}}), QUEUES], 1,
        'FAILED: example.com is not authenticated there',
        'FAILED: example.com is unverified'),
    'a quota that is used up, a queue that is disabled': (
        [SCOPES, DOMAINS, SENDERS, (200, {
            'remain': 0, 'total': 100, 'overage': 0, 'used': 100,
            'next_reset': '2027-02-01'})],
        [ACTIVE, (200, {'regular': {'is_disabled': True, 'disabled': {
            'until': 'Mon, 01 Feb 2027 00:00:00 UTC',
            'reason': 'bounce rate'}}})], 1,
        'FAILED: the quota is used up until 2027-02-01',
        'FAILED: the queue of example.com is disabled: until Mon, 01 Feb '
        '2027 00:00:00 UTC: bounce rate'),
}


def checked(tmp_path, sendgrid_url, mailgun_url):
    """Run the check of a pool of the two at these places."""
    folder = Folder(tmp_path)
    folder.configure({**CONFIG, 'pools': [{**POOL, 'services': {
        'sendgrid': {'api_key': SENDGRID_KEY, 'base_url': sendgrid_url},
        'mailgun': {'api_key': MAILGUN_KEY, 'base_url': mailgun_url,
                    'priority': 2}}}]})
    result = folder.run('check', '--live', **KEYS)
    told = result.stdout + result.stderr
    assert 'Traceback' not in told
    assert SENDGRID_KEY not in told and MAILGUN_KEY not in told
    return result


@pytest.mark.parametrize(
    'sendgrid_answers, mailgun_answers, code, of_sendgrid, of_mailgun',
    CASES.values(), ids=CASES)
def test_check_live_says_what_is_wrong_in_one_line_for_each_service(
        tmp_path, sendgrid_answers, mailgun_answers, code, of_sendgrid,
        of_mailgun):
    with Recorder() as sendgrid, Recorder() as mailgun:
        sendgrid.script(*sendgrid_answers)
        mailgun.script(*mailgun_answers)
        result = checked(tmp_path, sendgrid.url, mailgun.url)

    assert result.stdout.splitlines()[1:3] == [
        f'example.com sendgrid: {of_sendgrid}',
        f'example.com mailgun: {of_mailgun}']
    assert result.returncode == code
    unproven = of_mailgun.startswith('not proven: ')
    assert result.stdout.splitlines()[3:] == [
        'The config is valid; not proven: example.com mailgun.' if unproven
        else 'The config is valid.'] * (code == 0)
    assert ('not every provider would serve us' in result.stderr
            ) is (code == 1)
    asked = sendgrid.requests + mailgun.requests
    assert len(asked) == len(sendgrid_answers) + len(mailgun_answers)
    assert {(one.method, one.body) for one in asked} == {('GET', b'')}


def test_check_live_says_who_cannot_be_reached(tmp_path):
    gone = f'http://127.0.0.1:{closed_port()}'
    with Recorder() as mailgun:
        mailgun.script(ACTIVE, QUEUES)
        result = checked(tmp_path, gone, mailgun.url)

    assert result.returncode == 1
    assert 'example.com sendgrid: FAILED: ' in result.stdout
    assert 'refused' in result.stdout.splitlines()[1]
    assert 'example.com mailgun: ok: ' in result.stdout
