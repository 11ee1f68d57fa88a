"""A folder with a config and a database, for processes of Stampman."""

import json
import time

from stampman.helpers.delivery import State
from stampman.opening import new_id
from stampman.store import open_store
from stampman.store.base import Filter

from fakes import email, message
from fresh import put_fresh
from gateway_server import PATIENCE, config, sendgrid_at
from processes import WorkerProcess

POOL = 'example.com'
# So short that a rescue comes after some two seconds.
SHORT = {'lease': 1.0, 'recording': 0.3, 'between_tries': 0.05,
         'grace': 0.2, 'idle': 0.05, 'rounds': 0.5}


class Site:
    """The folder; its one service is a SendGrid at `provider`."""

    def __init__(self, folder, provider):
        self.folder = folder
        self.configure(provider.url)
        put_fresh(folder / 'stampman.db')
        self.store = open_store(f'sqlite:///{folder}/stampman.db')

    def configure(self, url, timeout=1):
        self.write(config({
            'sendgrid': {**sendgrid_at(url), 'timeout': timeout}}))

    def write(self, configured):
        (self.folder / 'config.json').write_text(
            configured if isinstance(configured, str)
            else json.dumps(configured))

    def queue(self, count=1, **fields):
        """Store messages that are due; return their ids."""
        now = time.time()
        ids = [new_id(now) for _ in range(count)]
        for id in ids:
            self.store.add(message(**{
                'id': id, 'state': State.queued, 'created_at': now,
                'expires_at': now + 3600, 'next_attempt_at': now,
                **fields}), email())
        return ids

    def message(self, id):
        return self.store.message(POOL, id)

    @property
    def messages(self):
        """All messages, whole."""
        page, _ = self.store.page(POOL, Filter(), 100)
        return [self.message(one.id) for one in page]

    def until(self, true):
        give_up_at = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < give_up_at
            time.sleep(0.02)

    def has(self, id, state):
        return lambda: self.message(id).state is state

    def worker(self, name='worker', **timing):
        return WorkerProcess(self.folder, name=name, TIMED=json.dumps(
            {**SHORT, **timing}))
