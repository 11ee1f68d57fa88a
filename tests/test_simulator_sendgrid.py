"""The simulated SendGrid takes what the sheet lets it take."""

import pytest

import simulating
from simulating import SENDGRID_KEY, call, call_json, sendgrid
from stampman.simulator import Simulator

ANN = {'email': 'ann@example.net'}
FILE = {'content': 'aGVsbG8=', 'filename': 'a.txt', 'type': 'text/plain'}


@pytest.fixture(scope='module')
def simulator():
    with Simulator() as running:
        yield running


def get(simulator, path, key=SENDGRID_KEY):
    return call(simulator, 'GET', f'/sendgrid{path}',
                headers={'Authorization': f'Bearer {key}'})


def test_a_good_mail_is_taken_and_has_an_id(simulator):
    simulator.ledger.clear()
    got = sendgrid(simulator)
    assert (got.status, got.body) == (202, b'')
    entry, = simulator.ledger.entries('sendgrid')
    assert entry.provider_ids == (got.headers['x-message-id'],)
    assert (entry.stampman_id, entry.stampman_attempt) == (
        'message-1', 'attempt-1')
    assert entry.sender == 'shop@example.com'
    assert [(one.email, one.kind) for one in entry.recipients] == [
        ('ann@example.net', 'to'), ('bob@example.net', 'cc'),
        ('carl@example.net', 'bcc')]
    assert entry.subject == 'Your order'
    assert entry.size > 300
    assert simulator.ledger.content(entry.number) == {
        'text': 'It is sent.', 'html': '<p>It is sent.</p>'}


@pytest.mark.parametrize('changes', [
    {'reply_to': ANN}, {'reply_to_list': [ANN]}, {'send_at': 1},
    {'attachments': [FILE]}, {'categories': ['a', 'b']},
    {'attachments': [{**FILE, 'disposition': 'inline', 'content_id': 'i'}]},
    {'headers': {'X-Own': 'yes'}},
    {'tracking_settings': {'open_tracking': {'enable': False}}}])
def test_what_the_sheet_allows_is_taken(simulator, changes):
    assert sendgrid(simulator, **changes).status == 202


@pytest.mark.parametrize('key', ['SG.other', '', 'sg.simulated'])
def test_another_key_is_401(simulator, key):
    got = sendgrid(simulator, key=key)
    assert got.status == 401
    assert got.json['errors'] == [{
        'message': 'The provided authorization grant is invalid, expired, '
                   'or revoked', 'field': None, 'help': None}]


@pytest.mark.parametrize('field, told', [
    ('personalizations', 'personalizations'), ('from', 'from.email'),
    ('subject', 'subject'), ('content', 'content')])
def test_each_required_field_is_missed(simulator, field, told):
    got = sendgrid(simulator, without=(field,))
    assert got.status == 400
    assert told in [error['field'] for error in got.json['errors']]


def group(**changes):
    return {'personalizations': [{'to': [ANN], **changes}]}


def content(*pairs):
    return {'content': [{'type': kind, 'value': value}
                        for kind, value in pairs]}


@pytest.mark.parametrize('changes, field', [
    (group(to=[]), 'personalizations.0.to'),
    ({'personalizations': ['ann@example.net']}, 'personalizations.0'),
    (group(to=['ann@example.net']), 'personalizations.0.to.0'),
    (group(recipients=[ANN]), 'personalizations.0.recipients'),
    (group(to=[{'email': 'nobody'}]), 'personalizations.0.to.0.email'),
    (group(bcc=[{'email': 'ANN@example.net'}]), 'personalizations.0.bcc'),
    (group(cc=[]), 'personalizations.0.cc'),
    (group(to=[{'email': f'u{n}@example.net'} for n in range(1001)]),
     'personalizations'),
    (group(to=[{**ANN, 'name': 'Ann; or Bob'}]),
     'personalizations.0.to.0.name'),
    ({'from': {'email': 'shop'}}, 'from.email'),
    ({'from': {'email': 'shöp@example.com'}}, 'from.email'),
    ({'subject': ''}, 'subject'),
    ({'content': []}, 'content'), ({'content': ['text']}, 'content.0'),
    (content(('', 'text')), 'content.0.type'),
    ({'attachments': ['file']}, 'attachments.0'),
    ({'attachments': [{**FILE, 'disposition': 'hidden'}]},
     'attachments.0.disposition'),
    (content(('text/plain', '')), 'content.0.value'),
    (content(('text/html', 'a'), ('text/plain', 'b')), 'content'),
    (content(('text/calendar', 'a'), ('text/html', 'b')), 'content'),
    ({'custom_args': {'number': 1}}, None),
    ({'custom_args': {'long': 'x' * 10_000}}, 'custom_args'),
    ({'headers': {'Reply-To': 'a'}}, 'headers.Reply-To'),
    ({'headers': {'received': 'a'}}, 'headers.received'),
    ({'headers': {'X-Number': 1}}, 'headers.X-Number'),
    ({'categories': [str(n) for n in range(11)]}, 'categories'),
    ({'categories': ['a', 'a']}, 'categories'),
    ({'categories': ['a' * 256]}, 'categories'),
    ({'reply_to': ANN, 'reply_to_list': [ANN]}, 'reply_to_list'),
    ({'reply_to_list': []}, 'reply_to_list'),
    ({'reply_to_list': [ANN, ANN]}, 'reply_to_list'),
    ({'attachments': [{**FILE, 'content': '%'}]}, 'attachments.0.content'),
    ({'attachments': [{**FILE, 'content': ''}]}, 'attachments.0.content'),
    ({'attachments': [{'content': 'aGVsbG8='}]}, 'attachments.0.filename'),
    ({'attachments': [{**FILE, 'type': 'a/b; c=d'}]}, 'attachments.0.type'),
    ({'attachments': [{**FILE, 'content_id': '<i>'}]},
     'attachments.0.content_id'),
    ({'tracking_settings': {'open_tracking': {'enable': 'no'}}},
     'tracking_settings.open_tracking.enable'),
    ({'send_at': 99_999_999_999}, 'send_at'),
    ({'recipients': []}, 'recipients'), ({'subject': 1}, 'subject')])
