"""The simulated Mailgun takes what the sheet lets it take."""

import re
from urllib.parse import urlencode

import pytest
import requests

import simulating
from simulating import MAILGUN_FORM, basic, call, changed, mailgun
from stampman.simulator import Simulator

FORM_TYPE = {'Content-Type': 'application/x-www-form-urlencoded'}


@pytest.fixture(scope='module')
def simulator():
    with Simulator(domains=['example.com']) as running:
        yield running


@pytest.fixture
def ledger(simulator):
    simulator.ledger.clear()
    return simulator.ledger


def get(simulator, path, key=simulating.MAILGUN_KEY):
    return call(simulator, 'GET', f'/mailgun{path}', headers=basic(key))


def mime(simulator, fields=(('to', 'ann@example.net'),),
         message=simulating.MIME, name='message', file='m.eml'):
    return mailgun(simulator, fields, [(name, file, message)],
                   path='/mailgun/v3/example.com/messages.mime')


def test_a_good_form_is_taken_and_has_an_id(simulator, ledger):
    got = mailgun(simulator)
    assert got.status == 200
    assert got.json['message'] == 'Queued. Thank you.'
    assert re.fullmatch('<[^<>@]+@example.com>', got.json['id'])
    entry, = ledger.entries('mailgun')
    assert entry.provider_ids == (got.json['id'].strip('<>'),)
    assert (entry.stampman_id, entry.stampman_attempt) == (
        'message-1', 'attempt-1')
    assert entry.sender == 'shop@example.com'
    assert [(one.email, one.kind) for one in entry.recipients] == [
        ('ann@example.net', 'to'), ('bob@example.net', 'cc'),
        ('carl@example.net', 'bcc')]
    assert entry.subject == 'Your order'
    assert ledger.content(entry.number) == {
        'text': 'It is sent.', 'html': '<p>It is sent.</p>'}


def test_a_form_without_files_may_be_urlencoded(simulator, ledger):
    got = call(simulator, 'POST', simulating.MAILGUN_PATH,
               urlencode(MAILGUN_FORM).encode(), {**basic(), **FORM_TYPE})
    assert got.status == 200
    assert ledger.entries()[0].subject == 'Your order'


def test_fields_repeat_or_are_joined(simulator, ledger):
    fields = changed(MAILGUN_FORM, to='"Doe, A" <a@example.net>, '
                     'b@example.net') + [('to', 'c@example.net')]
    assert mailgun(simulator, fields).status == 200
    assert [one.email for one in ledger.entries()[0].recipients
            if one.kind == 'to'] == [
        'a@example.net', 'b@example.net', 'c@example.net']


def test_files_are_bytes_and_one_without_a_name_is_dropped(simulator, ledger):
    raw = b'\r\n--limi\x00\xff\r\n'
    for files in ([], [('attachment', 'ä".bin', raw)],
                  [('attachment', '', raw)]):
        files = [(field, name.replace('"', r'\"'), content)
                 for field, name, content in files]
        assert mailgun(simulator, files=files).status == 200
    bare, named, dropped = (entry.size for entry in ledger.entries())
    assert named == bare + len(raw)
    assert dropped == bare


def test_a_form_may_be_as_requests_makes_it(simulator, ledger):
    with requests.Session() as session:
        session.trust_env = False
        answer = session.post(
            f'{simulator.url}{simulating.MAILGUN_PATH}', MAILGUN_FORM,
            files={'attachment': ('prüfung.txt', b'hello')},
            auth=('api', simulating.MAILGUN_KEY))
    assert answer.status_code == 200
    assert len(ledger.entries()) == 1


def test_text_of_an_unknown_charset_is_kept_as_far_as_it_goes(
        simulator, ledger):
    assert mime(simulator, message=simulating.MIME.replace(
        b'charset=utf-8', b'charset=x-unknown')).status == 200
    number = ledger.entries()[0].number
    assert 'It is sent.' in ledger.content(number)['text']


def test_raw_mime_goes_to_the_envelope_alone(simulator, ledger):
    got = mime(simulator, [('to', 'ann@example.net'),
                           ('to', 'hidden@example.net')])
    assert got.status == 200
    entry, = ledger.entries()
    assert (entry.stampman_id, entry.stampman_attempt) == (
        'message-1', 'attempt-1')
    assert [(one.email, one.kind) for one in entry.recipients] == [
        ('ann@example.net', 'to'), ('hidden@example.net', 'bcc')]
    assert (entry.sender, entry.subject) == ('shop@example.com', 'Your order')
    assert ledger.content(entry.number)['text'].strip() == 'It is sent.'


@pytest.mark.parametrize('changes', [
    {'fields': ()}, {'message': b''}, {'name': 'file'}, {'file': ''},
    {'message': b'Subject: nobody\r\n\r\nx'}, {'fields': (('to', 'ann'),)}])
