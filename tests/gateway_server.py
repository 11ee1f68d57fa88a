"""A whole Stampman in gunicorn on loopback, and a client to speak to it.

The keys below are known to the config that `config()` returns.
"""

import http.client
import json
import os
import socket
import subprocess
import sys
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from stampman.api import create_api
from stampman.gateway import Gateway, load_config
from stampman.helpers import environment as environments
from stampman.helpers.delivery import Clock
from stampman.opening import surroundings

from fresh import put_fresh

ROOT = Path(__file__).parent.parent
POOL_KEY = 'pool-key-of-example'
OTHER_KEY = 'pool-key-of-another'
ADMIN_KEY = 'admin-key-of-the-operator'
WRONG_KEY = 'a-key-that-nobody-holds'
SECRET_KEY = 'signs-the-sessions-of-these-tests'
PATIENCE = 30.0         # seconds after which a test that waits in vain fails
EMAIL = {'from_email': 'shop@example.com', 'subject': 'Your order',
         'recipients': ['Ada <ada@example.org>'], 'content': 'On its way.'}


def config(services: dict | None = None, **settings: Any) -> dict:
    """Return a config of two pools, `services` those of example.com."""
    return {
        'pools': [
            {'domain': 'example.com', 'api_key': POOL_KEY,
             'services': services or {'capture': {}}},
            {'domain': 'bücher.example', 'api_key': OTHER_KEY,
             'services': {'capture': {}}}],
        'admins': [{'name': 'ops', 'api_key': ADMIN_KEY}], **settings}


def sendgrid_at(url: str, priority: int = 1) -> dict:
    """Return the settings of a SendGrid whose API is at `url`."""
    return {'provider': 'sendgrid', 'base_url': url, 'priority': priority,
            'api_key': 'SG.key-of-the-provider', 'timeout': 5}


def api_in_process(folder: Path, clock: Clock | None = None):
    """Return the API of `config()` itself, without a server around it."""
    path = folder / 'config.json'
    path.write_text(json.dumps(config()))
    environment = environments.read({
        'STAMPMAN_CONFIG': str(path), 'STAMPMAN_SECRET_KEY': SECRET_KEY})
    put_fresh(folder / 'stampman.db')
    world = surroundings()
    gateway = Gateway(load_config(environment), environment,
                      world._replace(clock=clock or world.clock))
    return create_api(gateway)


class Reply(NamedTuple):
    """What came back; `headers` are case-insensitive."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def fields(self) -> list[str]:
        """The fields that a problem names."""
        return [error['field'] for error in self.json.get('errors', ())]


class Page(HTMLParser):
    """An HTML page as a browser without JavaScript sees it.

    `forms` holds each form as (method, action, fields), `links` each
    target, `text` what is read, `tags` each tag with its attributes.
    """

    def __init__(self, html: str):
        super().__init__()
        self.forms, self.links, self.tags, self.text = [], [], [], ''
        self._select = self._area = None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        known = dict(attrs)
        self.tags.append((tag, known))
        if tag == 'form':
            self.forms.append((known.get('method', 'get').upper(),
                               known['action'], {}))
        elif tag == 'a':
            self.links.append(known.get('href'))
        elif tag == 'input' and known.get('type') != 'file':
            self._fields[known['name']] = known.get('value', '')
        elif tag == 'textarea':
            self._area = known['name']
            self._fields[self._area] = ''
        elif tag == 'select':
            self._select = known['name']
            self._fields[self._select] = ''

    @property
    def _fields(self):
        return self.forms[-1][2]

    def handle_endtag(self, tag):
        if tag == 'textarea':
            self._area = None

    def handle_data(self, data):
        self.text += data
        if self._area:
            self._fields[self._area] += data

    def form(self, action: str) -> tuple[str, str, dict]:
        """Return the form that posts to `action`."""
        return next(form for form in self.forms if form[1] == action)


class GatewayServer:
    """Stampman in gunicorn, for `with`, in a folder of its own."""

    def __init__(self, folder: Path, configured: dict, threads: int = 8,
                 **environ: str):
        self.folder = folder
        self.threads = threads
        (folder / 'config.json').write_text(json.dumps(configured))
        put_fresh(folder / 'stampman.db')
        self._environ = {
            'PATH': os.environ['PATH'], 'PYTHONPATH': str(ROOT),
            'STAMPMAN_CONFIG': str(folder / 'config.json'),
            'STAMPMAN_SECRET_KEY': SECRET_KEY, **environ}

    def __enter__(self):
        listener = socket.create_server(('127.0.0.1', 0), backlog=128)
        with listener, open(self.folder / 'log', 'wb') as log:
            self.port = listener.getsockname()[1]
            self._process = subprocess.Popen(
                [sys.executable, '-m', 'gunicorn', '--threads',
                 str(self.threads), '--worker-class', 'gthread', '--bind',
                 f'fd://{listener.fileno()}', 'stampman.main:app'],
                cwd=self.folder, env=self._environ, stdout=log, stderr=log,
                pass_fds=[listener.fileno()])
        return self

    def __exit__(self, *_):
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def spoil_store(self) -> None:
        """Put something that is no database in the store's place."""
        for path in self.folder.glob('stampman.db*'):
            path.unlink()
        (self.folder / 'stampman.db').mkdir()

    @property
    def log(self) -> str:
        return (self.folder / 'log').read_text()

    def request(self, method: str, path: str, body: Any = None,
                headers: dict | None = None, key: str | None = None
                ) -> Reply:
        """Ask for `path`; a `body` that is not bytes is sent as JSON."""
        headers = dict(headers or {})
        if key is not None:
            headers['Authorization'] = f'Bearer {key}'
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault('Content-Type', 'application/json')
        connection = http.client.HTTPConnection(
            '127.0.0.1', self.port, timeout=PATIENCE)
        with closing(connection):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return Reply(answer.status, answer.headers, answer.read())

    def get(self, path: str, key: str | None = None, **headers) -> Reply:
        return self.request('GET', path, headers=headers, key=key)

    def send(self, email: Any = None, key: str | None = POOL_KEY,
             **headers: str) -> Reply:
        """Post an email to example.com."""
        return self.request('POST', '/example.com/send',
                            EMAIL if email is None else email,
                            headers, key)


class Browser:
    """Keeps cookies, reads pages, posts forms, follows one redirect."""

    def __init__(self, server: GatewayServer):
        self.server = server
        self.cookie = ''
        self.set_cookie = ''

    def get(self, path: str) -> Reply:
        return self._ask('GET', path)

    def page(self, path: str) -> Page:
        return Page(self.get(path).text)

    def submit(self, form: tuple[str, str, dict], **filled: str) -> Reply:
        """Post a form of a page, some of its fields filled in."""
        method, action, fields = form
        body = urlencode({**fields, **filled})
        if method == 'GET':
            return self.get(f'{action}?{body}')
        return self._ask(method, action, body.encode(), {
            'Content-Type': 'application/x-www-form-urlencoded'})

    def sign_in(self, key: str = ADMIN_KEY) -> Reply:
        return self.submit(self.page('/login').form('/login'),
                           admin_api_key=key)

    def _ask(self, method, path, body=None, headers=()):
        reply = self.server.request(method, path, body, {
            'Accept': 'text/html', 'Cookie': self.cookie, **dict(headers)})
        if 'Set-Cookie' in reply.headers:
            self.set_cookie = reply.headers['Set-Cookie']
            self.cookie = self.set_cookie.partition(';')[0]
        return reply
