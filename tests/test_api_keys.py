"""Who may do what: every route with every kind of key."""

import base64

import pytest

from gateway_server import (
    ADMIN_KEY, EMAIL, OTHER_KEY, POOL_KEY, WRONG_KEY, GatewayServer, config)

KEYS = {'none': None, 'wrong': WRONG_KEY, 'other': OTHER_KEY,
        'pool': POOL_KEY, 'admin': ADMIN_KEY}
ANYONE = {'none': 200, 'wrong': 401, 'other': 200, 'pool': 200, 'admin': 200}
EITHER = {'none': 401, 'wrong': 401, 'other': 403, 'pool': 200, 'admin': 200}
HOLDER = {**EITHER, 'none': 200}
POOL = {**EITHER, 'admin': 403}
ADMIN = {**EITHER, 'pool': 403}
OPEN = dict.fromkeys(KEYS, 200)
NOT_BUILT = dict.fromkeys(KEYS, 404)


def but(table, **statuses):
    """Return `table` where those who are let in get another status."""
    return {who: statuses.get(who, status) for who, status in table.items()}


CONFLICT = but(EITHER, pool=409, admin=409)
ROUTES = [      # method, path, body, who gets what
    ('GET', '/', None, ANYONE),
    ('POST', '/', {}, ADMIN),
    ('GET', '/example.com/', None, HOLDER),
    ('POST', '/example.com/', {}, ADMIN),
    ('GET', '/example.com/send', None, OPEN),
    ('POST', '/example.com/send', EMAIL, POOL),
    ('POST', '/example.com/send/batch', {'emails': [EMAIL]}, POOL),
    ('GET', '/example.com/messages/', None, EITHER),
    ('GET', '/example.com/messages/{id}', None, EITHER),
    ('POST', '/example.com/messages/{id}/retry', None, CONFLICT),
    ('POST', '/example.com/messages/{id}/retry', {}, CONFLICT),
    ('POST', '/example.com/messages/{id}/cancel', None, CONFLICT),
    ('POST', '/example.com/messages/{id}/resolve',
     {'verdict': 'not_sent'}, CONFLICT),
    ('DELETE', '/example.com/messages/{id}', None, EITHER),
    ('POST', '/example.com/messages/{id}/erase', {}, EITHER),
    ('GET', '/healthz', None, OPEN),
    ('GET', '/readyz', None, OPEN),
    ('GET', '/openapi.json', None, OPEN),
    ('GET', '/login', None, OPEN),
    ('POST', '/example.com/webhooks/capture', {}, NOT_BUILT),
    ('GET', '/example.com/suppressions/', None, NOT_BUILT),
    ('POST', '/example.com/suppressions/', {}, NOT_BUILT),
    ('POST', '/example.com/services/capture/drain', {}, NOT_BUILT),
    ('POST', '/example.com/services/capture/resume', {}, NOT_BUILT),
    ('GET', '/metrics', None, NOT_BUILT),
]


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    with GatewayServer(tmp_path_factory.mktemp('keys'), config()) as running:
        yield running


@pytest.fixture(scope='module')
def message_id(server):
    return server.send().json['id']


@pytest.mark.parametrize('who', KEYS)
@pytest.mark.parametrize('method, path, body, expected', ROUTES)
def test_each_route_lets_in_whom_it_should(
        server, message_id, method, path, body, expected, who):
    reply = server.request(
        method, path.format(id=message_id), body, key=KEYS[who])

    assert reply.status == expected[who], reply.text
    if reply.status == 401:
        assert reply.headers.get_all('WWW-Authenticate') == ['Bearer']


@pytest.mark.parametrize('path', [
    '/example.com/messages/{id}', '/EXAMPLE.com/messages/{id}/'])
def test_a_message_of_another_pool_is_not_found(server, message_id, path):
    path = path.format(id=message_id).lower()

    assert server.get(path, POOL_KEY).status == 200
    other = path.replace('example.com', 'xn--bcher-kva.example')
    for suffix, method in (('', 'GET'), ('retry', 'POST'),
                           ('cancel', 'POST'), ('', 'DELETE'),
                           ('erase', 'POST')):
        reply = server.request(
            method, f'{other.rstrip("/")}/{suffix}'.rstrip('/'),
            key=OTHER_KEY)
        assert reply.status == 404


@pytest.mark.parametrize('key', KEYS.values())
@pytest.mark.parametrize('method, path, body, expected', [
    route for route in ROUTES if 'example.com' in route[1]])
def test_an_unknown_domain_is_not_found_for_everybody(
        server, method, path, body, expected, key):
    path = path.replace('example.com', 'example.net').format(id='x')

    assert server.request(method, path, body, key=key).status == 404


def basic(password, user='anybody'):
    text = base64.b64encode(f'{user}:{password}'.encode()).decode()
    return {'Authorization': f'Basic {text}'}


@pytest.mark.parametrize('email, headers', [
    (EMAIL, {'Authorization': f'Bearer {POOL_KEY}'}),
    (EMAIL, {'Authorization': f'bearer {POOL_KEY}'}),
    (EMAIL, basic(POOL_KEY)),
    (EMAIL, basic(POOL_KEY, '')),
    ({**EMAIL, 'pool_api_key': POOL_KEY}, {}),
    ({**EMAIL, 'pool_api_key': POOL_KEY},
     {'Authorization': f'Bearer {POOL_KEY}'})])
def test_a_key_travels_in_a_header_or_in_the_json(server, email, headers):
    assert server.send(email, None, **headers).status == 200


