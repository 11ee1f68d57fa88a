"""Every fault of the simulator is done, over a real socket."""

import http.client
import socket
import threading
import time

import pytest

import simulating
from simulating import call, mailgun, mandrill, sendgrid
from stampman.simulator import Simulator
from stampman.simulator.server import PROVIDERS

SEND = {'sendgrid': sendgrid, 'mailgun': mailgun, 'mandrill': mandrill}
NO_ANSWER = (http.client.HTTPException, ConnectionError)


@pytest.fixture(scope='module')
def running():
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def simulator(running):
    running.faults.clear()
    running.ledger.clear()
    return running


def ends(simulator):
    """Return how the one call ended: what was answered, and what taken."""
    made, = simulator.ledger.calls()
    assert made.took == (len(simulator.ledger.entries()) == 1)
    return made.answered, made.took


@pytest.mark.parametrize('spec, status, took', [
    ('*:status=503', 503, False), ('sendgrid:status=503,took=true', 503, True),
    ('sendgrid:status=418', 418, False), ('sendgrid:status=599', 599, False),
    ('sendgrid:redirect=http://127.0.0.1:1/', 307, False)])
def test_a_status_stands_in_the_answer_s_place(simulator, spec, status, took):
    simulator.faults.add(spec)
    assert sendgrid(simulator).status == status
    assert ends(simulator) == (status, took)


def test_a_status_may_have_a_body_and_headers(simulator):
    rule = 'sendgrid:status=429,body=slow down,header.Retry-After=7'
    simulator.faults.add(rule)
    got = sendgrid(simulator)
    assert (got.body, got.headers['retry-after']) == (b'slow down', '7')


@pytest.mark.parametrize('spec, answered, took', [
    ('hang=0', 'hang', False), ('hang=0,took=true', 'hang', True),
    ('reset=before', 'reset', False), ('reset=after', 'reset', True),
    ('close', 'close', False), ('close,took=true', 'close', True),
    ('garbage', 'garbage', False), ('garbage,took=true', 'garbage', True),
    ('truncated', 'truncated', True), ('truncated=9', 'truncated', True)])
@pytest.mark.parametrize('provider', SEND)
def test_there_is_no_whole_answer(simulator, provider, spec, answered, took):
    simulator.faults.add(f'{provider}:{spec}')
    with pytest.raises(NO_ANSWER):
        # A head without its last byte is read as a whole one.
        got = SEND[provider](simulator)
        assert answered == 'truncated' and provider == 'sendgrid'
        raise http.client.IncompleteRead(got.body)
    assert ends(simulator) == (answered, took)


@pytest.mark.parametrize('when', ['before', 'after'])
def test_a_reset_is_a_reset(simulator, when):
    simulator.faults.add(f'sendgrid:reset={when}')
    with pytest.raises(ConnectionResetError):
        sendgrid(simulator)


def test_a_hang_says_nothing_until_the_client_goes(simulator):
    simulator.faults.add('mandrill:hang')
    with pytest.raises(TimeoutError):
        call(simulator, 'POST', simulating.MANDRILL_PATH, b'{}', patience=.1)
    assert ends(simulator) == ('hang', False)


@pytest.mark.parametrize('spec', ['slow=0.05', 'drip=0.0005'])
def test_a_slow_answer_is_the_true_one(simulator, spec):
    simulator.faults.add(f'sendgrid:{spec}')
    begun = time.monotonic()
    assert sendgrid(simulator).headers['x-message-id']
    assert time.monotonic() - begun > 0.04
    assert ends(simulator) == (spec.partition('=')[0], True)


def test_a_huge_body_begins_with_the_true_one(simulator):
    simulator.faults.add('mandrill:huge=300000')
    got = mandrill(simulator)
    assert len(got.body) == 300_000
    assert [one['status'] for one in got.json] == ['sent', 'sent']


def test_an_endless_body_ends_with_the_client(simulator):
    simulator.faults.add('sendgrid:endless,on=probe')
    connection = http.client.HTTPConnection('127.0.0.1', simulator.port,
                                            timeout=5)
    connection.request('GET', '/sendgrid/v3/scopes', headers={
        'Authorization': f'Bearer {simulating.SENDGRID_KEY}'})
    answer = connection.getresponse()
    assert answer.getheader('Content-Length') is None
    assert len(answer.read(2_000_000)) == 2_000_000
    answer.close()
    connection.close()


def test_a_stop_ends_what_hangs():
    with Simulator(faults=['sendgrid:hang', 'mailgun:slow=60',
                           'mandrill:drip=60']) as simulator:
        failed = []

        def try_to(send):
            try:
                send(simulator)
            except NO_ANSWER as error:
                failed.append(error)

        threads = [threading.Thread(target=try_to, args=(send,))
                   for send in SEND.values()]
        for thread in threads:
            thread.start()
        while len(simulator.ledger.calls()) < 3:
            time.sleep(0.005)
        begun = time.monotonic()
    for thread in threads:
        thread.join(5)
    assert time.monotonic() - begun < 2
    assert len(failed) == 3


