"""When something of our own breaks: the answer still gets out."""

import logging

import pytest
from jinja2 import DictLoader

from stampman.helpers.exceptions import LeaseLost

from gateway_server import ADMIN_KEY, EMAIL, POOL_KEY, api_in_process

HEADERS = {'Authorization': f'Bearer {POOL_KEY}', 'Accept': 'text/html'}


@pytest.fixture
def api(tmp_path):
    api = api_in_process(tmp_path)
    yield api
    api.gateway.store.close()


def test_a_page_that_cannot_be_rendered_comes_as_json_after_a_send(
        api, caplog):
    api.jinja_env.loader = DictLoader({'sent.html': '{{ 1 / 0 }}'})

    reply = api.test_client().post(
        '/example.com/send', json=EMAIL, headers=HEADERS)

    assert (reply.status_code, reply.json['status']) == (200, 'accepted')
    assert reply.headers['Content-Type'] == 'application/json'
    assert 'the page cannot be rendered' in caplog.text


def test_a_problem_whose_page_cannot_be_rendered_comes_as_json(api):
    api.jinja_env.loader = DictLoader({})

    reply = api.test_client().get('/nowhere', headers=HEADERS)

    assert (reply.status_code, reply.json['code']) == (404, 'not_found')
    assert reply.headers['Content-Type'] == 'application/problem+json'


@pytest.mark.parametrize('error', [
    ZeroDivisionError('canary'), LeaseLost('canary'), KeyError('canary'),
    UnicodeEncodeError('utf-8', 'canary', 0, 1, 'canary')])
@pytest.mark.parametrize('accept', ['*/*', 'text/html'])
def test_a_bug_is_a_500_that_tells_nothing_and_is_logged(
        api, caplog, error, accept):
    @api.get('/broken')
    def broken():
        raise error

    with caplog.at_level(logging.ERROR):
        reply = api.test_client().get('/broken', headers={'Accept': accept})

    assert reply.status_code == 500
    assert 'canary' not in reply.text and 'Traceback' not in reply.text
    assert reply.headers['X-Request-Id'] in reply.text
    record, = [one for one in caplog.records if one.exc_info]
    assert record.exc_info[1] is error


def test_a_new_config_brings_its_own_keys(api):
    client = api.test_client()
    assert client.get('/example.com/messages/', headers={
        'Authorization': f'Bearer {ADMIN_KEY}'}).status_code == 200
    admin = api.gateway.config.admins[0]
    api.gateway.config = api.gateway.config.model_copy(
        update={'admins': (admin.model_validate(
            {'name': 'ops', 'api_key': 'another-admin-key'}),)})

    for key, status in ((ADMIN_KEY, 401), ('another-admin-key', 200)):
        reply = client.get('/example.com/messages/', headers={
            'Authorization': f'Bearer {key}'})
        assert reply.status_code == status
