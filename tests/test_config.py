"""The config file: filled, checked, and every problem told at once."""

import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings, strategies as st, HealthCheck

from stampman import services
from stampman.services._config_schema import config_schema
from stampman.helpers.config import key_digest, load
from stampman.helpers.exceptions import ConfigError

ROOT = Path(__file__).resolve().parent.parent
KEY = 'k' * 16
KEYS = {'STAMPMAN_POOL_KEY': 'pool' * 8, 'STAMPMAN_ADMIN_KEY': 'admin' * 8}


def settings_of(provider):
    return services.service_class(provider).Settings


def loaded(path, **environ):
    return load(path, environ, settings_of)


def problems_of(path, **environ):
    """Return what is wrong, by place; one mistake is one error."""
    with pytest.raises(ConfigError) as raised:
        loaded(path, **environ)
    found = dict(raised.value.errors)
    assert len(found) == len(raised.value.errors), raised.value.errors
    for place, message in found.items():
        assert f'{place}: {message}' in str(raised.value)
    return found


def pool(**changes):
    return {'domain': 'example.com', 'api_key': KEY,
            'services': {'capture': {}}, **changes}


# -- what the repository ships -------------------------------------------


def test_the_config_of_the_repository_runs_as_it_stands():
    config = loaded(ROOT / 'config.json', **KEYS)
    found, = config.pools
    assert found.domain == 'example.com'
    assert found.keys == (KEYS['STAMPMAN_POOL_KEY'],)
    assert {name: service.provider for name, service
            in found.services.items()} == {'capture': 'capture'}
    assert config.admins[0].keys == (KEYS['STAMPMAN_ADMIN_KEY'],)


def test_the_config_of_the_repository_holds_no_key():
    assert problems_of(ROOT / 'config.json') == {
        'pools[0].api_key': 'the environment variable STAMPMAN_POOL_KEY is '
                            'not set',
        'admins[0].api_key': 'the environment variable STAMPMAN_ADMIN_KEY '
                             'is not set'}


SCHEMA = json.loads((ROOT / 'config.schema.json').read_text('utf-8'))
EVERYTHING = {
    '$schema': './config.schema.json', '_why': ['any', {'thing': None}],
    'pools': [pool(
        api_keys=['sha256:' + '0' * 64], allowed_senders=['*', 'a@b.co'],
        on_uncertain='hold', expires_after=3600, rate=2.5, _note='x',
        services={
            'sendgrid': {'api_key': 'x', 'region': 'eu', 'priority': 2,
                         'enabled': True, 'timeout': 5.5, '_note': 'x'},
            'second': {'provider': 'mailgun', 'api_key': 'x',
                       'sending_domain': 'mg.example.com',
                       'base_url': 'https://mail.example.com/api/',
                       'proxy': 'http://user:pw@proxy.example.com:3128'},
            'capture': {'enabled': False}})],
    'admins': [{'name': 'ops', 'api_key': 'o' * 16}],
    'public': False, 'trusted_hosts': ['mail.example.com'],
    'limits': {'recipients': 10, 'body_bytes': 1000}}
VARIABLES = {
    'pools': [pool(
        expires_after='${EXPIRES}', rate='${RATE}',
        on_uncertain='${UNCERTAIN}', domain='${DOMAIN}', services={
            'sendgrid': {'api_key': '${KEY}', 'region': '${REGION}',
                         'priority': '${PRIORITY}', 'enabled': '${ON}',
                         'timeout': '${TIMEOUT}'}})],
    'public': '${PUBLIC}', 'limits': {'recipients': '${MANY}'}}
FILLED = {
    'EXPIRES': '3600', 'RATE': '2.5', 'UNCERTAIN': 'hold', 'ON': 'true',
    'DOMAIN': 'Bücher.example', 'KEY': '1234567890123456', 'REGION': 'eu',
    'PRIORITY': '7', 'TIMEOUT': '5', 'PUBLIC': 'false', 'MANY': '12'}


def test_the_schema_is_the_one_that_the_models_make():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA == json.loads(json.dumps(config_schema()))


@pytest.mark.parametrize('data', [
    json.loads((ROOT / 'config.json').read_text('utf-8')), EVERYTHING,
    VARIABLES], ids=['shipped', 'everything', 'variables'])
def test_the_schema_allows_what_is_allowed(data):
    jsonschema.Draft202012Validator(SCHEMA).validate(data)


