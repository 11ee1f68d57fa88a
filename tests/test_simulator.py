"""The simulator's own routes, its ledger, and that it stands alone."""

import ast
import http.client
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest

import simulating
import stampman.simulator
from simulating import call, call_json, mailgun, sendgrid
from stampman.helpers.config import Config
from stampman.simulator import Simulator, WrongFault
from stampman.simulator.ledger import (
    KEPT_CONTENTS, Ids, Ledger, Recipient, Taken)


@pytest.fixture
def simulator():
    with Simulator(smtp_port=0) as running:
        yield running


def test_it_imports_helpers_and_the_standard_library_alone():
    folder = Path(stampman.simulator.__file__).parent
    for path in folder.glob('*.py'):
        for node in ast.walk(ast.parse(path.read_text('utf-8'))):
            names = ([alias.name for alias in node.names]
                     if isinstance(node, ast.Import) else [node.module]
                     if isinstance(node, ast.ImportFrom) else [])
            for name in names:
                assert name.startswith((
                    'stampman.simulator', 'stampman.helpers')) or (
                    name.partition('.')[0] in sys.stdlib_module_names), path


def test_the_page_says_what_is_where(simulator):
    got = call(simulator, 'GET', '/')
    assert got.headers['content-type'] == 'text/plain; charset=utf-8'
    for place in ('sendgrid', 'mailgun', 'ses', 'mandrill', 'ledger',
                  'calls', 'faults'):
        assert f'{simulator.url}/{place}' in got.body.decode()


def test_the_services_can_be_pasted_into_a_config(simulator):
    page = call(simulator, 'GET', '/').body.decode()
    snippet = page.partition('"services": ')[2]
    services, _ = json.JSONDecoder().raw_decode(snippet)
    assert list(services) == ['sendgrid', 'mailgun', 'amazon_ses',
                              'mandrill', 'smtp']
    Config.model_validate({
        'pools': [{'domain': 'example.com', 'api_key': 'a-key-of-a-pool-1',
                   'services': services}],
        'admins': [{'name': 'ops', 'api_key': 'a-key-of-an-admin'}]})


def test_the_ledger_is_shown_by_provider_and_forgotten(simulator):
    sendgrid(simulator)
    mailgun(simulator)
    both = call(simulator, 'GET', '/ledger').json['ledger']
    assert [(entry['number'], entry['provider']) for entry in both] == [
        (1, 'sendgrid'), (2, 'mailgun')]
    assert both[0]['recipients'][0] == {'email': 'ann@example.net',
                                        'kind': 'to'}
    one, = call(simulator, 'GET', '/ledger?provider=mailgun').json['ledger']
    assert one == both[1]
    assert call(simulator, 'DELETE', '/ledger').json == {'ledger': []}
    assert call(simulator, 'GET', '/ledger').json == {'ledger': []}
    sendgrid(simulator)
    assert call(simulator, 'GET', '/ledger').json['ledger'][0]['number'] == 3


def test_one_entry_is_shown_with_its_content(simulator):
    sendgrid(simulator)
    shown = call(simulator, 'GET', '/ledger/1').json
    assert shown['content'] == {'text': 'It is sent.',
                                'html': '<p>It is sent.</p>'}
    assert call(simulator, 'GET', '/ledger/2').status == 404


def test_calls_are_shown_with_those_that_took_nothing(simulator):
    sendgrid(simulator)
    sendgrid(simulator, key='SG.other')
    mailgun(simulator)
    shown = call(simulator, 'GET', '/calls?provider=sendgrid').json['calls']
    assert [(one['path'], one['answered'], one['took']) for one in shown] == [
        (simulating.SENDGRID_PATH, 202, True),
        (simulating.SENDGRID_PATH, 401, False)]
    for path in ('/calls?provider=other', '/calls?provider=',
                 '/ledger?provider=', '/ledger?provider'):
        assert call(simulator, 'GET', path).status == 400


def test_faults_are_switched_on_and_off(simulator):
    got = call_json(simulator, '/faults', {
        'provider': 'sendgrid', 'what': 'status', 'value': 503})
    assert (got.status, got.json['number'], got.json['value']) == (
        201, 1, 503)
    assert call_json(simulator, '/faults', 'mailgun:error=AUTH').status == 201
    assert sendgrid(simulator).status == 503
    assert mailgun(simulator).status == 401
    assert [one['number'] for one in call(
        simulator, 'GET', '/faults').json['faults']] == [1, 2]
    left = call(simulator, 'DELETE', '/faults/1').json['faults']
    assert [one['number'] for one in left] == [2]
    assert sendgrid(simulator).status == 202
    assert call(simulator, 'DELETE', '/faults').json == {'faults': []}
    assert mailgun(simulator).status == 200
    assert call(simulator, 'DELETE', '/faults/1').status == 404


@pytest.mark.parametrize('body, told', [
    (b'"sendgrid:explode"', 'explode'), (b'{', 'not JSON'),
    (b'{"provider": "*"}', "'what' is missing")])
def test_a_wrong_fault_is_explained(simulator, body, told):
    got = call(simulator, 'POST', '/faults', body,
               {'Content-Type': 'application/json'})
    assert got.status == 400
    assert told in got.json['error']
    assert not simulator.faults.rules()