def test_what_is_wrong_is_400_and_named(simulator, changes, field):
    before = len(simulator.ledger.entries())
    got = sendgrid(simulator, **changes)
    assert got.status == 400
    assert field in [error['field'] for error in got.json['errors']]
    assert len(simulator.ledger.entries()) == before


def test_the_sandbox_validates_and_takes_nothing(simulator):
    before = len(simulator.ledger.entries())
    sandbox = {'mail_settings': {'sandbox_mode': {'enable': True}}}
    assert sendgrid(simulator, **sandbox).status == 200
    assert sendgrid(simulator, without=('from',), **sandbox).status == 400
    assert len(simulator.ledger.entries()) == before


def test_a_mail_of_30_mb_is_too_large(simulator):
    got = sendgrid(simulator, **content(('text/plain', 'x' * 30_000_000)))
    assert got.status == 413


@pytest.mark.parametrize('method, path, headers, status', [
    ('POST', '/v3/mail', {}, 404), ('GET', '/v3/mail/send', {}, 405),
    ('POST', '/v3/mail/send', {'Accept': 'text/html'}, 406),
    ('POST', '/v3/mail/send', {'Content-Type': 'text/plain'}, 415)])
def test_a_wrong_call_is_told_apart(simulator, method, path, headers, status):
    got = call(simulator, method, f'/sendgrid{path}', b'{}', {
        'Authorization': f'Bearer {SENDGRID_KEY}', **headers})
    assert got.status == status
    assert got.json['errors']


def test_the_probes_answer(simulator):
    assert 'mail.send' in get(simulator, '/v3/scopes').json['scopes']
    assert get(simulator, '/v3/user/credits').json['remain'] == 1000
    assert get(simulator, '/v3/user/account').json['type'] == 'paid'
    assert get(simulator, '/v3/verified_senders').json == {'results': []}
    domain, = get(
        simulator, '/v3/whitelabel/domains?domain=example.com').json
    assert (domain['domain'], domain['valid']) == ('example.com', True)
    assert get(simulator, '/v3/scopes', 'SG.other').status == 401


def test_a_restricted_key_knows_its_scopes_and_nothing_else():
    with Simulator(scopes=['mail.send']) as simulator:
        assert get(simulator, '/v3/scopes').json == {'scopes': ['mail.send']}
        assert get(simulator, '/v3/user/credits').status == 403
        assert sendgrid(simulator).status == 202
    with Simulator(scopes=['user.credits.read']) as simulator:
        got = sendgrid(simulator)
        assert got.status == 403
        assert got.json['errors'][0]['message'] == 'access forbidden'


def test_another_sender_domain_is_not_verified():
    with Simulator(domains=['Example.org']) as simulator:
        got = sendgrid(simulator)
        assert got.status == 403
        assert got.json['errors'][0]['field'] == 'from'
        assert 'Sender Identity' in got.json['errors'][0]['message']
        assert sendgrid(simulator, **{
            'from': {'email': 'a@example.org'}}).status == 202
        assert get(simulator, '/v3/whitelabel/domains?domain=example.com'
                   ).json == []


def test_what_is_no_json_is_an_opaque_400(simulator):
    for body in (b'', b'[]', b'{"a": NaN}', b'{"from": 1, "from": 2}'):
        got = call(simulator, 'POST', simulating.SENDGRID_PATH, body, {
            'Authorization': f'Bearer {SENDGRID_KEY}',
            'Content-Type': 'application/json'})
        assert got.status == 400
        assert got.json['errors'][0]['field'] is None


def test_a_mail_of_several_envelopes_lists_all_recipients(simulator):
    simulator.ledger.clear()
    got = call_json(simulator, simulating.SENDGRID_PATH, {
        **simulating.SENDGRID_MAIL, 'personalizations': [
            {'to': [ANN]}, {'to': [{'email': 'bob@example.net'}]}]},
        Authorization=f'Bearer {SENDGRID_KEY}')
    assert got.status == 202
    entry, = simulator.ledger.entries()
    assert [one.email for one in entry.recipients] == [
        'ann@example.net', 'bob@example.net']