def test_raw_mime_needs_recipients_and_a_message(simulator, ledger, changes):
    assert mime(simulator, **changes).status == 400
    assert not ledger.entries()


@pytest.mark.parametrize('key', ['other', '', 'simulated-mailgun-x'])
def test_another_key_is_401_in_plain_text(simulator, key):
    got = mailgun(simulator, key=key)
    assert (got.status, got.body) == (401, b'Forbidden')
    assert get(simulator, '/v4/domains/example.com', key).status == 401


@pytest.mark.parametrize('path', [
    '/v3/example.org/messages', '/v3/example.org/messages.mime',
    '/v3/no%20name/messages'])
def test_another_domain_is_not_found(simulator, path):
    got = mailgun(simulator, path=f'/mailgun{path}')
    assert (got.status, got.json) == (404, {'message': 'Domain not found'})


@pytest.mark.parametrize('path', [
    '/', '/v3/example.com/message', '/v3//messages', '/v3/messages',
    '/v3/exa/mple.com/messages'])
def test_a_malformed_path_has_a_200_in_plain_text(simulator, ledger, path):
    got = mailgun(simulator, path=f'/mailgun{path}')
    assert (got.status, got.body) == (200, b'Mailgun Magnificent API')
    assert not ledger.entries()


@pytest.mark.parametrize('changes, told', [
    ({'from': None}, 'from parameter is missing'),
    ({'to': None}, 'to parameter is missing'), ({'to': ''}, 'to parameter'),
    ({'text': None, 'html': None}, 'Need at least one of'),
    ({'from': 'shop'}, 'from parameter is not valid'),
    ({'from': 'a@example.com, b@example.com'}, 'from parameter is not valid'),
    ({'to': 'ann'}, "'to' parameter is not a valid address"),
    ({'cc': 'bob@'}, "'cc' parameter is not a valid address"),
    ({'bcc': 'a b@example.net'}, "'bcc' parameter is not a valid address"),
    ({'to': ','.join(f'u{n}@example.net' for n in range(1001))},
     'Too many recipients'),
    ({'v:stampman_id': 'x' * 16_384}, '16KB')])
def test_what_is_wrong_is_400_and_named(simulator, ledger, changes, told):
    got = mailgun(simulator, changed(MAILGUN_FORM, **changes))
    assert got.status == 400
    assert told in got.json['message']
    assert not ledger.entries()


@pytest.mark.parametrize('field, status', [
    (('o:tag', 'order'), 200), (('o:tag', 'prüfung'), 400),
    (('o:tracking-opens', 'no'), 200), (('o:tracking-opens', 'off'), 400),
    (('o:tracking-clicks', 'htmlonly'), 200), (('h:X-Own', 'ü'), 200),
    (('h:', 'x'), 400), (('h:X-Own', 'a\nBcc: b@example.net'), 400)])
def test_options_are_checked(simulator, field, status):
    assert mailgun(simulator, [*MAILGUN_FORM, field]).status == status


def test_the_test_mode_answers_and_takes_nothing(simulator, ledger):
    got = mailgun(simulator, [*MAILGUN_FORM, ('o:testmode', 'yes')])
    assert (got.status, got.json['message']) == (200, 'Queued. Thank you.')
    assert not ledger.entries()


@pytest.mark.parametrize('content_type, body', [
    ('application/json', b'{}'), ('multipart/form-data', b'--limit--\r\n'),
    ('multipart/form-data; boundary=limit', b'--limit\r\nfrom\r\n'),
    ('multipart/form-data; boundary=limit',
     b'--limit\r\nfrom\r\n--limit--'),
    ('multipart/form-data; boundary=limit',
     b'--limit\r\nContent-Disposition: attachment\r\n\r\nx\r\n--limit--'),
    ('multipart/form-data; boundary=limit', b'--limit\r\nContent-Disposition:'
     b' form-data; name="from"\r\n\r\n\xff\r\n--limit--\r\n'),
    ('application/x-www-form-urlencoded', b'from')])
def test_what_is_no_form_is_400(simulator, content_type, body):
    got = call(simulator, 'POST', simulating.MAILGUN_PATH, body, {
        **basic(), 'Content-Type': content_type})
    assert got.status == 400
    assert got.json['message']


def test_a_body_over_25_mb_is_too_large(simulator):
    got = mailgun(simulator, files=[('attachment', 'a', b'x' * 25_000_000)])
    assert got.status == 413


def test_the_probes_answer(simulator):
    got = get(simulator, '/v4/domains/example.com')
    assert got.json['domain'] == {'name': 'example.com', 'state': 'active'}
    assert get(simulator, '/v4/domains/example.org').status == 404
    queues = get(simulator, '/v3/domains/example.com/sending_queues').json
    assert queues['regular']['is_disabled'] is False
