"""The demo: a failover that can be watched, with no account and no config.

Everything in it is real but the providers, which are the simulator's: the
gateway, its store in a folder that goes away again, and its API, whose
answers are shown as an application gets them. What is said to happen is
checked: a demo that shows anything else ends with an error.
"""

import contextlib
import itertools
import json
import secrets
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from stampman import logs
from stampman.api import create_api
from stampman.gateway import Gateway, load_config
from stampman.health import FAILURES_IN_ROW
from stampman.helpers import environment as environments
from stampman.helpers.delivery import Clock
from stampman.helpers.exceptions import StampmanError
from stampman.opening import surroundings
from stampman.simulator import Simulator

POOL, CAREFUL_POOL = 'example.com', 'bank.example'
PROVIDERS = ('sendgrid', 'mailgun')
LONGER_THAN_A_REST = 60.0   # seconds; the first rest lasts about 30
WIDTH = 79                  # characters
COLOURS = {'accepted': 'green', 'uncertain': 'yellow'}
# What is printed of an answer, besides its status, where it is there.
SHOWN = ('service_used', 'services_fail', 'possible_duplicate', 'reason')


class Differs(StampmanError):
    """Something else happened than the demo says."""


def run() -> None:
    """Play the demo on standard output.

    Raises Differs where something else happens than it says.
    """
    # What would be logged as an error is part of the play.
    logs.setup(sys.stderr, level='CRITICAL', format='text')
    with tempfile.TemporaryDirectory(prefix='stampman-demo-') as folder, \
            Simulator() as simulator, \
            gateway_in(Path(folder), simulator) as (gateway, clock):
        demo = Demo(simulator, gateway, clock)
        demo.introduce()
        demo.both_are_well()
        demo.one_is_down()
        demo.it_rests()
        demo.it_is_well_again()
        demo.an_answer_is_lost()
        demo.an_answer_is_lost_to_the_careful()
        demo.show_what_was_taken()


class TurnedClock:
    """A clock that can be turned on, so that nobody has to wait."""

    def __init__(self):
        self._seconds = 0.0

    def turn_on(self, seconds: float) -> None:
        self._seconds += seconds

    def now(self) -> float:
        return time.time() + self._seconds


@contextlib.contextmanager
def gateway_in(folder: Path, simulator: Simulator
               ) -> Iterator[tuple[Gateway, TurnedClock]]:
    """Open a gateway that keeps all it has in `folder`, and its clock.

    Nothing of this process's environment is its business.
    """
    path = folder / 'config.json'
    path.write_text(json.dumps(_config(simulator)), 'utf-8')
    environment = environments.read({'STAMPMAN_CONFIG': str(path)})
    clock = TurnedClock()
    gateway = Gateway(
        load_config(environment), environment, surroundings()._replace(
            clock=Clock(clock.now, time.monotonic)))
    gateway.store.migrate()
    try:
        yield gateway, clock
    finally:
        gateway.store.close()


def _config(simulator):
    known = simulator.services()
    services = {name: {**known[name], 'priority': number}
                for number, name in enumerate(PROVIDERS, 1)}
    return {'pools': [
        {'domain': domain, 'api_key': secrets.token_urlsafe(24),
         'services': services, 'on_uncertain': policy}
        for domain, policy in ((POOL, 'failover'), (CAREFUL_POOL, 'hold'))]}