@pytest.mark.parametrize('data', [
    {}, {'pools': []}, {'pools': [pool()], 'pool': 1},
    {'pools': [pool(services={})]}, {'pools': [pool(rate='fast')]},
    {'pools': [pool(domian='x')]}, {'pools': [pool()], 'public': 'no'},
    {'pools': [pool(services={'sendgrid': {'apikey': 'x'}})]}])
def test_the_schema_refuses_what_is_refused(data, write_config):
    assert not jsonschema.Draft202012Validator(SCHEMA).is_valid(data)
    path = write_config()
    path.write_text(json.dumps(data))
    assert problems_of(path)


# -- filling --------------------------------------------------------------


def test_everything_that_can_be_set_is_read(write_config):
    config = loaded(write_config(**EVERYTHING))
    found, = config.pools
    assert found.keys == (KEY, 'sha256:' + '0' * 64)
    assert (found.on_uncertain, found.expires_after, found.rate) == (
        'hold', 3600, 2.5)
    assert set(found.services) == {'sendgrid', 'second', 'capture'}
    assert found.services['sendgrid'].priority == 2
    assert found.services['second'].provider == 'mailgun'
    assert found.services['second'].base_url == 'https://mail.example.com/api'
    assert not found.services['capture'].enabled
    assert config.public is False and config.limits.recipients == 10


def test_any_scalar_may_be_a_variable(write_config):
    config = loaded(write_config(**VARIABLES), **FILLED)
    found, = config.pools
    service = found.services['sendgrid']
    assert found.domain == 'xn--bcher-kva.example'
    assert (found.expires_after, found.rate) == (3600, 2.5)
    assert (service.priority, service.timeout, service.enabled) == (
        7, 5, True)
    assert service.api_key.get_secret_value() == '1234567890123456'
    assert config.public is False and config.limits.recipients == 12


def test_a_variable_may_be_a_part_of_a_text(write_config):
    found = loaded(write_config(pools=[pool(domain='${A}.${B}')]),
                   A='mail', B='example.com')
    assert found.pools[0].domain == 'mail.example.com'


def test_what_a_variable_holds_is_not_filled_again(write_config):
    path = write_config(pools=[pool(api_key='${KEY}')])
    assert loaded(path, KEY='${OTHER_VARIABLE}').pools[0].keys == (
        '${OTHER_VARIABLE}',)


def test_every_variable_that_is_missing_or_empty_is_named_once(write_config):
    path = write_config(**VARIABLES, _comment='${NOT_READ}')
    found = problems_of(path, DOMAIN='', **{
        name: value for name, value in FILLED.items()
        if name in ('ON', 'UNCERTAIN')})
    assert found == {
        place: f'the environment variable {name} is not set'
        for place, name in {
            'pools[0].expires_after': 'EXPIRES', 'pools[0].rate': 'RATE',
            'pools[0].domain': 'DOMAIN', 'public': 'PUBLIC',
            'limits.recipients': 'MANY',
            'pools[0].services.sendgrid.api_key': 'KEY',
            'pools[0].services.sendgrid.region': 'REGION',
            'pools[0].services.sendgrid.priority': 'PRIORITY',
            'pools[0].services.sendgrid.timeout': 'TIMEOUT'}.items()}


OFF = {'provider': 'mailgun', 'api_key': '${UNSET}', 'priority': '${UNSET}',
       'base_url': '${UNSET}'}


@pytest.mark.parametrize('enabled', [False, '${ENABLED}'])
def test_a_service_that_is_off_needs_no_variable_and_no_key(
        write_config, enabled):
    path = write_config(pools=[pool(services={
        'capture': {}, 'backup': {**OFF, 'enabled': enabled},
        'sendgrid': {'enabled': enabled}})])
    found = loaded(path, ENABLED='false').pools[0].services
    assert not found['backup'].enabled and not found['sendgrid'].enabled


def test_a_service_that_is_off_is_checked_for_all_else(write_config):
    path = write_config(pools=[pool(services={
        'capture': {}, 'sendgrid': {'enabled': False, 'apikey': '${UNSET}',
                                    'region': 'mars'}})])
    found = problems_of(path)
    assert set(found) == {'pools[0].services.sendgrid.apikey',
                          'pools[0].services.sendgrid.region'}