@pytest.mark.parametrize('email, headers, status', [
    (EMAIL, {'Authorization': POOL_KEY}, 401),
    (EMAIL, {'Authorization': 'Bearer'}, 401),
    (EMAIL, {'Authorization': f'Digest {POOL_KEY}'}, 401),
    (EMAIL, {'Authorization': 'Basic %%%'}, 401),
    (EMAIL, {'Authorization': 'Bearer schlüssel'}, 401),
    (EMAIL, {'Authorization': f'Bearer {POOL_KEY}x'}, 401),
    (EMAIL, {'Authorization': f'Bearer {POOL_KEY.upper()}'}, 401),
    (EMAIL, {'X-Api-Key': POOL_KEY}, 401),
    (EMAIL, basic('wrong', POOL_KEY), 401),
    ({**EMAIL, 'pool_api_key': ''}, {}, 401),
    ({**EMAIL, 'pool_api_key': 'schlüssel🔑'}, {}, 401),
    ({**EMAIL, 'pool_api_key': ADMIN_KEY}, {}, 401),
    ({**EMAIL, 'admin_api_key': POOL_KEY}, {}, 401),
    ({**EMAIL, 'admin_api_key': ADMIN_KEY}, {}, 403),
    ({**EMAIL, 'pool_api_key': OTHER_KEY}, {}, 403),
    ({**EMAIL, 'pool_api_key': None}, {}, 422),
    ({**EMAIL, 'pool_api_key': [POOL_KEY]}, {}, 422),
    ({**EMAIL, 'pool_api_key': POOL_KEY, 'admin_api_key': ADMIN_KEY},
     {}, 400),
    ({**EMAIL, 'pool_api_key': OTHER_KEY},
     {'Authorization': f'Bearer {POOL_KEY}'}, 400),
    ({**EMAIL, 'pool_api_key': WRONG_KEY},
     {'Authorization': f'Bearer {POOL_KEY}'}, 401)])
def test_what_is_no_key_opens_nothing(server, email, headers, status):
    encoded = {name: value.encode('utf-8').decode('latin-1')
               for name, value in headers.items()}

    assert server.send(email, None, **encoded).status == status


def test_an_admins_key_in_the_json_shows_what_a_get_with_it_shows(server):
    for path in ('/', '/example.com/'):
        posted = server.request(
            'POST', path, {'admin_api_key': ADMIN_KEY})
        assert posted.json == server.get(path, ADMIN_KEY).json
    assert posted.json['services'][0]['state'] == 'available'
    unknown = server.request(
        'POST', '/', {'admin_api_key': ADMIN_KEY, 'more': 1})
    assert (unknown.status, unknown.fields) == (422, ['more'])


def test_who_knows_nothing_sees_services_but_not_how_they_are(server):
    for key, fields in ((None, {'name', 'provider', 'priority'}),
                        (POOL_KEY, {'name', 'provider', 'priority', 'state'}),
                        (ADMIN_KEY, {'name', 'provider', 'priority', 'state',
                                     'account', 'carries'})):
        pool = server.get('/example.com/', key).json
        assert set(pool['services'][0]) == fields
    assert 'services' not in server.get('/').json['pools'][0]
    assert 'services' in server.get('/', ADMIN_KEY).json['pools'][0]
    assert server.get('/', ADMIN_KEY).json['pools'][0]['waiting'] == {}


@pytest.mark.parametrize('path', [
    f'/?api_key={POOL_KEY}', '/?token=x', '/?Key=', '/healthz?pool_api_key=x',
    f'/example.com/send?anything={POOL_KEY}',
    f'/example.com/messages/?recipient={ADMIN_KEY}'])
def test_a_key_in_the_url_is_refused(server, path):
    reply = server.get(path)

    assert reply.status == 400
    assert 'Authorization: Bearer' in reply.json['detail']


def test_a_stored_digest_is_no_key_and_the_key_it_is_of_is_one(tmp_path):
    digest = ('sha256:'         # of "the-key-that-was-hashed", by sha256sum
              '0ce694e7f56b00216526174379fa7dea'
              '06d664ba568bf2d367a3d913b4be46b7')
    configured = config()
    configured['pools'][0]['api_key'] = digest
    with GatewayServer(tmp_path, configured) as server:
        assert server.send(key='the-key-that-was-hashed').status == 200
        assert server.send(key=digest).status == 401
        assert server.send(key=digest.removeprefix('sha256:')).status == 401


def test_keys_can_be_rotated_and_nothing_need_be_public(tmp_path):
    configured = config(public=False)
    configured['pools'][0] |= {'api_key': None, 'api_keys': [
        'the-newer-pool-key', POOL_KEY]}
    with GatewayServer(tmp_path, configured) as server:
        assert server.send(key=POOL_KEY).status == 200
        assert server.send(key='the-newer-pool-key').status == 200
        assert server.get('/').status == 401
        assert server.get('/example.com/').status == 401
        assert server.get('/example.com/', POOL_KEY).status == 200
        seen = [[pool['domain'] for pool in server.get('/', key).json['pools']]
                for key in (POOL_KEY, ADMIN_KEY)]
        assert seen == [['example.com'],
                        ['example.com', 'xn--bcher-kva.example']]
        assert server.get('/healthz').status == 200


def test_no_key_and_no_content_gets_into_the_log(server):
    server.send({**EMAIL, 'pool_api_key': POOL_KEY, 'subject': 'canary-one',
                 'content': 'canary-two'}, None)
    server.get(f'/?api_key={POOL_KEY}')
    server.get('/', 'canary-three')

    for canary in (POOL_KEY, ADMIN_KEY, 'canary', 'ada@example.org'):
        assert canary not in server.log
    assert '"status": 200' in server.log
