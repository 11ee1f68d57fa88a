"""What Sentry is sent of a crash: enough to find it, nothing of the email."""

import io
import json
import logging
import threading

import flask
import pytest
import sentry_sdk
from sentry_sdk.transport import Transport

from stampman import logs, sentry
from stampman.helpers.exceptions import StoreUnavailable

DSN = 'https://dsncanary0123@sentry.example/42'
POOL_KEY = 'pool-key-canary-1f6c'
PROVIDER_KEY = 'SG.provider/key+canary=='
SECRETS = (POOL_KEY, PROVIDER_KEY)
RECIPIENT = 'recipient.canary@example.com'
SUBJECT = 'SUBJECT-CANARY'
BODY = 'BODY-CANARY'
OTP = 'OTP-CANARY-918273'
HEADER = 'HEADER-CANARY'
CANARIES = (POOL_KEY, PROVIDER_KEY, 'SG.provider', 'recipient.canary',
            SUBJECT, BODY, OTP, HEADER, 'dsncanary0123')
EMAIL = {'pool_api_key': POOL_KEY, 'recipients': [RECIPIENT],
         'subject': SUBJECT, 'content': f'{BODY} {OTP}'}

log = logging.getLogger('stampman.test')


class Collector(Transport):
    """Keeps what would be sent, in the bytes in which it would be."""

    def __init__(self):
        super().__init__()
        self.sent = []

    def capture_envelope(self, envelope):
        self.sent.append(envelope)

    def text(self):
        return b''.join(envelope.serialize()
                        for envelope in self.sent).decode()

    def event(self):
        [envelope] = self.sent
        [item] = envelope.items
        assert item.type == 'event'
        return json.loads(item.get_bytes())


@pytest.fixture
def collected():
    collector = Collector()
    assert sentry.start(DSN, 'stampman@1', 'test', SECRETS, collector)
    yield collector
    sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(None)
    logs.set_secrets(())


@pytest.fixture
def written():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    logs.setup(stream, SECRETS)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    logs.set_secrets(())


def call_provider(key, headers):
    """As a library that quotes all it has in its exception."""
    request = f'{headers} {key}'
    raise ValueError(f'cannot send {request} {EMAIL}')


def send(domain, **ignored):
    with logs.bind(request_id='req-1', pool=domain):
        email = flask.request.get_json()
        otp = email['content'].split()[1]
        try:
            call_provider(PROVIDER_KEY, {'Authorization': PROVIDER_KEY})
        except ValueError as error:
            log.exception('bug in %s: %s', RECIPIENT, error,
                          extra={'kind': 'uncertain', 'detail': otp})
            raise StoreUnavailable(f'for {RECIPIENT}') from error


@pytest.fixture
def client():
    app = flask.Flask('served')
    app.add_url_rule('/<domain>/crash', view_func=crash, methods=['POST'])
    app.add_url_rule('/<domain>/<address>/crash', 'addressed',
                     view_func=crash, methods=['POST'])
    app.add_url_rule('/<domain>/send', view_func=send, methods=['POST'])
    return app.test_client()


def crash(domain, address=None):
    email = flask.request.get_json()
    return call_provider(PROVIDER_KEY, {'To': email['recipients']})


def post(client, path, **headers):
    response = client.post(
        path, json=EMAIL, query_string={'to': RECIPIENT, 'otp': OTP},
        headers={'Authorization': f'Bearer {POOL_KEY}', 'X-Own': HEADER,
                 'Cookie': f'session={HEADER}', 'Referer': HEADER,
                 'User-Agent': HEADER, 'X-Forwarded-For': HEADER,
                 'baggage': f'sentry-environment={HEADER},other={HEADER}',
                 'sentry-trace': f'{"a" * 32}-{"b" * 16}-1', **headers})
    assert response.status_code == 500


def assert_clean(text):
    assert not [canary for canary in CANARIES if canary in text]


def test_a_crash_in_a_view_shows_no_canary(client, collected, written):
    post(client, '/example.com/crash')
    assert_clean(collected.text())
    assert_clean(written.getvalue())
    assert 'error' in json.loads(written.getvalue())


