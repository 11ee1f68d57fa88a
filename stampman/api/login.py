"""Signing in and out, for admins in a browser."""

from flask import Blueprint, current_app, g, redirect, request

from stampman.api import auth, body, sessions
from stampman.api.addresses import link, own_path
from stampman.helpers.exceptions import Unauthorized, UnsupportedMediaType

blueprint = Blueprint('login', __name__)


@blueprint.get('/login')
def form():
    """Sign in with an admin's API key.

    The browser keeps the session until you sign out, for twelve hours, or
    until half an hour has passed without a click. Programs need no session:
    they send the key with each request.
    """
    sessions.require_secret()
    return {'next': own_path(request.args.get('next', '/'))}


@blueprint.post('/login')
def sign_in():
    """Sign in with an admin's API key."""
    fields = _read()
    g.form = {'next': own_path(fields.get('next', '/'))}
    sessions.check_token(fields)
    address = request.remote_addr or ''
    key = fields.get('admin_api_key', '').strip()
    admin = auth.keyring().holder(key).admin
    if not admin:   # the right key is never kept out: behind a proxy all
        current_app.throttle.check(address)     # share one address
        current_app.throttle.failed(address)
        raise Unauthorized("This is not an admin's key.")
    sessions.sign_in(admin, auth.digest(key))
    return redirect(link(g.form['next']), 303)


@blueprint.post('/logout')
def sign_out():
    """Sign out of the browser's session."""
    fields = _read()
    sessions.check_token(fields)
    sessions.sign_out()
    return redirect(link('/'), 303)


def _read():
    sessions.require_secret()
    if not body.is_form():
        raise UnsupportedMediaType(
            'This is for the forms of a browser. Programs need no session: '
            'they send "Authorization: Bearer <key>".')
    return body.read_form()[0]
