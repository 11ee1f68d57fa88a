"""Flask-API, made strict: nothing is guessed, nothing is overloaded."""

import functools
import json
import logging
import re

from stampman.api import _flask_api  # noqa: F401 (before flask_api)

import uuid_utils
from flask import Flask, Request, request
from flask_api.app import FlaskAPI
from flask_api.mediatypes import MediaType
from flask_api.renderers import BaseRenderer
from flask_api.request import APIRequest
from flask_api.response import APIResponse
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from stampman import logs
from stampman.api import (
    addresses, auth, body, headers, pages, problems, sessions)
from stampman.helpers.config import domain_name
from stampman.helpers.exceptions import (
    BadRequest, NotFound, RequestError)
from stampman.helpers.turns import turns

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile('[ -~]{1,128}')
_HOST = re.compile(r'[A-Za-z0-9.\-_~%:\[\]]*')
_PLAIN_URL = re.compile(r'[A-Za-z0-9/:.\[\]_~-]*')
JSON, HTML = 'application/json', 'text/html'
# For programs only, whatever they accept.
NO_PAGE = frozenset({'probes.healthz', 'probes.readyz', 'openapi.document'})
# What an admin still sees, and may erase, of a pool that is configured no
# more.
OF_GONE_POOLS = frozenset({
    'messages.index', 'messages.message', 'messages.delete'})
# Where an Idempotency-Key means something.
ONCE = frozenset({'sending.send', 'batch.send'})
HEADERS = {
    'Content-Security-Policy':
        "default-src 'none'; style-src 'self'; img-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
    'X-Frame-Options': 'DENY',
}


_to_json = json.JSONEncoder(ensure_ascii=False).encode


class JSONRenderer(BaseRenderer):
    """JSON for programs; never fails on text."""

    media_type = JSON

    def render(self, data, media_type, **options):
        return _to_json(data).encode('utf-8', 'backslashreplace')


class PageRenderer(BaseRenderer):
    """The browsable page of the same data."""

    media_type = HTML

    def render(self, data, media_type, **options):
        return pages.render(data, options['status_code']).encode(
            'utf-8', 'backslashreplace')


AS_JSON, AS_PAGE = JSONRenderer(), PageRenderer()
RENDERERS = {JSON: (AS_JSON, MediaType(JSON)),
             HTML: (AS_PAGE, MediaType(HTML))}


@functools.lru_cache(64)
def _wanted(accept):
    """Return JSON or HTML, whichever an `Accept` prefers; JSON where the
    client accepts neither. Programs send the same one again and again."""
    return parse_accept_header(accept, MIMEAccept).best_match(
        (JSON, HTML), JSON)


class ApiRequest(APIRequest):
    """A request that is what it says.

    Flask-API would let form fields named `_method` and `_content` turn it
    into another one; these attributes are Flask's again.
    """

    content_type = Request.content_type
    content_length = Request.content_length
    stream = Request.stream
    data = Request.data
    form = Request.form
    files = Request.files

    def _perform_method_overloading(self):
        """Do nothing: Flask has set the method."""

    def _perform_content_negotiation(self):
        """Choose JSON or the page."""
        wanted = JSON if self.endpoint in NO_PAGE else _wanted(
            self.environ.get('HTTP_ACCEPT', ''))
        self._accepted_renderer, self._accepted_media_type = RENDERERS[wanted]


class ApiResponse(APIResponse):
    """An answer that gets out, even where its page cannot be rendered."""

    _is_rendered = False    # by us, from a dict

    def __init__(self, content=None, status=None, headers=None, **more):
        if isinstance(content, dict):
            self._is_rendered = True
            status = status or 200
            content, more['content_type'] = _rendered(content, status)
        super().__init__(content, status=status, headers=headers, **more)

    def get_wsgi_headers(self, environ):
        """What we rendered needs no more than it has. Werkzeug would take a
        URL apart, and fail where that cannot be done."""
        location = self.headers.get('Location', '')
        if self._is_rendered and _PLAIN_URL.fullmatch(location):
            return self.headers
        return super().get_wsgi_headers(environ)


def _rendered(data, status):
    """Return the body of an answer, and its type."""
    if request.accepted_renderer is AS_PAGE:
        try:
            return (AS_PAGE.render(data, HTML, status_code=status),
                    'text/html; charset=utf-8')
        except Exception:
            log.exception('the page cannot be rendered; JSON instead')
    return AS_JSON.render(data, JSON), (
        'application/problem+json' if status >= 400 else JSON)


