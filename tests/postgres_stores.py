"""Stores in one database of the server that tests share, and ways to be in
one another's way."""

import threading

import pytest

from stampman.store.sql import SqlStore


@pytest.fixture
def name(postgres_server, postgres_contract):
    """A database with the schema, and empty."""
    postgres_server.empty(postgres_contract)
    return postgres_contract


@pytest.fixture
def fresh(postgres_server, name):
    """Return a function that opens stores of one database."""
    opened = []

    def open_one(clock=None, **options):
        opened.append(SqlStore.at(
            postgres_server.url(name), clock, **options))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture
def store(fresh):
    return fresh()


def at_once(*calls):
    """Do all at once; return what each returned or raised."""
    gate, told = threading.Barrier(len(calls)), [None] * len(calls)

    def do(number, call):
        gate.wait()
        try:
            told[number] = call()
        except Exception as error:
            told[number] = error

    threads = [threading.Thread(target=do, args=one)
               for one in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told


def hold(connection, id):
    connection.exec_driver_sql(
        'SELECT 1 FROM messages WHERE id = %s FOR UPDATE', (id,))


def held_row(store, id):
    inside, leave = threading.Event(), threading.Event()

    def work(connection):
        hold(connection, id)
        inside.set()
        leave.wait(20)

    thread = threading.Thread(target=store._database.write, args=(work,))
    thread.start()
    inside.wait(20)
    return thread, leave


def add_row(connection):
    connection.exec_driver_sql("INSERT INTO rates VALUES ('x', 1, 1)")


def rates(store):
    return store._database.write(lambda connection: connection.exec_driver_sql(
        'SELECT count(*) FROM rates').scalar())
