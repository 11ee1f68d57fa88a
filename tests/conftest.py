"""What every test gets: strictness, repeatable data, a config to change."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import settings

from stampman.store import open_store

from gateway_server import Browser
from servers import Recorder
from strict import (    # noqa: F401 (pytest finds its hooks here)
    pytest_make_collect_report, pytest_runtest_makereport)

settings.register_profile('ordinary', deadline=None, max_examples=60)
settings.register_profile('ci', deadline=None, max_examples=60,
                          derandomize=True)
settings.load_profile('ci' if os.environ.get('CI') else 'ordinary')

MEMORY = '/dev/shm'
ENOUGH = 4 << 30        # bytes


def in_memory():
    """Whether files may be made in memory, and programs run from there: what
    is committed again and again need not wait for a disk."""
    try:
        found = os.statvfs(MEMORY)
    except OSError:
        return False
    return os.access(MEMORY, os.W_OK) \
        and found.f_bavail * found.f_frsize > ENOUGH \
        and not found.f_flag & (os.ST_NOEXEC | os.ST_RDONLY)


if in_memory():         # where `tmp_path` is
    os.environ.setdefault('PYTEST_DEBUG_TEMPROOT', MEMORY)

POOL_KEY = 'pool-key-of-the-tests'
ADMIN_KEY = 'admin-key-of-the-tests'


@pytest.fixture(scope='session')
def hunts(request):
    """The hunts for the mutants that are asked for, as many at a time as
    there are cores."""
    from simulation.mutating import hunt
    wanted = [item.callspec.params['mutant']
              for item in request.session.items
              if 'hunts' in item.fixturenames]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        yield {mutant.name: pool.submit(hunt, mutant) for mutant in wanted}
        pool.shutdown(cancel_futures=True)


@pytest.fixture(scope='session', autouse=True)
def begin_hunts(request):
    """Begin what computes for minutes before what waits for minutes."""
    if any('hunts' in item.fixturenames for item in request.session.items):
        request.getfixturevalue('hunts')


@pytest.fixture
def browser(server):
    return Browser(server)


@pytest.fixture
def admin(server):
    signed_in = Browser(server)
    assert signed_in.sign_in().status == 303
    return signed_in


@pytest.fixture(scope='module')
def silent():
    """A provider that never says whether it took an email."""
    with Recorder() as recorder:
        recorder.answer(504)
        yield recorder


@pytest.fixture(scope='module')
def taking():
    """A provider that takes every email."""
    with Recorder() as recorder:
        recorder.answer(202, headers={'X-Message-Id': 'theirs'})
        yield recorder


@pytest.fixture(scope='session')
def postgres_installation():
    import postgres
    with postgres.installed() as installation:
        yield installation


@pytest.fixture(scope='session')
def postgres_server(postgres_installation):
    """A PostgreSQL server that all tests share; it syncs nothing."""
    import postgres
    with postgres.PostgresServer(
            postgres_installation, **postgres.FAST) as server:
        yield server


@pytest.fixture(scope='session')
def postgres_migrated(postgres_server):
    """The name of a database with the schema, to copy: it stays empty."""
    name = postgres_server.new_database()
    store = open_store(postgres_server.url(name))
    store.migrate()
    store.close()
    return name


@pytest.fixture(scope='session')
def postgres_contract(postgres_server, postgres_migrated):
    """The name of a database for the tests of the contract, which empty
    it: that is faster than to make one for each."""
    return postgres_server.new_database(postgres_migrated)


@pytest.fixture
def postgres_url(postgres_server, postgres_migrated):
    """The URL of a fresh database with the schema."""
    return postgres_server.url(
        postgres_server.new_database(postgres_migrated))


@pytest.fixture
def own_postgres(postgres_installation):
    """A PostgreSQL server of the test's own, to do harm to; it syncs."""
    import postgres
    with postgres.PostgresServer(postgres_installation) as server:
        yield server


@pytest.fixture
def url(own_postgres):
    """The URL of a migrated database in it."""
    from stampman.store import open_store
    made = own_postgres.url(own_postgres.new_database())
    store = open_store(made)
    store.migrate()
    store.close()
    return made


@pytest.fixture
def write_config(tmp_path):
    """Return a function that writes a config file and returns its path.

    It takes what is to stand beside or instead of one pool `example.com`
    with the service `capture`, and one admin.
    """
    def write(**changes):
        path = tmp_path / 'config.json'
        path.write_text(json.dumps({
            'pools': [{'domain': 'example.com', 'api_key': POOL_KEY,
                       'services': {'capture': {}}}],
            'admins': [{'name': 'ops', 'api_key': ADMIN_KEY}],
            **changes}), 'utf-8')
        return path
    return write