class Api(FlaskAPI):
    """The WSGI application around one gateway."""

    request_class = ApiRequest
    response_class = ApiResponse
    session_interface = sessions.Sessions()
    jinja_options = {'trim_blocks': True, 'lstrip_blocks': True}

    def __init__(self, gateway):
        # Not FlaskAPI's own: that would serve its jQuery and Bootstrap.
        Flask.__init__(self, 'stampman.api')
        self.config.update(
            SECRET_KEY=gateway.environment.secret_key,
            SESSION_COOKIE_NAME='stampman', SESSION_COOKIE_HTTPONLY=True,
            SESSION_COOKIE_SAMESITE='Strict', SEND_FILE_MAX_AGE_DEFAULT=3600)
        self.gateway = gateway
        self.throttle = sessions.Throttle(gateway.clock)
        self.url_map.strict_slashes = False
        self.url_map.merge_slashes = False
        self.url_map.redirect_defaults = False
        self.url_value_preprocessor(self._find_pool)
        self.before_request(self._look_at_request)
        self.jinja_env.globals.update(
            link=addresses.link, token=sessions.token,
            form_key=sessions.form_key,
            signed_in=sessions.signed_in,
            can_sign_in=sessions.can_sign_in)
        self.jinja_env.filters['visible'] = pages.visible
        problems.register(self)

    def wsgi_app(self, environ, start_response):
        """Name the request, and note when it came."""
        given = environ.get('HTTP_X_REQUEST_ID', '')
        request_id = given if _REQUEST_ID.fullmatch(given) \
            else str(uuid_utils.uuid7())
        environ['stampman.request_id'] = request_id
        environ['stampman.arrived'] = self.gateway.clock.monotonic()
        with turns.held, logs.bind(request_id=request_id):
            return super().wsgi_app(environ, start_response)

    def create_url_adapter(self, request):
        """Flask-API copies the environment, for a method overloaded."""
        if request is None:
            return super().create_url_adapter(request)
        return self.url_map.bind_to_environ(request.environ)

    def _find_pool(self, endpoint, values):
        """Bring the domain of the path into the form we know it by."""
        if values and 'domain' in values:
            values['domain'] = self._domain(endpoint, values['domain'])

    def _domain(self, endpoint, text):
        for form in (str, str.lower, domain_name):
            try:
                domain = form(text)
            except ValueError:
                break
            if domain in self.gateway.pools:
                return domain
        if endpoint in OF_GONE_POOLS and self._is_admin() \
                and self.gateway.messages(domain, limit=1)[0]:
            return domain
        raise NotFound('There is no such pool here.')

    @staticmethod
    def _is_admin():
        """A wrong key is no reason here to say more than that of nobody."""
        try:
            return auth.caller().admin is not None
        except RequestError:
            return False

    def _look_at_request(self):
        """Refuse what no view should see."""
        environ = request.environ
        host = environ.get('HTTP_HOST', '')
        if environ.get('SERVER_PROTOCOL') == 'HTTP/1.1' and not host:
            raise BadRequest('HTTP/1.1 needs a Host header.')
        if not _HOST.fullmatch(host):
            raise BadRequest('The Host header is not that of one host.')
        if environ.get('PATH_INFO', '').startswith('//'):
            raise NotFound()    # Werkzeug takes it for one slash
        auth.refuse_keys_in_url()
        if request.endpoint and request.endpoint not in ONCE:
            headers.refuse_key()

    def preprocess_request(self):
        """Finish the negotiation before the view runs."""
        request._perform_content_negotiation()
        return Flask.preprocess_request(self)   # not by settings: FlaskAPI's

    def process_response(self, response):
        """Add what every answer carries, and log the request."""
        response = super().process_response(response)
        if response.status_code >= 400:
            body.drain()
        asked = request._get_current_object()
        environ = asked.environ
        told = response.headers
        told.extend(HEADERS)
        if asked.endpoint != 'static':
            told['Cache-Control'] = 'no-store'
            if 'Vary' in told:
                response.vary.add('Accept')
            else:
                told.add('Vary', 'Accept')
        told.add('X-Request-Id', environ['stampman.request_id'])
        taken = self.gateway.clock.monotonic() - environ['stampman.arrived']
        log.info('request', extra={
            'method': asked.method, 'path': asked.path,
            'status': response.status_code, 'ms': round(taken * 1000, 1)})
        return response

    def log_exception(self, exc_info):
        """Report a bug; the path may hold anything, and is told apart."""
        log.error('the request broke', exc_info=exc_info, extra={
            'method': request.method, 'path': request.path})