@pytest.mark.parametrize('host', [
    'attacker.example', 'attacker.example:8025', '127.0.0.1.example', '',
    '[::1'])
def test_another_host_s_name_opens_no_control_route(simulator, host):
    for method, path in (('GET', '/'), ('GET', '/ledger'),
                         ('DELETE', '/ledger'), ('POST', '/faults')):
        assert call(simulator, method, path,
                    headers={'Host': host}).status == 403


@pytest.mark.parametrize('host', ['127.0.0.1', 'localhost:99', '[::1]:8025'])
def test_loopback_s_names_open_them(simulator, host):
    assert call(simulator, 'GET', '/calls',
                headers={'Host': host}).status == 200


def test_what_a_page_of_another_site_can_send_is_no_fault(simulator):
    got = call(simulator, 'POST', '/faults', b'"sendgrid:hang"',
               {'Content-Type': 'text/plain'})
    assert got.status == 415
    assert not simulator.faults.rules()


@pytest.mark.parametrize('method, path, status', [
    ('GET', '/other', 404), ('GET', '/ledger/0', 404),
    ('POST', '/ledger', 405), ('DELETE', '/calls', 405),
    ('GET', '/faults/1', 405), ('PUT', '/', 405)])
def test_an_unknown_route_is_told(simulator, method, path, status):
    assert call(simulator, method, path).status == status


def test_a_connection_is_kept_for_several_requests(simulator):
    connection = http.client.HTTPConnection('127.0.0.1', simulator.port,
                                            timeout=5)
    for _ in range(3):
        connection.request('POST', simulating.SENDGRID_PATH, b'{}')
        kept = connection.sock
        assert connection.getresponse().read()
        assert connection.sock is kept is not None
    connection.close()


@pytest.mark.parametrize('headers, status', [
    ({'Transfer-Encoding': 'chunked'}, 411), ({'Content-Length': 'x'}, 411),
    ({'Content-Length': '9' * 5000}, 411),
    ({'Content-Length': '99999999999'}, 413)])
def test_a_body_that_cannot_be_read_is_refused(simulator, headers, status):
    for path in (simulating.SENDGRID_PATH, '/faults'):
        assert call(simulator, 'POST', path, None, headers).status == status


def test_a_request_that_ends_too_early_is_nobody_s(simulator):
    connection = http.client.HTTPConnection('127.0.0.1', simulator.port,
                                            timeout=5)
    connection.request('POST', simulating.SENDGRID_PATH, b'{}',
                       {'Content-Length': '9'})
    connection.sock.shutdown(1)
    with pytest.raises(http.client.RemoteDisconnected):
        connection.getresponse()
    connection.close()
    assert not simulator.ledger.calls()


def test_its_keys_can_be_chosen():
    with Simulator(keys={'sendgrid': 'SG.own'}) as simulator:
        assert sendgrid(simulator).status == 401
        assert sendgrid(simulator, key='SG.own').status == 202


def test_many_at_once_are_all_written_down(simulator):
    with ThreadPoolExecutor(8) as threads:
        got = list(threads.map(lambda _: sendgrid(simulator), range(80)))
    entries = simulator.ledger.entries()
    assert [entry.number for entry in entries] == list(range(1, 81))
    assert {entry.provider_ids[0] for entry in entries} == {
        one.headers['x-message-id'] for one in got}


def test_an_entry_is_in_the_file_before_the_answer(tmp_path):
    path = tmp_path / 'ledger.jsonl'
    for number in (1, 2):   # a second run appends
        with Simulator(ledger=path) as simulator:
            sendgrid(simulator)
            lines = path.read_text().splitlines()
            entry, = simulator.ledger.entries()
            assert len(lines) == number
            assert json.loads(lines[-1]) == json.loads(
                json.dumps(asdict(entry)))


def test_the_time_of_an_entry_is_the_clock_s():
    ledger = Ledger(now=lambda: 1_700_000_000.5)
    entry = ledger.take('smtp', Taken(('1',), 'a@example.com', (
        Recipient('b@example.net', 'envelope'),)))
    assert entry.time == 1_700_000_000.5
    assert ledger.entries('smtp') == [entry]
    assert ledger.entries('mailgun') == []


def test_the_contents_of_old_entries_are_let_go():
    ledger = Ledger()
    for number in range(KEPT_CONTENTS + 1):
        ledger.take('smtp', Taken((), '', (), text=str(number)))
    assert len(ledger.entries()) == KEPT_CONTENTS + 1
    assert ledger.content(1) is None
    assert ledger.content(2) == {'text': '1', 'html': ''}


@pytest.mark.parametrize('value, ids', [
    ('message/attempt', ('message', 'attempt')), (' message ',
                                                  ('message', '')),
    ('', ('', '')), (None, ('', ''))])
def test_the_planted_header_is_read(value, ids):
    assert Ids.of_header(value) == ids


def test_what_it_cannot_begin_with_is_told(tmp_path):
    with pytest.raises(WrongFault):
        Simulator(faults=['sendgrid'])
    with pytest.raises(FileNotFoundError):
        Simulator(ledger=tmp_path / 'missing' / 'ledger')
    with Simulator(smtp_port=0) as first:
        for taken in ({'port': first.port}, {'smtp_port': first.smtp.port}):
            with pytest.raises(OSError, match='in use'):
                Simulator(**taken)