def test_secrets_are_not_shown(write_config):
    config = loaded(write_config(**EVERYTHING))
    shown = repr(config) + str(config.model_dump())
    assert KEY not in shown and 'o' * 16 not in shown
    assert 'pw@' not in repr(config)


# -- what is wrong -----------------------------------------------------------


WRONG = [
    ({'pools': 5}, {'pools': 'must be a list'}),
    ({'pools': []}, {'pools': 'must not be empty'}),
    ({'pools': [5]}, {'pools[0]': 'must be an object'}),
    ({'admins': [{}]}, {'admins[0].name': 'is required'}),
    ({'admins': [{'name': 'x'}]}, {'admins[0]': 'needs an "api_key"'}),
    ({'admin': []}, {'admin': 'these are: admins, keep_bodies, '
                              'keep_messages, limits, pools, public'}),
    ({'public': 'yes'}, {'public': 'must be true or false'}),
    ({'limits': {'bytes': 1, 'recipients': 0}},
     {'limits.bytes': 'these are: attachments, body_bytes, headers, recip',
      'limits.recipients': 'greater than 0'}),
    ({'pools': [pool(domian='x')]},
     {'pools[0].domian': 'these are: allowed_senders, api_key, api_keys, '
                         'domain, expires_after, on_uncertain, rate, serv'}),
    ({'pools': [{}]}, {'pools[0].domain': 'is required',
                       'pools[0].services': 'is required'}),
    ({'pools': [pool(api_key=None)]}, {'pools[0]': 'needs an "api_key"'}),
    *[({'pools': [pool(domain=domain)]}, {'pools[0].domain': message})
      for domain, message in [
          ('', 'is not a domain name'), ('localhost', 'is not a domain'),
          ('a@example.com', 'is not a domain name'), (5, 'be a string'),
          ('https://example.com', 'is not a domain name'),
          ('a b.com', 'is not a domain name')]],
    *[({'pools': [pool(api_key=key)]}, {'pools[0].api_key': message})
      for key, message in [
          ('short', 'at least 16 printable'), ('k' * 15, 'at least 16'),
          ('k' * 16 + ' ', 'without spaces'), ('ü' * 16, 'ASCII'),
          ('sha256:' + 'x' * 64, '64 hex digits'), (5, 'must be a string'),
          ('sha256:' + '0' * 63, '64 hex digits')]],
    ({'pools': [pool(allowed_senders=['x y', 'a@', '*'])]},
     {'pools[0].allowed_senders[0]': 'is not a domain name',
      'pools[0].allowed_senders[1]': 'is not an email address'}),
    ({'pools': [pool(on_uncertain='ask', expires_after=1, rate=0)]},
     {'pools[0].on_uncertain': "'hold' or 'failover'",
      'pools[0].expires_after': 'greater than or equal to 60',
      'pools[0].rate': 'greater than 0'}),
    ({'pools': [pool(rate=True, expires_after='soon')]},
     {'pools[0].rate': 'must be a number',
      'pools[0].expires_after': 'must be a number'}),
    ({'pools': [pool(), pool(domain='EXAMPLE.com', api_key='x' * 16)]},
     {'pools[1].domain': 'is the domain of pools[0] too'}),
    ({'pools': [pool()], 'admins': [{'name': 'x', 'api_key': KEY}]},
     {'admins[0].api_key': 'is a key of pools[0] too'}),
    ({'pools': [pool(), pool(domain='example.org', api_key='sha256:'
                             + key_digest(KEY).hex())]},
     {'pools[1].api_key': 'is a key of pools[0] too'}),
    ({'pools': [pool(services=[])]},
     {'pools[0].services': 'must be an object'}),
    ({'pools': [pool(services={})]},
     {'pools[0].services': 'must not be empty'}),
    ({'pools': [pool(services={'_all': 'out'})]},
     {'pools[0].services': 'must not be empty'}),
    ({'pools': [pool(services={'capture': {'enabled': False}})]},
     {'pools[0].services': 'at least one must be enabled'}),
    ({'pools': [pool(services={'Send Grid': {}, 'capture': 5})]},
     {'pools[0].services.Send Grid': 'a service is named with a-z',
      'pools[0].services.capture': 'must be an object'}),
    ({'pools': [pool(services={'pigeon': {}, 'x': {'provider': 5}})]},
     {'pools[0].services.pigeon.provider': 'these are: amazon_ses, capture',
      'pools[0].services.x.provider': '"5" is not a provider'}),
    ({'pools': [pool(services={'sendgrid': {
        'apikey': 'x', 'region': 'mars', 'priority': 1.5, 'enabled': 'no',
        'timeout': 0, 'base_url': 'http://example.com', 'proxy': 'x'}})]},
     {'pools[0].services.sendgrid.api_key': 'is required',
      'pools[0].services.sendgrid.apikey': 'these are: api_key, base_url',
      'pools[0].services.sendgrid.region': "'global' or 'eu'",
      'pools[0].services.sendgrid.priority': 'must be a whole number',
      'pools[0].services.sendgrid.enabled': 'must be true or false',
      'pools[0].services.sendgrid.timeout': 'greater than 0',
      'pools[0].services.sendgrid.base_url': 'must be https',
      'pools[0].services.sendgrid.proxy': 'must be a URL'}),
]


