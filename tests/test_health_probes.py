"""What a probe has to say before a service that was refused comes back."""

import time

import pytest

from stampman.health import Health
from stampman.helpers.delivery import Clock
from stampman.services import service_class
from stampman.services.base import ProbeResult, all_of
from stampman.store import open_store
from stampman.store.base import HealthRow

from fakes import NOW, ScriptedService, Time, outcome
from servers import RawServer, Recorder

REFUSED = outcome('refused', reason='HTTP 401')
DOMAIN_REFUSED = outcome('refused', reason='HTTP 403', domain_only=True)
GOOD = ProbeResult(True, 'well')
UNKNOWN = ProbeResult(None, 'cannot be known')
BAD_KEY = ProbeResult(False, 'the key is not valid')
BAD_DOMAIN = ProbeResult(False, 'not authenticated', domain_only=True)


class ProbedService(ScriptedService):
    """One service of an account that several pools share."""

    def __init__(self, domain, result):
        super().__init__('one', domain=domain)
        self.result = result

    def probe(self):
        return self.result


@pytest.fixture
def world(tmp_path):
    """A clock, and the health of all accounts in a store."""
    moment = Time()
    store = open_store(f'sqlite:///{tmp_path / "health.db"}')
    store.migrate()
    health = Health(store, moment.clock, lambda: 0.5, HealthRow,
                    lambda key: None)
    yield moment, health
    store.close()


def refused_and_rested(world, service, result):
    """Refuse `service`, let the rest pass, and probe it."""
    moment, health = world
    health.record(health.permit(service), result)
    assert health.permit(service) is None
    moment.pass_by(3601.0)
    health.probe(service)


@pytest.mark.parametrize('refusal, probed, admitted', [
    (REFUSED, GOOD, True), (REFUSED, UNKNOWN, True), (REFUSED, BAD_KEY, False),
    (REFUSED, BAD_DOMAIN, True),
    (DOMAIN_REFUSED, GOOD, True), (DOMAIN_REFUSED, UNKNOWN, True),
    (DOMAIN_REFUSED, BAD_KEY, False), (DOMAIN_REFUSED, BAD_DOMAIN, False)])
def test_only_what_was_refused_must_be_well_again(
        world, refusal, probed, admitted):
    service = ProbedService('example.com', probed)
    refused_and_rested(world, service, refusal)
    assert (world[1].permit(service) is not None) is admitted


def test_a_domain_that_is_not_verified_keeps_no_other_pool_waiting(world):
    unverified = ProbedService('new.example', BAD_DOMAIN)
    verified = ProbedService('example.com', GOOD)
    assert unverified.account == verified.account
    refused_and_rested(world, unverified, REFUSED)
    assert world[1].permit(verified) is not None


@pytest.mark.parametrize('parts, whole', [
    ((GOOD, UNKNOWN), (True, 'well; cannot be known', False)),
    ((UNKNOWN, GOOD), (None, 'cannot be known; well', False)),
    ((GOOD, BAD_DOMAIN), (False, 'not authenticated', True)),
    ((BAD_KEY, BAD_DOMAIN, UNKNOWN),
     (False, 'the key is not valid; not authenticated', False))])
def test_a_probe_of_several_parts_tells_all_that_is_wrong(parts, whole):
    assert all_of(*parts) == whole


REAL = Clock(lambda: NOW, time.monotonic)
FIRST_ANSWERS = {
    'sendgrid': b'{"scopes": ["mail.send"]}',
    'mailgun': b'{"domain": {"state": "active"}}'}


@pytest.mark.parametrize('provider', FIRST_ANSWERS)
def test_a_later_part_that_is_not_answered_is_only_not_known(provider):
    """The first question is answered, and no other ever."""
    body = FIRST_ANSWERS[provider]

    def answer_once(connection, server):
        if server.connections == 1 and server.read_request(connection):
            connection.sendall(b'HTTP/1.1 200 OK\r\nConnection: close\r\n'
                               b'Content-Length: %d\r\n\r\n' % len(body)
                               + body)
        else:
            server.stopped.wait(10.0)

    cls = service_class(provider)
    with RawServer(answer_once) as server:
        settings = cls.Settings(api_key='a-key-of-the-tests', timeout=0.5,
                                base_url=server.url)
        began = time.monotonic()
        result = cls('one', settings, 'example.com', REAL).probe()
        assert time.monotonic() - began < 3.0
    assert result.ok is True
    assert 'cannot be known' in result.detail


def test_a_single_sender_is_found_among_very_many():
    others = [{'id': number, 'from_email': f'a{number}@other.example',
               'nickname': 'x' * 200, 'verified': True, 'locked': False}
              for number in range(1000)]
    cls = service_class('sendgrid')
    with Recorder() as server:
        server.script((200, FIRST_ANSWERS['sendgrid']), (200, []), (
            200, {'results': [*others, {'from_email': 'shop@example.com',
                                        'verified': True}]}))
        server.answer(403)
        settings = cls.Settings(api_key='a-key-of-the-tests',
                                base_url=server.url)
        result = cls('one', settings, 'example.com', REAL).probe()
    assert result.ok is True
    assert 'single senders of it are' in result.detail


@pytest.mark.parametrize('provider', FIRST_ANSWERS)
def test_words_of_a_probe_are_masked(provider):
    echo = 'a-key-of-the-tests ann.ash@example.org\r\nX: y'
    cls = service_class(provider)
    with Recorder() as server:
        server.script((200, FIRST_ANSWERS[provider]))
        server.answer(200, {'remain': 0, 'overage': 0, 'next_reset': echo,
                            'regular': {'is_disabled': True, 'disabled': {
                                'until': echo, 'reason': echo * 50}}})
        settings = cls.Settings(api_key='a-key-of-the-tests',
                                base_url=server.url)
        result = cls('one', settings, 'example.com', REAL).probe()
    assert result.ok is False and '[secret]' in result.detail
    assert 'ann.ash' not in result.detail and '\n' not in result.detail
    assert 'a-key-of' not in result.detail and len(result.detail) <= 300