def test_a_crash_is_told_by_class_place_and_route(client, collected):
    post(client, '/example.com/crash')
    event = collected.event()
    assert event['request'] == {
        'url': 'http://localhost/example.com/crash', 'method': 'POST'}
    assert event['transaction'] == '/<domain>/crash'
    assert (event['release'], event['environment']) == ('stampman@1', 'test')
    [error] = event['exception']['values']
    assert (error['type'], error['value']) == ('ValueError', 'ValueError')
    assert error['mechanism']['handled'] is False
    frame = error['stacktrace']['frames'][-1]
    assert frame['function'] == 'call_provider' and frame['lineno'] > 0
    assert set(frame) <= set(sentry.KEPT_OF_FRAME)


def test_an_event_has_nothing_that_is_not_listed(client, collected):
    post(client, '/example.com/crash')
    assert set(collected.event()) <= {
        *sentry.KEPT, 'transaction', 'request', 'contexts', 'sdk', 'tags',
        'exception', 'logentry', 'extra'}
    assert set(collected.sent[0].headers) == {'event_id', 'sent_at'}


@pytest.mark.parametrize('address, shown', [
    (RECIPIENT, 'r***@example.com'),
    ('recipient.canary%40example.com', 'r***@example.com'),
    ('recipient.canary%252540example.com', 'r***@example.com'),
    (POOL_KEY, '[secret]'),
    ('SG.provider%252Fkey%252Bcanary%253D%253D', '[secret]'),
    ('x%253Fotp=OTP-CANARY-918273', 'x?[query]')])
def test_a_path_is_masked_however_it_is_written(
        client, collected, address, shown):
    post(client, f'/example.com/{address}/crash')
    assert collected.event()['request']['url'] == (
        f'http://localhost/example.com/{shown}/crash')
    assert_clean(collected.text())


@pytest.mark.parametrize('host', ['[::1', 'user:secret@x.example', 'a b'])
def test_a_strange_host_does_not_hide_a_crash(client, collected, host):
    post(client, '/example.com/crash', Host=host)
    assert collected.event()['exception']
    assert 'secret@' not in collected.text()


def test_a_logged_error_is_told_as_the_log_tells_it(client, collected):
    post(client, '/logged/send')
    assert_clean(collected.text())
    first = json.loads(collected.sent[0].items[0].get_bytes())
    assert first['logger'] == 'stampman.test'
    assert first['logentry'] == {
        'message': 'bug in %s: %s',
        'formatted': 'bug in r***@example.com: ValueError'}
    assert first['tags'] == {'request_id': 'req-1', 'pool': 'logged'}


def test_what_another_sdk_might_collect_is_not_sent():
    frame = {'function': 'f', 'lineno': 1, 'vars': {'x': OTP},
             'context_line': OTP, 'pre_context': [OTP], 'post_context': [OTP]}
    error = {'type': 'KeyError', 'value': OTP, 'module': None,
             'mechanism': {'type': 'flask', 'data': {'x': OTP}},
             'stacktrace': {'frames': [frame], 'registers': {'x': OTP}}}
    event = {
        'event_id': '1', 'exception': [error], 'user': {'email': RECIPIENT},
        'request': {'url': f'https://{HEADER}:pw@h.example/x?{OTP}',
                    'query_string': OTP, 'data': EMAIL, 'cookies': HEADER,
                    'headers': {'X': HEADER}, 'env': {'X': HEADER}},
        'breadcrumbs': {'values': [{'message': BODY}]},
        'transaction': OTP, 'transaction_info': {'source': 'url'},
        'extra': {'x': BODY}, 'tags': {'x': BODY}, '_meta': {'x': BODY},
        'threads': {'values': [{'stacktrace': {'frames': [frame]}}]},
        'contexts': {'trace': {'trace_id': 'a', 'data': {'x': OTP}},
                     'response': {'data': BODY}}}
    kept = sentry.Cleaner(SECRETS)(event, {'attachments': [BODY]})
    assert_clean(json.dumps(kept))
    assert kept['request']['url'] == 'https://h.example/x'
    assert kept['exception']['values'][0]['stacktrace'] == {
        'frames': [{'function': 'f', 'lineno': 1}]}


