"""TLS to a PostgreSQL server: who it is is looked at where that is asked."""

import pytest

from stampman.helpers.exceptions import StoreUnavailable
from stampman.store import open_store

from backends import POOL, add
from certificates import Authority
from postgres_tls import TlsFront


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def opened(postgres_server, postgres_url):
    """A function that opens a store behind a front, as `host`, with options
    of the URL."""
    stores = []

    def open_one(front, host, options):
        url = postgres_url.replace(
            f'@127.0.0.1:{postgres_server.port}/', f'@{host}:{front.port}/')
        stores.append(open_store(f'{url}?{options}'))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


def front(postgres_server, context):
    return TlsFront(postgres_server.port, context)


@pytest.mark.parametrize('names, host', [
    (['localhost'], 'localhost'), (['127.0.0.1'], '127.0.0.1'),
    (['db.example.com', 'localhost'], 'localhost')])
@pytest.mark.parametrize('mode', ['verify-full', 'verify-ca', 'require'])
def test_a_server_that_is_known_is_spoken_to(
        postgres_server, authority, opened, names, host, mode):
    with front(postgres_server, authority.server(*names)) as tls:
        store = opened(tls, host,
                       f'sslmode={mode}&sslrootcert={authority.file}')
        there = add(store)
        assert store.message(POOL, there.id).id == there.id
        store.close()
        assert tls.encrypted > 0 == tls.refused


@pytest.mark.parametrize('names', [['db.example.com'], ['127.0.0.2']])
def test_one_by_another_name_is_not(
        postgres_server, authority, opened, names):
    with front(postgres_server, authority.server(*names)) as tls:
        store = opened(tls, 'localhost',
                       f'sslmode=verify-full&sslrootcert={authority.file}')
        for use in (store.waiting, store.migrate, lambda: add(store)):
            with pytest.raises(StoreUnavailable, match='for another name'):
                use()
        known = opened(tls, 'localhost',
                       f'sslmode=verify-ca&sslrootcert={authority.file}')
        assert known.waiting() == {}        # whoever asks for less, gets it
        known.close()


@pytest.mark.parametrize('mode', ['verify-full', 'verify-ca'])
def test_nor_is_one_whose_certificate_is_nobody_s_that_we_know(
        postgres_server, authority, opened, mode, tmp_path):
    other = tmp_path / 'other'
    other.mkdir()
    with front(postgres_server,
               Authority(other).server('localhost')) as tls:
        store = opened(tls, 'localhost',
                       f'sslmode={mode}&sslrootcert={authority.file}')
        with pytest.raises(StoreUnavailable, match='TLS could not'):
            store.waiting()


def test_nor_is_one_whose_certificate_has_expired(
        postgres_server, authority, opened):
    with front(postgres_server, authority.server(
            'localhost', expired=True)) as tls:
        store = opened(tls, 'localhost',
                       f'sslmode=verify-full&sslrootcert={authority.file}')
        with pytest.raises(StoreUnavailable, match='TLS could not'):
            store.waiting()