@pytest.mark.parametrize('word', [
    'AUTH', 'ACCOUNT', 'RATE_LIMIT', 'UNAVAILABLE', 'PAYLOAD', 'TOO_LARGE',
    'RECIPIENT', 'SENDER', 'CONTENT'])
@pytest.mark.parametrize('name', [one.name for one in PROVIDERS])
def test_each_class_has_each_provider_s_own_answer(simulator, name, word):
    simulator.faults.add(f'{name}:error={word},on=any')
    paths = {'sendgrid': simulating.SENDGRID_PATH,
             'mailgun': simulating.MAILGUN_PATH,
             'amazon_ses': simulating.SES_PATH,
             'mandrill': simulating.MANDRILL_PATH}
    if name == 'mandrill':
        got = mandrill(simulator)
    else:
        got = call(simulator, 'POST', paths[name], b'{}')
    told = got.status >= 400 or got.json[0]['status'] in (
        'rejected', 'invalid')
    assert told and got.body
    assert not simulator.ledger.entries()


def test_who_is_suppressed_is_told_by_mandrill_alone(simulator):
    simulator.faults.add('*:error=SUPPRESSED')
    assert {one['reject_reason'] for one in mandrill(simulator).json} == {
        'hard-bounce'}
    assert sendgrid(simulator).status == 202
    assert mailgun(simulator).status == 200


def test_recipients_are_rejected_by_a_pattern(simulator):
    simulator.faults.add('*:reject=CARL@*')
    ann, carl = mandrill(simulator).json
    assert (ann['status'], carl['status'], carl['reject_reason']) == (
        'sent', 'rejected', 'hard-bounce')
    entry, = simulator.ledger.entries()
    assert [one.email for one in entry.recipients] == ['ann@example.net']
    assert sendgrid(simulator).json['errors'][0]['field'] == (
        'personalizations.0.bcc.0.email')
    assert "'bcc' parameter" in mailgun(simulator).json['message']
    assert len(simulator.ledger.entries()) == 1


def test_a_pattern_that_nobody_meets_rejects_nobody(simulator):
    simulator.faults.add('*:reject=*@example.org,times=1')
    assert sendgrid(simulator).status == 202
    assert len(simulator.faults.rules()) == 1


def test_who_is_rejected_in_the_background_is_not_told(simulator):
    simulator.faults.add('mandrill:reject=*')
    got = mandrill(simulator, call={'async': True})
    assert {one['status'] for one in got.json} == {'queued'}


def test_more_requests_than_the_rate_are_throttled(simulator):
    simulator.faults.add('sendgrid:rate_limit=2')
    got = [sendgrid(simulator) for _ in range(4)]
    assert [one.status for one in got] == [202, 202, 429, 429]
    assert got[3].headers['x-ratelimit-remaining'] == '0'
    assert int(got[3].headers['x-ratelimit-reset']) >= int(time.time())
    assert len(simulator.ledger.entries()) == 2


def test_times_end_a_fault(simulator):
    simulator.faults.add('sendgrid:status=503,times=2')
    assert [sendgrid(simulator).status for _ in range(3)] == [503, 503, 202]
    assert not simulator.faults.rules()


def test_a_percentage_is_by_chance_that_a_seed_repeats():
    def statuses():
        with Simulator(faults=['*:status=503,percent=50'],
                       seed=7) as simulator:
            return [sendgrid(simulator).status for _ in range(20)]

    first = statuses()
    assert first == statuses()
    assert {202, 503} == set(first)


def test_a_fault_is_about_sending_unless_it_says_otherwise(simulator):
    def probe():
        return call(simulator, 'GET', '/sendgrid/v3/scopes', headers={
            'Authorization': f'Bearer {simulating.SENDGRID_KEY}'}).status

    simulator.faults.add('sendgrid:status=503')
    assert (probe(), sendgrid(simulator).status) == (200, 503)
    simulator.faults.clear()
    simulator.faults.add('sendgrid:status=503,on=probe')
    assert (probe(), sendgrid(simulator).status) == (503, 202)


def test_what_would_be_refused_is_not_taken_by_any_fault(simulator):
    simulator.faults.add('sendgrid:hang=0,took=true')
    with pytest.raises(NO_ANSWER):
        sendgrid(simulator, key='SG.other')
    assert ends(simulator) == ('hang', False)


def test_garbage_is_no_http(simulator):
    simulator.faults.add('sendgrid:garbage,on=probe')
    with socket.create_connection(
            ('127.0.0.1', simulator.port), 5) as connection:
        connection.sendall(b'GET /sendgrid/v3/scopes HTTP/1.1\r\n'
                           b'Host: localhost\r\n\r\n')
        told = connection.makefile('rb').read()
    assert told and not told.startswith(b'HTTP')
