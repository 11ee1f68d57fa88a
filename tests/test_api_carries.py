"""What each service can carry, as an admin reads it."""

import pytest

from gateway_server import (
    ADMIN_KEY, POOL_KEY, GatewayServer, Page, config, sendgrid_at)

SERVICES = {
    'main': sendgrid_at('http://127.0.0.1:9'),
    'backup': {'provider': 'mailgun', 'api_key': 'a-key', 'priority': 2}}


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    with GatewayServer(tmp_path_factory.mktemp('carries'),
                       config(SERVICES)) as running:
        yield running


def test_an_admin_is_told_what_each_service_can_carry(server):
    for pool in (server.get('/example.com/', ADMIN_KEY).json,
                 server.get('/', ADMIN_KEY).json['pools'][0]):
        main, backup = (one['carries'] for one in pool['services'])
        assert main['size'] == 'up to 29,999,999 bytes as sent to it'
        assert main['recipients'] == backup['recipients'] == 'up to 1,000'
        assert main['tags'] == 'up to 10, of up to 255 characters'
        assert backup['tags'] == 'any, ASCII'
        assert list(main) == list(backup)


@pytest.mark.parametrize('key', [None, POOL_KEY])
def test_nobody_else_is(server, key):
    for path in ('/', '/example.com/'):
        assert 'carries' not in server.get(path, key).text


def test_the_page_has_a_row_for_each_topic_and_a_column_for_each_service(
        server, admin):
    topics = server.get('/example.com/', ADMIN_KEY).json[
        'services'][0]['carries']
    page = admin.page('/example.com/')

    heads = [attributes.get('scope') for tag, attributes in page.tags
             if tag == 'th']
    assert heads.count('col') == len(SERVICES)
    assert heads.count('row') == len(topics)
    assert 'What each service can carry' in page.text
    for topic, text in topics.items():
        assert topic.capitalize() in page.text and text in page.text


def test_the_list_of_pools_hides_the_tables_until_they_are_asked_for(
        admin, browser):
    tags = [tag for tag, _ in admin.page('/').tags]
    assert tags.count('details') == 2
    assert 'What each service can carry' not in browser.page('/').text
    assert 'What each service can carry' not in Page(
        browser.get('/example.com/').text).text
