"""/openapi.json: what it promises is what the API does."""

import json
import re

import jsonschema
import pytest

from stampman.api import openapi

from gateway_server import (
    ADMIN_KEY, EMAIL, POOL_KEY, GatewayServer, config)


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    with GatewayServer(
            tmp_path_factory.mktemp('openapi'), config()) as running:
        yield running


@pytest.fixture(scope='module')
def document(server):
    return server.get('/openapi.json').json


def validator(document, name):
    return jsonschema.Draft202012Validator({
        '$ref': f'#/components/schemas/{name}',
        'components': document['components']})


def test_it_is_openapi_3_1_and_all_references_lead_somewhere(document):
    assert document['openapi'] == '3.1.0'
    assert document['servers'][0]['url'].startswith('http://127.0.0.1:')
    for reference in re.findall('"\\$ref": "([^"]+)"', json.dumps(document)):
        place = document
        for step in reference.removeprefix('#/').split('/'):
            place = place[step]
    for schema in document['components']['schemas'].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_route_that_is_described_answers_and_the_reverse(
        server, document):
    described = {(method.upper(), path)
                 for path, operations in document['paths'].items()
                 for method in operations}

    assert {path for _, path in described} >= {
        '/', '/{domain}/', '/{domain}/send', '/{domain}/messages/',
        '/{domain}/messages/{message_id}/resolve', '/healthz', '/readyz'}
    for method, path in described:
        real = path.format(domain='example.com', message_id='x')
        reply = server.request(method, real)
        assert reply.status != 405
        if reply.status >= 400:
            operation = document['paths'][path][method.lower()]
            assert str(reply.status) in operation['responses']
    assert len(described) == len(openapi.OPERATIONS)


@pytest.mark.parametrize('email', [
    EMAIL, {'from': 'Shop <shop@example.com>', 'to': 'a@example.org',
            'text': 'hi'},
    {**EMAIL, 'pool_api_key': POOL_KEY},
    {'from_email': 'shop@example.com', 'bcc': [{'email': 'a@example.org'}],
     'html': '<p>', 'headers': {'X-A': 'b'}, 'tags': ['a'],
     'metadata': {'a': 'b'}, 'track_opens': True, 'on_uncertain': 'hold',
     'expires_at': '2026-12-24T12:00:00+01:00', 'attachments': [
         {'filename': 'a', 'content': 'aGk=', 'content_id': 'a'}]}])
def test_what_the_schema_allows_is_sent(server, document, email):
    validator(document, 'Submission').validate(email)
    email.pop('expires_at', None)       # what is in time depends on the day

    assert server.send(email).status == 200


@pytest.mark.parametrize('email', [
    {}, [], {**EMAIL, 'colour': 1}, {**EMAIL, 'subject': None},
    {**EMAIL, 'recipients': 7}, {**EMAIL, 'tags': 'a'},
    {**EMAIL, 'track_opens': 'yes'}, {**EMAIL, 'content': ''},
    {**EMAIL, 'headers': {'X-A': 1}}, {**EMAIL, 'on_uncertain': 'maybe'},
    {**EMAIL, 'attachments': [{'filename': 'a'}]},
    {name: value for name, value in EMAIL.items() if name != 'recipients'},
    {name: value for name, value in EMAIL.items() if name != 'content'},
    {name: value for name, value in EMAIL.items() if name != 'from_email'}])
def test_what_the_schema_forbids_is_refused(server, document, email):
    assert not validator(document, 'Submission').is_valid(email)
    assert server.send(email).status in (400, 422)


BATCH = [EMAIL, {'from': 'Shop <shop@example.com>', 'to': 'a@example.org',
                 'text': 'hi'}]


@pytest.mark.parametrize('body, good', [
    ({'emails': BATCH}, True),
    ({'emails': [EMAIL] * 500, 'pool_api_key': POOL_KEY}, True),
    ({'emails': []}, False), ({'emails': [EMAIL] * 501}, False),
    ({}, False), (BATCH, False), ({'emails': BATCH, 'colour': 1}, False),
    ({'emails': [{**EMAIL, 'pool_api_key': POOL_KEY}]}, False)])
def test_a_batch_is_described(server, document, body, good):
    assert validator(document, 'KeyedBatch').is_valid(body) is good


def test_a_batch_is_answered_as_described(server, document):
    reply = server.request('POST', '/example.com/send/batch', {
        'emails': [*BATCH, {}, {**EMAIL, 'from_email': 'x@bank.example'}]},
        key=POOL_KEY)
    validator(document, 'BatchAnswer').validate(reply.json)
    assert (reply.json['stored'], reply.json['refused']) == (2, 2)


@pytest.mark.parametrize('path', [
    '/{domain}/send', '/{domain}/send/batch'])
def test_what_a_sender_may_say_in_headers_is_described(
        server, document, path):
    operation = document['paths'][path]['post']
    named = {one['name'] for one in operation['parameters']
             if one['in'] == 'header'}
    assert named == {'Idempotency-Key', 'Prefer'}
    body = EMAIL if path.endswith('send') else {'emails': [EMAIL]}
    headers = {'Idempotency-Key': path, 'Prefer': 'respond-async'}
    for _ in range(2):
        reply = server.request(
            'POST', path.format(domain='example.com'), body, headers,
            POOL_KEY)
        described = operation['responses'][str(reply.status)]['headers']
        ours = {'Location', 'Idempotent-Replayed', 'Preference-Applied'}
        assert ours & set(reply.headers) <= set(described)
    assert 'Idempotent-Replayed' in reply.headers


def test_an_erased_message_is_as_described(server, document):
    path = f'/example.com/messages/{server.send().json["id"]}'
    reply = server.request('DELETE', path, key=ADMIN_KEY)
    validator(document, 'Timeline').validate(reply.json)
    assert set(document['paths']['/{domain}/messages/{message_id}']) == {
        'get', 'delete'}


def test_answers_are_as_described(server, document):
    sent = server.send()
    validator(document, 'Sent').validate(sent.json)
    page = server.get('/example.com/messages/?limit=1', POOL_KEY).json
    validator(document, 'Page').validate(page)
    for key in (POOL_KEY, ADMIN_KEY):
        story = server.get(
            f'/example.com/messages/{sent.json["id"]}', key).json
        validator(document, 'Timeline').validate(story)
    for key in (None, POOL_KEY, ADMIN_KEY):
        validator(document, 'PoolsAnswer').validate(
            server.get('/', key).json)
        validator(document, 'PoolAnswer').validate(
            server.get('/example.com/', key).json)
    for bad in (server.send({}), server.get('/nowhere')):
        validator(document, 'Problem').validate(bad.json)