@pytest.mark.parametrize('changes, expected', WRONG)
def test_each_problem_is_told_once_with_its_place(
        write_config, changes, expected):
    found = problems_of(write_config(**changes))
    assert set(found) == set(expected)
    for place, message in expected.items():
        assert message in found[place]


def test_problems_of_all_kinds_are_told_at_once(write_config):
    found = problems_of(write_config(
        pools=[pool(api_key='${UNSET}', rate=-1),
               pool(services={'pigeon': {}})], publik=True))
    assert set(found) == {'pools[0].api_key', 'pools[0].rate', 'publik',
                          'pools[1].services.pigeon.provider'}


@pytest.mark.parametrize('text, message', [
    ('', 'is not JSON'), ('{', 'is not JSON'), ('[]', 'must be a JSON obj'),
    ('null', 'must be a JSON object'), ('{"a": NaN}', 'NaN is not a number'),
    ('{"a": 1, "a": 2}', 'the key "a" stands twice'),
    ('{"pools": [{"b": {}, "b": {}}]}', 'the key "b" stands twice'),
    ('[' * 100_000, 'is nested too deeply'), ('\ufeff{}', 'is not JSON'),
    ('{"a": ' + '9' * 5000 + '}', 'is not JSON')],
    ids=lambda text: text[:20])
def test_what_is_not_strict_json_is_told(write_config, text, message):
    path = write_config()
    path.write_text(text, 'utf-8')
    with pytest.raises(ConfigError, match=message) as raised:
        loaded(path)
    assert str(path) in str(raised.value)


def test_a_file_that_cannot_be_read_is_told(tmp_path, write_config):
    write_config().write_bytes(b'{"a": "\xff"}')
    for path in (tmp_path / 'config.json', tmp_path / 'none', tmp_path):
        with pytest.raises(ConfigError, match=str(path)):
            loaded(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5)
    | st.sampled_from(['${A}', 'capture', 'example.com']),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(
        st.sampled_from(['domain', 'services', 'capture', 'provider',
                         'api_key', 'enabled', 'name', '_x', 'ü']),
        inner, max_size=3), max_leaves=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(
    ['pools', 'admins', 'limits', 'public', 'x']), JSON))
def test_whatever_stands_in_the_file_the_answer_is_a_config_or_its_problems(
        write_config, data):
    path = write_config()
    path.write_text(json.dumps(data))
    try:
        assert loaded(path).pools
    except ConfigError as error:
        assert error.errors


# -- the pool's rules ---------------------------------------------------------


@pytest.mark.parametrize('allowed, email, expected', [
    ([], 'a@example.com', True), ([], 'a@mail.example.com', False),
    ([], 'a@example.org', False), (['*'], 'a@example.org', True),
    (['example.org'], 'a@example.org', True),
    (['example.org'], 'a@example.com', False),
    (['Bücher.example'], 'a@xn--bcher-kva.example', True),
    (['Ops@Example.org'], 'ops@example.org', True),
    (['ops@example.org'], 'OPS@example.org', True),
    (['ops@example.org'], 'a@example.org', False)])
def test_who_may_be_the_sender(write_config, allowed, email, expected):
    path = write_config(pools=[pool(allowed_senders=allowed)])
    assert loaded(path).pools[0].allows(email) is expected


def test_a_key_and_its_digest_are_the_same_key():
    digest = key_digest(KEY)
    assert key_digest(f'sha256:{digest.hex()}') == digest
    assert key_digest('ключ') != digest
