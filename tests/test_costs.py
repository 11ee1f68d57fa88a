"""What a send costs, in what can be counted: so it is seen when it grows."""

import json

import pytest
from sqlalchemy import Engine, event

from stampman.gateway import Gateway, load_config
from stampman.helpers import environment as environments
from stampman.helpers.mail import submission
from stampman.opening import surroundings

from fresh import put_fresh
from gateway_server import EMAIL, SECRET_KEY, config, sendgrid_at
from servers import Recorder

TAKEN = (202, b'', {'X-Message-Id': 'theirs'})
SENDS = 20


class Counted:
    """A gateway with one provider, and the statements of its store."""

    def __init__(self, folder, provider):
        path = folder / 'config.json'
        path.write_text(json.dumps(
            config({'sendgrid': sendgrid_at(provider.url)})))
        environment = environments.read({
            'STAMPMAN_CONFIG': str(path), 'STAMPMAN_SECRET_KEY': SECRET_KEY})
        put_fresh(folder / 'stampman.db')
        self.gateway = Gateway(
            load_config(environment), environment, surroundings())
        self.statements = []
        event.listen(Engine, 'before_cursor_execute', self._note)
        for _ in range(2):  # opens what stays open, asks what is remembered
            self.send()
        self.gateway.store._database.write(self._trace)
        self.statements.clear()

    def _trace(self, connection):
        """The driver tells of what does not go by SQLAlchemy, too."""
        event.remove(Engine, 'before_cursor_execute', self._note)
        connection.connection.driver_connection.set_trace_callback(
            self.statements.append)

    def _note(self, connection, cursor, statement, *_):
        self.statements.append(statement)

    def send(self, **options):
        return self.gateway.send(
            'example.com', submission(EMAIL),
            self.gateway.clock.monotonic(), **options).message


@pytest.fixture
def counted(tmp_path):
    with Recorder() as provider:
        provider.answer(*TAKEN)
        made = Counted(tmp_path, provider)
        yield made, provider
        made.gateway.store.close()


def kinds(statements):
    return [' '.join(one.split()[:3 if one.startswith('INSERT') else 2])
            for one in statements]


def test_a_send_is_two_commits_and_seven_statements(counted):
    """Each commit is one sync of the disk. More may share one."""
    made, _ = counted
    for _ in range(SENDS):
        assert made.send().state == 'accepted'
    assert kinds(made.statements) == [
        'BEGIN IMMEDIATE', 'INSERT INTO messages', 'INSERT INTO emails',
        'INSERT INTO recipients', 'INSERT INTO attempts', 'COMMIT',
        'BEGIN IMMEDIATE', 'UPDATE attempts', 'UPDATE messages',
        'UPDATE recipients', 'COMMIT'] * SENDS


def test_a_send_for_the_worker_is_one_commit(counted):
    made, _ = counted
    assert made.send(at_once=False).state == 'queued'
    assert kinds(made.statements) == [
        'BEGIN IMMEDIATE', 'INSERT INTO messages', 'INSERT INTO emails',
        'INSERT INTO recipients', 'COMMIT']


def test_all_sends_share_one_connection_to_the_provider(counted):
    made, provider = counted
    for _ in range(SENDS):
        made.send()
    assert len(provider.requests) == SENDS + 2
    assert provider.connections == 1
