"""What a client sees of recipients that fare differently."""

import pytest

from gateway_server import ADMIN_KEY, EMAIL, GatewayServer, config
from readers import read_form
from servers import Recorder

RECIPIENTS = ['ann@example.org', 'bo@example.org', 'cy@example.org']


@pytest.fixture(scope='module')
def mandrill():
    """It takes Ann's, knows Cy to be no address, and has Bo on its list."""
    with Recorder() as recorder:
        recorder.answer(200, [
            {'email': 'ann@example.org', 'status': 'sent', '_id': 'id-ann'},
            {'email': 'bo@example.org', 'status': 'rejected', '_id': 'id-bo',
             'reject_reason': 'soft-bounce'},
            {'email': 'cy@example.org', 'status': 'invalid', '_id': None}])
        yield recorder


@pytest.fixture(scope='module')
def mailgun():
    with Recorder() as recorder:
        recorder.answer(200, {'id': '<id-mailgun@example.com>'})
        yield recorder


@pytest.fixture(scope='module')
def server(tmp_path_factory, mandrill, mailgun):
    with GatewayServer(tmp_path_factory.mktemp('recipients'), config({
            'mandrill': {'api_key': 'md-key', 'base_url': mandrill.url},
            'mailgun': {'api_key': 'mg-key', 'base_url': mailgun.url,
                        'priority': 2}})) as running:
        yield running


def test_the_answer_tells_each_recipient_s_status(server, mailgun):
    reply = server.send({**EMAIL, 'recipients': RECIPIENTS})
    assert reply.status == 200
    assert reply.json['status'] == 'accepted'
    assert reply.json['service_used'] == 'mandrill'
    assert reply.json['services_fail'] == {}
    assert [(one['email'], one['status']) for one
            in reply.json['recipients']] == [
        ('ann@example.org', 'accepted'), ('bo@example.org', 'accepted'),
        ('cy@example.org', 'rejected')]
    assert not reply.json['possible_duplicate']
    fields, [(_, _, _, message)] = read_form(mailgun.requests[-1])
    assert [value for name, value in fields if name == 'to'] == [
        'bo@example.org']
    assert b'To: ann@example.org, bo@example.org, cy@' in message


def test_the_story_tells_whom_each_attempt_was_for(server, browser):
    sent = server.send({**EMAIL, 'recipients': RECIPIENTS}).json
    path = f'/example.com/messages/{sent["id"]}'
    first, second = server.get(path, ADMIN_KEY).json['attempts']
    assert [(one['email'], one['outcome'], one.get('provider_message_id'))
            for one in first['recipients']] == [
        ('ann@example.org', 'accepted', 'id-ann'),
        ('bo@example.org', 'unsupported', 'id-bo'),
        ('cy@example.org', 'rejected', None)]
    assert 'envelope' not in first
    assert second['envelope'] == ['bo@example.org']
    assert second['outcome'] == 'accepted' and 'recipients' not in second
    browser.sign_in()
    text = browser.page(path).text
    assert 'for bo@example.org alone' in text
    assert 'cy@example.org: rejected' in ' '.join(text.split())
