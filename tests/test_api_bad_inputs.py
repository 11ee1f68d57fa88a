"""What a client gets wrong: named, refused, and seen by no provider."""

import json
from pathlib import Path

import pytest

from gateway_server import (
    EMAIL, POOL_KEY, GatewayServer, config, sendgrid_at)
from servers import Recorder

BAD_INPUTS = json.loads(
    (Path(__file__).parent / 'bad_inputs.json').read_text())


@pytest.fixture(scope='module')
def provider():
    with Recorder() as recorder:
        recorder.answer(202, headers={'X-Message-Id': 'taken'})
        yield recorder
        assert recorder.requests == []


@pytest.fixture(scope='module')
def server(tmp_path_factory, provider):
    with GatewayServer(tmp_path_factory.mktemp('bad'), config(
            {'sendgrid': sendgrid_at(provider.url)})) as running:
        yield running


def changed(case):
    email = {**EMAIL, **case.get('set', {})}
    for field in case.get('without', ()):
        del email[field]
    return email


@pytest.mark.parametrize(
    'case', BAD_INPUTS, ids=[case['what'] for case in BAD_INPUTS])
def test_a_bad_input_is_refused_by_name_and_reaches_no_provider(
        server, provider, case):
    reply = server.send(changed(case))

    assert reply.status == case.get('status', 422), reply.text
    assert reply.headers['Content-Type'] == 'application/problem+json'
    assert case['field'] in reply.fields
    assert 'id' not in reply.json
    assert provider.requests == []


def test_every_wrong_field_is_named_at_once(server):
    reply = server.send({'from': 'x', 'to': ['y', 'z'], 'subject': 'a\nb',
                         'colour': 1, 'headers': {'To': 'x'}})

    assert set(reply.fields) >= {
        'from', 'to[0]', 'to[1]', 'subject', 'colour', 'headers.To',
        'content'}


@pytest.mark.parametrize('field, value', [
    ('recipients', [f'a{number}@example.org' for number in range(1001)]),
    ('recipients', [f'a{number}@example.org' for number in range(100_000)]),
    ('attachments', [{'filename': 'a', 'content': 'aGk='}] * 51),
    ('headers', {f'X-{number}': 'x' for number in range(51)})])
def test_more_than_the_limit_is_refused(server, field, value):
    reply = server.send({**EMAIL, field: value})

    assert (reply.status, reply.fields) == (422, [field])


@pytest.mark.parametrize('header, value', [
    ('Idempotency-Key', 'ordér'), ('Idempotency-Key', 'x' * 256),
    ('Idempotency-Key', ''), ('Prefer', 'respond-async;;=')])
def test_a_header_that_is_wrong_is_refused_by_name(server, header, value):
    reply = server.send(**{header: value})

    assert (reply.status, reply.fields) == (400, [header])


def test_nothing_of_it_was_stored(server):
    assert server.get('/example.com/messages/', POOL_KEY).json == {
        'messages': [], 'has_more': False}
