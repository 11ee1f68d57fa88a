"""The simulator: every provider on one port of loopback."""

import contextlib
import functools
import json
import random
import socket
import socketserver
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from stampman.helpers.config import domain_name
from stampman.helpers.delivery import Clock
from stampman.simulator.amazon_ses import AmazonSes
from stampman.simulator.connection import Connection
from stampman.simulator.control import Control
from stampman.simulator.exchange import Account
from stampman.simulator.faults import Faults, Rule
from stampman.simulator.ledger import Ledger
from stampman.simulator.mailgun import Mailgun
from stampman.simulator.mandrill import Mandrill
from stampman.simulator.sendgrid import Sendgrid
from stampman.simulator.smtp import SmtpDoor

HOST = '127.0.0.1'
PROVIDERS = (Sendgrid, Mailgun, AmazonSes, Mandrill)
# What a client must show.
KEYS = {
    'sendgrid': 'SG.simulated',
    'mailgun': 'simulated-mailgun',
    'amazon_ses': 'AKIASIMULATED:simulated-secret',
    'mandrill': 'simulated-mandrill',
    'smtp': 'simulated:simulated-password',
}
# What stands between its colons, where it has several parts; behind
# Amazon's there may be a session token.
PARTS = {'amazon_ses': ('access key', 'secret key'),
         'smtp': ('user', 'password')}
PATIENCE = 5.0          # seconds for which a stop waits


class Simulator:
    """All the providers, with their ledger and faults; `with` runs it.

    `url` is where it is, `ledger` what the providers took, `faults` what
    goes wrong.
    """

    def __init__(self, port: int = 0, *, smtp_port: int | None = None,
                 keys: Mapping[str, str] | None = None,
                 domains: Sequence[str] | None = None,
                 scopes: Sequence[str] | None = None,
                 faults: Sequence[Rule | str] = (),
                 ledger: str | Path | None = None, seed: int | None = None,
                 clock: Clock = Clock(time.time, time.monotonic)):
        """Listen on `port` (0: any) and wait to be started.

        `smtp_port` is where SMTP is (None: nowhere, 0: anywhere). `keys`
        stand in the place of those in KEYS, by provider. `domains` are those
        that may send (None: all), `scopes` those of SendGrid's key; `ledger`
        is the path of a file of JSON lines. Raises OSError where a port or
        the file is not to be had, WrongFault for a fault that is none,
        ValueError for a domain that is none.
        """
        self.clock = clock
        self.now = clock.now
        self.keys = {**KEYS, **(keys or {})}
        self.faults = Faults(faults, random.Random(seed), clock.monotonic)
        known = [domain_name(one) for one in domains] if domains else None
        self.providers = tuple(
            provider(self._account(provider.name, known, scopes), clock.now,
                     functools.partial(self.faults.is_on, provider.name))
            for provider in PROVIDERS)
        self.control = Control(self)
        self.ledger = Ledger(ledger, clock.now)
        self.smtp = None
        with contextlib.ExitStack() as opened:
            opened.callback(self.ledger.close)
            self._server = _Server((HOST, port), self)
            opened.callback(self._server.server_close)
            if smtp_port is not None:
                self.smtp = SmtpDoor(
                    self.ledger, self.faults, port=smtp_port,
                    accounts=dict([self._smtp_account()]), domains=known)
            opened.pop_all()    # all of it is there
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,),
            name='simulator', daemon=True)

    def _smtp_account(self):
        user, _, password = self.keys['smtp'].partition(':')
        return user, password

    def _account(self, name, domains, scopes):
        account = Account(self.keys[name], domains)
        return account if scopes is None else account._replace(scopes=scopes)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        """Where it is, without a last slash."""
        return f'http://{HOST}:{self.port}'

    def base_url(self, name: str) -> str:
        """Return the `base_url` of a provider's service."""
        return next(f'{self.url}/{provider.prefix}'
                    for provider in self.providers if provider.name == name)

    def provider_at(self, path: str):
        """Return the provider whose prefix a path has, or None."""
        first = path.removeprefix('/').partition('/')[0]
        return next((provider for provider in self.providers
                     if provider.prefix == first), None)

    def services(self) -> dict[str, dict]:
        """Return the `services` of a pool that sends to this simulator."""
        found = {provider.name: provider.settings(
            self.base_url(provider.name)) for provider in self.providers}
        if self.smtp:
            user, password = self._smtp_account()
            found['smtp'] = {
                'host': HOST, 'port': self.smtp.port, 'tls': 'none',
                'username': user, 'password': password}
        return {name: {**settings, 'priority': number}
                for number, (name, settings) in enumerate(found.items(), 1)}

    def described(self) -> str:
        """Return a page of text: what is where."""
        places = '\n'.join(
            f'  {provider.name:<11}{self.base_url(provider.name)}'
            for provider in self.providers)
        if self.smtp:
            places += f'\n  smtp       {HOST}:{self.smtp.port}'
        return (
            f'Providers:\n{places}\n\n'
            'For the config, in a pool:\n\n"services": '
            f'{json.dumps(self.services(), indent=2)}\n\n'
            'What they took, and what goes wrong:\n'
            f'  GET, DELETE        {self.url}/ledger    ?provider=sendgrid\n'
            f'  GET                {self.url}/ledger/1  with its text\n'
            f'  GET                {self.url}/calls\n'
            f'  GET, POST, DELETE  {self.url}/faults\n\n'
            'SendGrid is down from now on:\n'
            f"  curl {self.url}/faults -H 'Content-Type: application/json' "
            "-d '\"sendgrid:status=503\"'\n"
            'And well again:\n'
            f'  curl -X DELETE {self.url}/faults\n')

    def start(self) -> 'Simulator':
        """Serve in a thread of its own, and return."""
        self._thread.start()
        if self.smtp:
            self.smtp.start()
        return self

    def stop(self) -> None:
        """End what hangs, close every connection, and return."""
        self.faults.stopping.set()
        if self.smtp:
            self.smtp.stop()
        self._server.shutdown()
        self._server.server_close()
        self._server.end_connections()
        self._thread.join(PATIENCE)
        self.ledger.close()

    def __enter__(self) -> 'Simulator':
        return self.start()

    def __exit__(self, *_) -> None:
        self.stop()


class _Server(socketserver.ThreadingTCPServer):
    """A thread for each connection."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address, simulator):
        self.simulator = simulator
        self._lock = threading.Lock()
        self._open = set()
        self._idle = threading.Condition(self._lock)
        super().__init__(address, Connection)

    def process_request(self, request, client_address):
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        super().shutdown_request(request)
        with self._lock:
            self._open.discard(request)
            self._idle.notify_all()

    def end_connections(self):
        """Close all connections, and wait until their threads are done."""
        with self._lock:
            for connection in self._open:
                _end(connection)
            self._idle.wait_for(lambda: not self._open, PATIENCE)


def _end(connection):
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass                # it had ended before