def test_our_errors_are_told_with_their_code(collected):
    try:
        try:
            call_provider(PROVIDER_KEY, {})
        except ValueError as error:
            raise StoreUnavailable(f'for {RECIPIENT}') from error
    except StoreUnavailable:
        log.exception('not stored')
    values = collected.event()['exception']['values']
    assert {value['type']: value['value'] for value in values} == {
        'ValueError': 'ValueError',
        'StoreUnavailable': 'stampman.helpers.exceptions.StoreUnavailable '
                            '(store_unavailable)'}
    assert_clean(collected.text())


def test_an_error_that_is_logged_and_raised_is_told_once(client, collected):
    post(client, '/example.com/crash')      # Flask logs it too
    assert len(collected.sent) == 1


def test_lesser_lines_are_not_sent(collected):
    log.warning('a warning')
    log.info('an info')
    assert collected.sent == []


def test_only_listed_extras_are_sent(collected):
    log.error('x', extra={'kind': 'refused', 'status': 403, 'stage': RECIPIENT,
                          'detail': BODY, 'subject': SUBJECT})
    assert collected.event()['extra'] == {
        'kind': 'refused', 'status': '403', 'stage': 'r***@example.com'}


def test_ids_are_those_of_the_thread_that_fails(collected):
    def fail():
        with logs.bind(message_id='m2', service='sendgrid'):
            log.error('x')
    with logs.bind(message_id='m1'):
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join(5)
    assert collected.event()['tags'] == {
        'message_id': 'm2', 'service': 'sendgrid'}


def test_nothing_but_errors_is_ever_sent(collected):
    with sentry_sdk.start_transaction(name=OTP, sampled=True):
        with sentry_sdk.start_span(name=OTP):
            sentry_sdk.add_breadcrumb(message=OTP)
    sentry_sdk.logger.error(OTP)
    sentry_sdk.metrics.count(OTP, 1)
    sentry_sdk.get_client().flush(timeout=1)
    assert collected.sent == []


def test_what_others_put_on_the_scope_is_not_sent(collected):
    with sentry_sdk.new_scope() as scope:
        scope.set_user({'email': RECIPIENT, 'id': OTP})
        scope.set_extra('x', BODY)
        scope.set_tag('x', BODY)
        scope.set_context('x', {'y': BODY})
        scope.add_attachment(bytes=BODY.encode(), filename='x')
        scope.add_breadcrumb(message=BODY)
        sentry_sdk.capture_message(f'to {RECIPIENT} with {POOL_KEY}')
    event = collected.event()
    assert event['logentry'] == {'message': 'to r***@example.com '
                                            'with [secret]'}
    assert_clean(collected.text())


def test_secrets_of_a_reload_are_redacted_too(collected):
    logs.set_secrets(['rotated-key'])
    log.error('rotated-key')
    assert 'rotated-key' not in collected.text()


@pytest.mark.parametrize('dsn', [None, ''])
def test_without_a_dsn_it_is_off(dsn, caplog):
    assert sentry.start(dsn, 'stampman@1', 'test', SECRETS) is False
    assert not sentry_sdk.get_client().is_active()
    assert caplog.records == []


@pytest.mark.parametrize('dsn', [
    'nonsense-canary', 'https://sentry.example/1', 'ftp://canary@x/1',
    'https://canary@sentry.example/not-a-number', 'https://canary@[x/1',
    'https://canary@sentry.example:port/1'])
def test_an_invalid_dsn_is_logged_and_stops_nothing(dsn, written):
    assert sentry.start(dsn, 'stampman@1', 'test', SECRETS) is False
    assert not sentry_sdk.get_client().is_active()
    line = json.loads(written.getvalue())
    assert line['level'] == 'error' and 'SENTRY_API_DSN' in line['event']
    assert 'canary' not in written.getvalue()
