"""What the store holds, read past the program that is tested."""

import json
from collections.abc import Iterator

from stampman.store.schema import metadata

from simulation.databases import NEVER, Databases


class Journal:
    """What is committed, of whatever database."""

    def __init__(self, databases: Databases):
        self._databases = databases
        self.rows = databases.rows

    def next_due(self, scheduler) -> float:
        """Return the virtual time when something is due; or NEVER."""
        due, lease = self.rows(
            'SELECT min(next_attempt_at), min(lease_until) FROM messages')[0]
        times = [NEVER]
        if due is not None:
            times.append(due - scheduler.wall() + scheduler.time)
        if lease is not None:
            times.append(lease - self._databases.lease_time()
                         + scheduler.time)
        return min(times)

    def is_held(self, message_id: str) -> bool:
        """Say whether a message has a lease, be it run out."""
        return bool(self.rows(
            "SELECT 1 FROM messages WHERE id = ? AND state = 'sending'",
            message_id))

    def is_busy(self) -> bool:
        """Say whether anything waits or is being sent, at first sight."""
        return bool(self.rows(
            "SELECT 1 FROM messages WHERE state IN "
            "('queued', 'sending', 'deferred') LIMIT 1"))

    def objections(self, message_id: str, attempt_id: str, owner: str,
                   latest: float) -> Iterator[tuple[str, str]]:
        """Yield what speaks against a provider call that begins now;
        `owner` is the process, `latest` the latest time that any clock has
        shown."""
        attempts = {id: kind for id, kind in self.rows(
            'SELECT id, kind FROM attempts WHERE message_id = ?',
            message_id)}
        held = self.rows(
            "SELECT 1 FROM messages WHERE id = ? AND (state = 'accepted' "
            'OR leased_by = ?)', message_id, owner)
        if attempt_id not in attempts:
            yield 'I6', f'{attempt_id} of {message_id} is not in the journal'
        elif attempts[attempt_id] is not None and not held:
            yield 'I8', f'{attempt_id} of {message_id} has an end already'
        for id, kind in attempts.items():
            if kind is None and id != attempt_id:
                yield 'I8', f'{id} of {message_id} is open while ' \
                    f'{attempt_id} begins'
        for send_at, started_at, expires_at in self.rows(
                'SELECT m.send_at, a.started_at, m.expires_at FROM messages '
                'm JOIN attempts a ON a.message_id = m.id '
                'WHERE m.id = ? AND a.id = ?', message_id, attempt_id):
            if send_at is not None and latest < send_at:
                yield 'I9', f'{message_id} begins before its send_at'
            if started_at >= expires_at:
                yield 'I9', f'{message_id} begins {attempt_id} ' \
                    f'{started_at - expires_at:.1f} s after its expires_at'

    def messages(self) -> list[dict]:
        """Return every message, with its attempts and recipients."""
        columns = ('id', 'state', 'expires_at', 'on_uncertain', 'round',
                   'next_attempt_at', 'lease_until', 'restarted_after',
                   'crashes', 'possible_duplicate', 'reason', 'send_at',
                   'erased_at')
        found = [dict(zip(columns, row)) for row in self.rows(
            f'SELECT {", ".join(columns)} FROM messages ORDER BY id')]
        for one in found:
            one['attempts'] = self._attempts(one['id'])
            one['recipients'] = self.rows(
                'SELECT email, status, provider_message_id FROM recipients '
                'WHERE message_id = ? ORDER BY position', one['id'])
        return found

    def _attempts(self, message_id):
        columns = ('id', 'service', 'kind', 'outcome', 'resolved',
                   'envelope', 'replays', 'started_at', 'ended_at')
        found = [dict(zip(columns, row)) for row in self.rows(
            f'SELECT {", ".join(columns)} FROM attempts '
            'WHERE message_id = ? ORDER BY number', message_id)]
        for one in found:
            for name in ('outcome', 'envelope'):
                one[name] = one[name] and json.loads(one[name])
        return found

    def health(self) -> list[tuple[str, dict]]:
        return [(key, json.loads(state)) for key, state in self.rows(
            'SELECT key, state FROM health ORDER BY key')]

    def dump(self) -> str:
        """Return all that the store holds, as text."""
        tables = sorted([*metadata.tables, 'alembic_version'])
        return '\n'.join(
            line for table in tables for line in sorted(
                f'{table} {row}' for row in self.rows(
                    f'SELECT * FROM {table}')))