class Demo:
    """The acts, in their order, and what they are played with."""

    def __init__(self, simulator: Simulator, gateway: Gateway,
                 clock: TurnedClock):
        self._simulator = simulator
        self._gateway = gateway
        self._clock = clock
        self._client = create_api(gateway).test_client()
        self._numbers = itertools.count(1)
        self._taken_by = {}     # by subject: who must have taken it

    def introduce(self) -> None:
        _tell('Two providers that only pretend, SendGrid and Mailgun, and '
              'a Stampman that sends by them, all on this machine. Its pool '
              f'{POOL} asks sendgrid first, then mailgun. You see what your '
              'application is answered when it posts an email.')

    def both_are_well(self) -> None:
        _title('1', 'Both providers are well.')
        self._send_by('sendgrid')

    def one_is_down(self) -> None:
        _title('2', 'SendGrid goes down: it answers 503.', 'Mailgun gets '
               'the email at once; your application need not do anything.')
        self._simulator.faults.add('sendgrid:status=503')
        self._send_by('mailgun', sendgrid='HTTP 503')

    def it_rests(self) -> None:
        _title('3', f'It stays down: after {FAILURES_IN_ROW} failures in a '
               'row it rests.', 'From then on it is passed over, and no '
               'email waits for it in vain.')
        for _ in range(FAILURES_IN_ROW - 1):
            self._send_by('mailgun', sendgrid='HTTP 503')
        calls = self._simulator.ledger.calls('sendgrid')
        self._send_by('mailgun', sendgrid='it rested')
        _check('calls to sendgrid while it rests', len(
            self._simulator.ledger.calls('sendgrid')) - len(calls), 0)

    def it_is_well_again(self) -> None:
        _title('4', 'SendGrid is well again, and its rest, half a minute, '
               'is over.', 'You need not wait for that: the demo turns '
               "Stampman's clock on by a minute. One real email at a time "
               'tries it; after two it is back.')
        self._simulator.faults.clear()
        self._clock.turn_on(LONGER_THAN_A_REST)
        self._send_by('sendgrid')
        _check('the health of sendgrid', self._health_of('sendgrid'), 'trial')
        self._send_by('sendgrid')
        _check('the health of sendgrid', self._health_of('sendgrid'),
               'available')

    def an_answer_is_lost(self) -> None:
        _title('5', 'SendGrid takes an email, but the line breaks before it '
               'says so.', 'Stampman cannot know whether it was taken. This '
               'pool would rather send it twice than not at all: Mailgun '
               'gets it too, and it is marked.')
        self._simulator.faults.add('sendgrid:reset=after')
        answer = self._send(POOL, *PROVIDERS)
        _check('status', answer.get('status'), 'accepted')
        _check('service_used', answer.get('service_used'), 'mailgun')
        _check('possible_duplicate', answer.get('possible_duplicate'), True)

    def an_answer_is_lost_to_the_careful(self) -> None:
        _title('6', f'The same in the pool {CAREFUL_POOL}, which never sends '
               'twice.', 'The email is held until a person has looked at '
               'SendGrid, found it there, and says so.')
        answer = self._send(CAREFUL_POOL, 'sendgrid')
        _check('status', answer.get('status'), 'uncertain')
        settled = self._post(
            CAREFUL_POOL, f'messages/{answer["id"]}/resolve',
            'resolve', verdict='accepted')
        _check('status', settled.get('status'), 'accepted')

    def show_what_was_taken(self) -> None:
        """Show what the providers themselves say: the proof of it all."""
        _title('=', 'What the two providers have taken, by their own books:')
        taken = {}
        for entry in self._simulator.ledger.entries():
            taken.setdefault(entry.subject, []).append(entry.provider)
        for subject, providers in taken.items():
            click.echo(f'   {subject:<10} {" and ".join(providers)}')
        _check('what the providers have taken', taken, self._taken_by)
        click.echo()
        _tell(f'All {len(taken)} emails have been taken. One was taken '
              'twice: the one that was marked.')

    def _send_by(self, service: str, **fails: str) -> None:
        """Send an email that `service` is to take, after those in `fails`
        have not, for reasons that begin like that."""
        answer = self._send(POOL, service)
        _check('status', answer.get('status'), 'accepted')
        _check('service_used', answer.get('service_used'), service)
        told = answer.get('services_fail')
        _check('services_fail', {
            name: reason[:len(fails.get(name, ''))]
            for name, reason in told.items()}, fails)
        _check('possible_duplicate', answer.get('possible_duplicate'), False)

    def _send(self, pool, *taken_by):
        """Send the next email; return the answer."""
        subject = f'Order {next(self._numbers)}'
        self._taken_by[subject] = list(taken_by)
        return self._post(
            pool, 'send', subject, to='ada@example.org', subject=subject,
            text='It is on its way.', **{'from': f'shop@{pool}'})

    def _post(self, pool, path, about, **fields):
        """Do as an application does; show and return what it is answered."""
        [key] = self._gateway.pools[pool].config.keys
        began = time.monotonic()
        response = self._client.post(
            f'/{pool}/{path}', json=fields,
            headers={'Authorization': f'Bearer {key}'})
        answer = response.get_json()
        _show(about, response.status_code, answer, time.monotonic() - began)
        return answer

    def _health_of(self, service):
        return self._gateway.health_of(POOL)[service].state


def _title(number: str, title: str, more: str = '') -> None:
    click.echo(click.style(f'\n{number}  {title}', bold=True))
    if more:
        _tell(more, '   ')
    click.echo()


def _tell(text, indent=''):
    click.echo(textwrap.fill(text, WIDTH, initial_indent=indent,
                             subsequent_indent=indent))


def _show(about: str, code: int, answer: Mapping[str, Any],
          seconds: float) -> None:
    """Print an answer of the API in the API's own words."""
    status = answer.get('status', '?')
    colour = COLOURS.get(status, 'red')
    click.echo(f'   {about:<9} {code}  status: '
               f'{click.style(status, fg=colour)}  ({seconds:.2f} s)')
    for name in SHOWN:
        value = answer.get(name)
        if isinstance(value, Mapping):
            value = ', '.join(': '.join(pair) for pair in value.items())
        if value:
            text = str(value).lower() if value is True else value
            click.echo(textwrap.fill(
                f'{name}: {text}', WIDTH, initial_indent=18 * ' ',
                subsequent_indent=20 * ' '))


def _check(name: str, found: Any, expected: Any) -> None:
    """Raise Differs where what was found is not what was said."""
    if found != expected:
        raise Differs('This should not have happened. Expected '
                      f'{name}: {expected!r}; found: {found!r}')
