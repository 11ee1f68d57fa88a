"""Admins in the browser: a signed cookie, and a token in every form.

The cookie holds the admin's name, two times, a token against forged
requests (CSRF), and a mark of the key it was made with: where the key goes,
the session ends.
"""

import hmac
import secrets
from urllib.parse import urlsplit

from flask import current_app, request, session
from flask.sessions import SecureCookieSessionInterface

from stampman.helpers.config import key_digest
from stampman.helpers.exceptions import (
    Forbidden, NotFound, TooManyRequests)

IDLE = 30 * 60.0        # seconds without a request, then it is over
LONGEST = 12 * 3600.0   # seconds after signing in
REFRESH = 60.0          # seconds; the cookie is not written more often
FAILURES = 10           # keys that one address may try …
PERIOD = 300.0          # … in so many seconds
MAX_ADDRESSES = 1000    # that are remembered


class Sessions(SecureCookieSessionInterface):
    """Flask's signed cookie, Secure wherever the browser came by TLS."""

    def open_session(self, app, request):
        if app.secret_key and 'HTTP_COOKIE' not in request.environ:
            return self.session_class()     # no need to be able to verify
        return super().open_session(app, request)

    def save_session(self, app, session, response):
        if session or session.accessed or session.modified:
            super().save_session(app, session, response)

    def get_cookie_secure(self, app):
        public_url = app.gateway.environment.public_url or ''
        return request.is_secure or urlsplit(public_url).scheme == 'https'


def sign_in(name: str, digest: bytes) -> None:
    """Begin a new session of the admin `name`, whose key has `digest`."""
    now = current_app.gateway.clock.now()
    session.clear()
    session.update(admin=name, mark=_mark(digest), since=now, seen=now,
                   token=secrets.token_urlsafe(24))


def sign_out() -> None:
    session.clear()


def can_sign_in() -> bool:
    """Say whether sessions can be signed at all."""
    return bool(current_app.secret_key)


def require_secret() -> None:
    """Raise NotFound where sessions cannot be signed."""
    if not can_sign_in():
        raise NotFound(
            'Nobody can sign in here: STAMPMAN_SECRET_KEY, which signs the '
            'sessions, is not set. "stampman init" makes one.')


def signed_in() -> str | None:
    """Return the name of the admin whose session this is, or None."""
    if not session.get('admin'):
        return None
    now = current_app.gateway.clock.now()
    since, seen = session.get('since', 0.0), session.get('seen', 0.0)
    if now - since > LONGEST or now - seen > IDLE or not _key_is_valid():
        session.clear()
        return None
    if now - seen > REFRESH:
        session['seen'] = now
    return session['admin']


def token() -> str:
    """Return the token that every form of this session carries."""
    if 'token' not in session:
        session['token'] = secrets.token_urlsafe(24)
    return session['token']


def form_key() -> str:
    """Return an Idempotency-Key for a form: whoever sends the form twice,
    by a double click or a reload, has sent it once."""
    return secrets.token_urlsafe(18)


def check_token(form) -> None:
    """Raise Forbidden unless the form was made by us for this session."""
    known = session.get('token', '')
    given = form.get('csrf_token', '')
    if not known or not hmac.compare_digest(known.encode(), given.encode()):
        raise Forbidden('The form is not one of this session, or too old: '
                        'load the page again.')


def _mark(digest):
    """Tell keys apart without giving anything of them away."""
    return hmac.digest(current_app.secret_key.encode(), digest,
                       'sha256').hex()[:32]


def _key_is_valid():
    admins = current_app.gateway.config.admins
    mark = session.get('mark', '')
    return any(hmac.compare_digest(_mark(key_digest(key)), mark)
               for admin in admins if admin.name == session['admin']
               for key in admin.keys)


class TooManyTries(TooManyRequests):
    """Somebody guesses keys, or has forgotten theirs."""

    title = 'Too many wrong keys'


class Throttle:
    """How often an address may try a wrong key, in this process."""

    def __init__(self, clock):
        self._clock = clock
        self._failures = {}     # address: times (monotonic), oldest first

    def check(self, address: str) -> None:
        """Raise TooManyRequests for an address that has failed too often."""
        now = self._clock.monotonic()
        recent = [at for at in self._failures.get(address, ())
                  if now - at < PERIOD]
        if len(recent) >= FAILURES:
            raise TooManyTries(
                'Wait a while, then try again.',
                retry_after=recent[-FAILURES] + PERIOD - now)

    def failed(self, address: str) -> None:
        """Note that an address has shown a key that is none."""
        times = self._failures.pop(address, [])[1 - FAILURES:]
        self._failures[address] = [*times, self._clock.monotonic()]
        while len(self._failures) > MAX_ADDRESSES:
            self._failures.pop(next(iter(self._failures)), None)
