"""The command line: `stampman run`, `check`, `send` and their like.

Exit codes: 0 done; 1 it could not be done, and the text says what to do;
2 the words of the command are wrong; `send` also 3: stored, not sent yet.
"""

import io
import itertools
import os
import re
import secrets
import shlex
import signal
import sys
import threading
from pathlib import Path

import click
import dotenv

import stampman
from stampman.helpers.delivery import State
from stampman.helpers.exceptions import StampmanError
from stampman.helpers.mail import submission
from stampman.helpers.masking import mask_addresses

KEYS = {    # what `init` makes, with its length in bytes
    'STAMPMAN_POOL_KEY': 24,
    'STAMPMAN_ADMIN_KEY': 24,
    'STAMPMAN_SECRET_KEY': 32,
}
EXIT_CODES = {State.accepted: 0, State.rejected: 1, State.failed: 1}
NOT_SENT_YET = 3


class Commands(click.Group):
    """Tells our own errors as text, without a traceback."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except StampmanError as error:
            raise click.ClickException(error.told()) from None


@click.group(cls=Commands, context_settings={
    'help_option_names': ['-h', '--help']})
@click.version_option(stampman.__version__, prog_name='stampman')
def main():
    """A self-hosted gateway for transactional email.

    The config is read from $STAMPMAN_CONFIG, else from ./config.json; .env
    beside it fills in environment variables that are not set.
    """


def _open_gateway():
    # This loads most of the program: not for `--help` and `init`.
    from stampman.opening import open_gateway
    return open_gateway(level='ERROR', format='text')


@main.command()
def init():
    """Write .env beside the config, with fresh random keys.

    Keys that are there already stay as they are.
    """
    config = Path(os.environ.get('STAMPMAN_CONFIG') or 'config.json')
    path = config.absolute().parent / '.env'
    try:
        there = path.read_text('utf-8') if path.exists() else ''
        known = dotenv.dotenv_values(stream=io.StringIO(there))
        made = {name: secrets.token_urlsafe(size)
                for name, size in KEYS.items() if not known.get(name)}
        if not made:
            click.echo(f'{path} has all its keys.')
            return
        with open(path, 'w', opener=_private) as file:
            file.write(_with_keys(there, made))
    except UnicodeDecodeError:
        raise click.ClickException(f'{path} is not UTF-8') from None
    except OSError as error:
        raise click.ClickException(
            f'{path} cannot be written: {error.strerror}') from None
    click.echo(f'{path} has fresh keys: {", ".join(made)}.')


def _with_keys(text, made):
    """Return `.env` with the keys that were made; lines that name them
    without a value go."""
    empty = re.compile(r'\s*(export\s+)?(%s)\s*=\s*(""|\'\')?\s*'
                       % '|'.join(made))
    lines = [line for line in text.splitlines()
             if not empty.fullmatch(line)]
    lines += [f'{name}={key}' for name, key in made.items()]
    return '\n'.join(lines) + '\n'


def _private(path, flags):
    return os.open(path, flags, 0o600)


@main.command()
def migrate():
    """Bring the database to the schema of this version.

    Safe to run at any time, by several processes at once.
    """
    gateway = _open_gateway()
    behind = gateway.store.migrate()
    click.echo('The database is migrated.' if behind
               else 'The database is up to date.')


@main.command()
@click.option('--live', is_flag=True, help='Also ask each provider whether '
              'the credentials work and may send. Sends nothing.')
def check(live):
    """Report every problem of the config and the environment."""
    gateway = _open_gateway()
    for pool in gateway.pools.values():
        names = ', '.join(service.name for service in pool.services)
        click.echo(f'{pool.domain}: {names}')
    problem = gateway.store.schema_problem()
    if problem:
        click.echo(f'warning: {problem}', err=True)
    else:
        for (domain, state), count in gateway.unserved().items():
            click.echo(f'warning: {count} messages of {domain} are {state}, '
                       'and no pool serves them', err=True)
    unproven = _probe(gateway) if live else ''
    click.echo('The config is valid'
               + (f'; not proven: {unproven}.' if unproven else '.'))


def _probe(gateway):
    """Return whose service cannot be proven; it must not be refused."""
    words = {True: 'ok', False: 'FAILED', None: 'not proven'}
    results = gateway.probe()
    for domain, service, result in results:
        click.echo(f'{domain} {service}: {words[result.ok]}: '
                   f'{result.detail}')
    if any(result.ok is False for _, _, result in results):
        raise click.ClickException('not every provider would serve us')
    return ', '.join(f'{domain} {service}' for domain, service, result
                     in results if result.ok is None)


@main.command()
@click.option('--host', help='The address to listen on. Default: 127.0.0.1, '
              'on a dyno all.')
@click.option('--port', type=click.IntRange(1, 65535),
              help='The port to listen on. Default: $PORT, else 8000.')
def run(host, port):
    """Migrate the database, then serve until stopped.

    The web server is gunicorn, with one process for each of
    $WEB_CONCURRENCY (default 1); each delivers messages that are due. With
    STAMPMAN_WORKER "off" it does not: then "stampman worker" must.

    SIGTERM or Ctrl-C: it takes nothing more, finishes what is in flight
    within 20 seconds, and exits with 0.
    """
    gateway = _open_gateway()
    gateway.store.migrate()
    gateway.store.close()
    found = gateway.environment
    from stampman.serving import HOST
    host = host or HOST
    port = port or found.port
    shown = '127.0.0.1' if host == '0.0.0.0' else host
    _tell_where(gateway, f'http://{shown}:{port}')
    sys.stdout.flush()
    os.execv(sys.executable, [
        sys.executable, '-m', 'gunicorn', '--config',
        'python:stampman.serving', '--bind', f'{host}:{port}',
        'stampman.main:app'])


@main.command()
@click.option('--threads', type=click.IntRange(1, 64), default=4,
              show_default=True, help='How many messages it delivers at a '
              'time.')
def worker(threads):
    """Migrate the database, then deliver what is due until stopped.

    Any number of workers may run beside any number of servers on the same
    database. The servers may then be told not to deliver what waits, by
    STAMPMAN_WORKER "off".

    SIGTERM or Ctrl-C: it claims nothing more, finishes what is in flight
    within 20 seconds, and exits with 0; a second Ctrl-C ends it at once.
    What is not done by then another worker takes over, as uncertain.
    """
    from stampman.opening import open_gateway
    from stampman.working import work
    gateway = open_gateway()
    gateway.store.migrate()
    sys.exit(work(gateway, threads))


def _tell_where(gateway, url):
    """Print the URL, where the keys are, and a first mail to paste."""
    found = gateway.environment
    click.echo(f'Stampman {stampman.__version__} serves {url}/')
    click.echo(f'  config    {found.config_path}')
    if found.database_url.startswith('sqlite'):
        click.echo(f'  database  {found.database_url}')
    pool = next(iter(gateway.pools.values()))
    dotfile = found.config_path.parent / '.env'
    keys = _plain_lines(dotfile, 'STAMPMAN_POOL_KEY')
    if len(keys) == 1 and keys[0] in pool.config.keys:
        click.echo(f'  keys      {dotfile}\n\nSend a first mail:\n')
        click.echo(first_mail(url, pool.domain, dotfile) + '\n')


def _plain_lines(dotfile, name):
    """Return what the command of `first_mail` will find."""
    try:
        lines = dotfile.read_text('utf-8').splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    return [line.partition('=')[2] for line in lines
            if line.startswith(f'{name}=')]


def first_mail(url, domain, dotfile):
    """Return a shell command that sends an email when it is pasted."""
    key = shlex.quote(str(dotfile))
    return (f'curl {url}/{domain}/send \\\n'
            '  -H "Authorization: Bearer '
            f'$(sed -n s/^STAMPMAN_POOL_KEY=//p {key})" \\\n'
            "  -H 'Content-Type: application/json' \\\n"
            f"  -d '{{\"from\": \"hello@{domain}\", "
            '"to": "you@example.org", "subject": "Hello", '
            "\"text\": \"It works.\"}'")


@main.command()
def demo():
    """Show a failover, with providers that only pretend.

    It needs no account and no config, takes a few seconds, sends nothing
    and leaves nothing behind. Two simulated providers run on this machine;
    the first goes down, rests and comes back, and loses an answer. You see
    what an application is answered each time, and at the end what each
    provider took. Exits with 1 if anything else happened than it says.
    """
    from stampman.demo import run as play
    play()


@main.command()
def reload():
    """Check the config, and if it is valid make all who run by it read it:
    the server and the workers on this machine."""
    config = _open_gateway().environment.config_path
    from stampman import running
    path = running.of_server(config)
    found = [('server', running.holder(path)),
             *(('worker', pid) for pid in running.holders_of_workers(config))]
    told = [f'{name} {pid}' for name, pid in found
            if pid and _hang_up(name, pid)]
    if not told:
        raise click.ClickException(
            f'The config is valid, but no server is running by {path}, and '
            'no worker. Start one with "stampman run".')
    click.echo(f'The config is valid; it is read by: {", ".join(told)}.')


def _hang_up(name, pid):
    """Signal a process; say whether it is still there."""
    try:
        os.kill(pid, signal.SIGHUP)
    except ProcessLookupError:
        return False
    except PermissionError:
        raise click.ClickException(
            f'The config is valid, but the {name} {pid} is another '
            "user's.") from None
    return True


@main.command()
@click.option('--from', 'sender', required=True, help='Who sends it.')
@click.option('--to', 'recipients', required=True, multiple=True,
              help='Who gets it; may be given several times.')
@click.option('--subject', default='', help='The subject.')
@click.option('--text', help='The text. Default: standard input.')
@click.option('--html', help='The same as HTML.')
@click.option('--pool', 'domain', help='The sending domain. Default: that '
              'of --from.')
def send(sender, recipients, subject, text, html, domain):
    """Send one email through a pool, and say how it went.

    No server needs to run; what could not be sent now is sent by the worker
    of one. Exits with 0 when a provider took it, 1 when it is refused, 3
    when it is stored and not sent yet.
    """
    from stampman.gateway import require_pool
    gateway = _open_gateway()
    if text is None and html is None:
        text = click.get_text_stream('stdin').read()
    fields = {'from': sender, 'to': list(recipients), 'subject': subject,
              'text': text, 'html': html}
    parsed = submission({name: value for name, value in fields.items()
                         if value is not None}, gateway.config.limits)
    pool = require_pool(
        gateway, (domain or parsed.sender.domain).lower())
    message = gateway.send(
        pool.domain, parsed, gateway.clock.monotonic()).message
    click.echo(f'{message.id}: {message.state}')
    for attempt in message.attempts:
        for name in attempt.outcome.passed_over if attempt.outcome else ():
            click.echo(f'  {name}: rested')
        click.echo(f'  {attempt.service}: {_told(attempt.outcome)}')
    if message.state is not State.accepted and message.reason:
        click.echo(mask_addresses(f'  {message.reason}'), err=True)
    sys.exit(EXIT_CODES.get(message.state, NOT_SENT_YET))


def _told(outcome):
    if outcome is None:
        return 'its answer could not be stored'
    return ': '.join(filter(None, (outcome.kind, outcome.reason)))


@main.command()
@click.option('--port', type=click.IntRange(0, 65535), default=8025,
              show_default=True, help='The port of all but SMTP; 0: any.')
@click.option('--smtp-port', type=click.IntRange(0, 65535), default=2525,
              show_default=True, help='The port of SMTP; 0: any.')
@click.option('--ledger', type=click.Path(dir_okay=False), help='A file '
              'that gets a line of JSON for each message taken.')
@click.option('--fault', 'faults', multiple=True, metavar='SPEC', help='What '
              'goes wrong, such as "sendgrid:status=503,percent=50".')
@click.option('--key', 'keys', multiple=True, metavar='PROVIDER=KEY',
              help='The key that a provider wants to see.')
@click.option('--domain', 'domains', multiple=True, callback=lambda _ctx,
              _param, names: [_domain(name) for name in names],
              help='A domain that may send. Default: any may.')
@click.option('--seed', type=int, help='Makes chance repeatable.')
def simulate(port, smtp_port, ledger, faults, keys, domains, seed):
    """Run fake providers on this machine, until stopped.

    They take what SendGrid, Mailgun, Amazon SES, Mandrill and SMTP take,
    deliver nothing, and can be told to fail. With "took=true" a fault comes
    after the email was taken: of status, hang, close, garbage and redirect.
    All faults stand in docs/simulator.md.
    """
    from stampman.simulator import Simulator, WrongFault
    try:
        simulator = Simulator(
            port, smtp_port=smtp_port, keys=_provider_keys(keys),
            domains=domains, faults=faults, ledger=ledger, seed=seed)
    except WrongFault as error:
        raise click.BadParameter(str(error), param_hint='--fault') from None
    except OSError as error:
        place = ledger if error.filename else '--port or --smtp-port'
        raise click.ClickException(f'{place}: {error.strerror}') from None
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with simulator:
        click.echo(simulator.described(), nl=False)
        stopped.wait()


def _domain(name):
    from stampman.helpers.config import domain_name
    try:
        return domain_name(name)
    except ValueError as error:
        raise click.BadParameter(f'{name!r} {error}') from None


def _provider_keys(words):
    from stampman.simulator import KEYS, PARTS
    found = dict(word.partition('=')[::2] for word in words)
    for name, key in found.items():
        if name not in KEYS:
            raise click.BadParameter(
                f'{name!r} is no provider; known are: {", ".join(KEYS)}',
                param_hint='--key')
        parts = PARTS.get(name, ('key',))
        missing = [part for part, given in itertools.zip_longest(
            parts, key.split(':', len(parts) - 1)) if not given]
        if missing:
            raise click.BadParameter(
                f'{name}: the {" and the ".join(missing)} is missing; write '
                f'it like {name}={KEYS[name]}', param_hint='--key')
    return found
