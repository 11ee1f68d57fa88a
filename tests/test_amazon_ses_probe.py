"""Amazon SES's probe: which domain speaks for the pool's, and in words."""

import time
from urllib.parse import unquote

import pytest

from stampman.helpers.delivery import Clock
from stampman.services import service_class

from servers import Recorder
from test_check_live import KEYS
from test_cli import CONFIG, POOL, Folder
from test_services import DATA, NOW

ACCOUNT = 200, {'SendingEnabled': True, 'ProductionAccessEnabled': True}
SANDBOX = 200, {'SendingEnabled': True, 'ProductionAccessEnabled': False}
VERIFIED = 200, {'VerifiedForSendingStatus': True}
PENDING = 200, {'VerifiedForSendingStatus': False}
UNKNOWN = 404, {'__type': 'NotFoundException'}
TOO_FAST = 429, {'__type': 'TooManyRequestsException'}
FORBIDDEN = 403, {'__type': 'AccessDeniedException'}
REJECTING = 200, {'VerifiedForSendingStatus': True, 'MailFromAttributes': {
    'MailFromDomain': 'bounce.example.com', 'MailFromDomainStatus': 'FAILED',
    'BehaviorOnMxFailure': 'REJECT_MESSAGE'}}


@pytest.fixture
def server():
    with Recorder() as recorder:
        yield recorder


def probed(server, domain, *answers):
    """Return the result of a probe, and the domains that were asked for."""
    server.script(ACCOUNT, *answers)
    cls = service_class('amazon_ses')
    settings = cls.Settings(
        **DATA['amazon_ses']['settings'], base_url=server.url)
    result = cls('a', settings, domain, Clock(
        lambda: NOW, time.monotonic)).probe()
    account, *others = (unquote(sent.path) for sent in server.requests)
    assert account == '/v2/email/account'
    return result, [path.removeprefix('/v2/email/identities/')
                    for path in others]


@pytest.mark.parametrize('domain, asked', [
    ('example.com', ['example.com']),
    ('localhost', ['localhost']),
    ('mail.example.com', ['mail.example.com', 'example.com']),
    ('a.mail.example.com', ['a.mail.example.com', 'mail.example.com',
                            'example.com']),
    ('a.b.mail.example.com', ['a.b.mail.example.com', 'mail.example.com',
                              'example.com'])])
def test_a_probe_asks_for_the_domains_above_where_there_are_any(
        domain, asked, server):
    result, found = probed(server, domain, *[VERIFIED] * len(asked))
    assert found == asked
    assert result.ok is True
    assert result.detail == f'the account may send; {domain} is verified'


@pytest.mark.parametrize('domain, answers, ok, detail', [
    ('mail.example.com', [UNKNOWN, VERIFIED], True,
     'the account may send; mail.example.com is not known there; '
     'example.com is verified'),
    ('mail.example.com', [VERIFIED, PENDING], True,
     'the account may send; mail.example.com is verified'),
    ('mail.example.com', [PENDING, VERIFIED], False,
     'mail.example.com is not verified'),
    ('mail.example.com', [UNKNOWN, PENDING], False,
     'mail.example.com is not known there; example.com is not verified'),
    ('mail.example.com', [UNKNOWN, UNKNOWN], False,
     'mail.example.com is not known there, nor one above it'),
    ('mail.example.com', [UNKNOWN, REJECTING], False,
     'mail.example.com is not known there; the MAIL FROM domain of '
     'example.com is not set up'),
    ('mail.example.com', [UNKNOWN, TOO_FAST], None,
     'mail.example.com is not known there; cannot be known now: too many '
     'requests; the account may send'),
    ('mail.example.com', [UNKNOWN, FORBIDDEN], None,
     'the IAM policy does not allow ses:GetEmailIdentity; the account may '
     'send'),
    ('mail.example.com', [UNKNOWN, (503, b'')], None,
     'mail.example.com is not known there; whether example.com is verified '
     'cannot be known; the account may send'),
    ('a.mail.example.com', [UNKNOWN, UNKNOWN, VERIFIED], True,
     'the account may send; a.mail.example.com is not known there; '
     'example.com is verified'),
    ('a.mail.example.com', [UNKNOWN, PENDING, VERIFIED], False,
     'a.mail.example.com is not known there; mail.example.com is not '
     'verified'),
    ('a.mail.example.com', [UNKNOWN] * 3, False,
     'a.mail.example.com is not known there, nor one above it'),
    ('a.b.mail.example.com', [UNKNOWN] * 3, None,
     'a.b.mail.example.com is not known there: it can be sent from if one '
     'above it is verified; the account may send')])
def test_the_nearest_domain_that_is_known_speaks_for_those_below(
        domain, answers, ok, detail, server):
    result, _ = probed(server, domain, *answers)
    assert result.ok is ok and result.detail.endswith(detail)
    assert result.domain_only is (ok is False)


def test_a_check_tells_of_the_sandbox_and_passes(tmp_path, server):
    server.script(SANDBOX, VERIFIED)
    folder = Folder(tmp_path)
    folder.configure({**CONFIG, 'pools': [{**POOL, 'services': {
        'amazon_ses': {**DATA['amazon_ses']['settings'],
                       'base_url': server.url}}}]})
    result = folder.run('check', '--live', **KEYS)
    assert result.returncode == 0, result.stderr
    assert ('example.com amazon_ses: ok: the account may send; in the '
            'sandbox: only to verified recipients; example.com is verified'
            ) in result.stdout
