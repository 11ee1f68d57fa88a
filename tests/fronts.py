"""nginx with deploy/nginx.conf in front of servers on loopback."""

import http.client
import os
import shutil
import socket
import ssl
import subprocess
import time
from contextlib import closing
from pathlib import Path

import trustme

from gateway_server import PATIENCE, Reply
from servers import closed_port

NAME = 'mail.example.com'
CONF = Path(__file__).parent.parent / 'deploy' / 'nginx.conf'
# What else Debian's nginx.conf says, but in one folder.
AROUND = '''
daemon off;
user {user};
pid {folder}/nginx.pid;
events {{ worker_connections 768; }}
http {{
    gzip on;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/stampman.conf;
}}
'''


def program() -> str:
    """Return the path of nginx; "make test-all" installs it."""
    found = shutil.which(
        'nginx', path=f'{os.environ["PATH"]}:/usr/sbin:/usr/local/sbin')
    assert found, ('These tests need nginx. As root "make nginx" installs '
                   "Debian's; else install it yourself.")
    return found


class Nginx:
    """A running nginx, for `with`: all in deploy/nginx.conf holds but for
    ports, paths, and `upstreams`, the ports it passes requests on to."""

    def __init__(self, folder: Path, *upstreams: int):
        self.folder = folder
        self.port, self.plain_port = closed_port(), closed_port()
        authority = trustme.CA()
        certificate = authority.issue_cert(NAME)
        certificate.private_key_and_cert_chain_pem.write_to_path(
            folder / 'certificate.pem')
        self._tls = ssl.create_default_context()
        authority.configure_trust(self._tls)
        self._conf = folder / 'nginx.conf'
        self._conf.write_text(AROUND.format(
            folder=folder, user='root' if os.geteuid() == 0 else 'nobody'))
        (folder / 'stampman.conf').write_text(self._moved(upstreams))

    def _moved(self, upstreams):
        text = CONF.read_text()
        live = f'/etc/letsencrypt/live/{NAME}'
        for there, here in {
                'listen 80;': f'listen 127.0.0.1:{self.plain_port};',
                'listen 443 ': f'listen 127.0.0.1:{self.port} ',
                'server 127.0.0.1:8000;': '\n'.join(
                    f'server 127.0.0.1:{port};' for port in upstreams),
                f'{live}/fullchain.pem': f'{self.folder}/certificate.pem',
                f'{live}/privkey.pem': f'{self.folder}/certificate.pem',
                '/var/log/nginx/': f'{self.folder}/'}.items():
            assert there in text
            text = text.replace(there, here)
        return text

    def check(self) -> subprocess.CompletedProcess:
        """Let nginx read its config, and no more."""
        return subprocess.run([program(), '-t', *self._words],
                              capture_output=True, text=True)

    @property
    def _words(self):
        return ['-c', str(self._conf), '-p', str(self.folder),
                '-e', str(self.folder / 'error.log')]

    def __enter__(self):
        self.process = subprocess.Popen([program(), *self._words])
        give_up_at = time.monotonic() + PATIENCE
        while True:
            try:
                self.request('GET', '/healthz', plain=True)
                return self
            except OSError:
                assert self.process.poll() is None, self.errors
                assert time.monotonic() < give_up_at, self.errors
                time.sleep(0.02)

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    @property
    def errors(self) -> str:
        return (self.folder / 'error.log').read_text()

    def logged(self, words: str) -> str:
        """Return the log as soon as `words` stand in it: nginx writes a
        line when the answer has gone out already."""
        give_up_at = time.monotonic() + PATIENCE
        while words not in (
                text := (self.folder / 'stampman.log').read_text()):
            assert time.monotonic() < give_up_at, text
            time.sleep(0.01)
        return text

    def connect(self) -> http.client.HTTPSConnection:
        """Return a connection by TLS, as a client in the world has it."""
        connection = http.client.HTTPSConnection(
            NAME, timeout=PATIENCE, context=self._tls)
        connection._create_connection = self._dial
        return connection

    def _dial(self, _address, timeout, *_):
        return socket.create_connection(('127.0.0.1', self.port), timeout)

    def request(self, method, path, body=None, headers=(), plain=False
                ) -> Reply:
        connection = http.client.HTTPConnection(
            '127.0.0.1', self.plain_port, timeout=PATIENCE) if plain \
            else self.connect()
        with closing(connection):
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            return Reply(answer.status, answer.headers, answer.read())
