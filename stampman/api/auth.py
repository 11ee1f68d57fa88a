"""Who asks: API keys, wherever the request carries them.

A key travels as `Authorization: Bearer`, as the password of HTTP Basic, or
in the JSON fields `pool_api_key` and `admin_api_key`, as the first Stampman
had it; in a browser a session stands for an admin's.
"""

import hashlib
import hmac
from collections.abc import MutableMapping
from typing import Any, NamedTuple

from flask import current_app, request

from stampman.api import sessions
from stampman.helpers.config import Config, key_digest
from stampman.helpers.exceptions import (
    BadRequest, Forbidden, InvalidFields, Unauthorized)

FIELDS = ('pool_api_key', 'admin_api_key')
# Where people put keys, and where logs and browsers would keep them.
QUERY_NAMES = frozenset({
    *FIELDS, 'api_key', 'apikey', 'api-key', 'key', 'token', 'access_token',
    'authorization'})


class Caller(NamedTuple):
    """Who asks: a pool (by its domain), an admin (by name), or nobody."""

    pool: str | None = None
    admin: str | None = None

    @property
    def is_anyone(self) -> bool:
        """Whether it is somebody that we know."""
        return bool(self.pool or self.admin)


NOBODY = Caller()


def digest(key: str) -> bytes:
    """Return the digest of a key that somebody shows us.

    Unlike `key_digest` it takes "sha256:…" for a key like any other: a
    digest that has become known opens nothing.
    """
    return hashlib.sha256(key.encode('utf-8', 'surrogatepass')).digest()


class Keyring:
    """All keys of a config, by their digests alone."""

    def __init__(self, config: Config):
        self.config = config
        self._known = [(key_digest(key), Caller(pool=pool.domain))
                       for pool in config.pools for key in pool.keys]
        self._known += [(key_digest(key), Caller(admin=admin.name))
                        for admin in config.admins for key in admin.keys]

    def holder(self, key: str) -> Caller:
        """Return who holds `key`, or NOBODY; always looks at every key."""
        shown, found = digest(key), NOBODY
        for known, caller in self._known:
            if hmac.compare_digest(shown, known):
                found = caller
        return found


def keyring() -> Keyring:
    """Return the keys of the config that is served now."""
    config = current_app.gateway.config
    ring = current_app.extensions.get('stampman_keys')
    if ring is None or ring.config is not config:
        ring = current_app.extensions['stampman_keys'] = Keyring(config)
    return ring


def refuse_keys_in_url() -> None:
    """Raise BadRequest where the query string holds a key: it is in logs,
    histories and the hands of proxies by now."""
    if not request.query_string:
        return
    for name, value in request.args.items(multi=True):
        if name.lower() in QUERY_NAMES or keyring().holder(value).is_anyone:
            raise BadRequest(
                'A key must not stand in the URL, where logs keep it. Send '
                'it as "Authorization: Bearer <key>", and replace the key '
                'if it was a real one.')


def caller(data: MutableMapping[str, Any] | None = None) -> Caller:
    """Return who sends this request; takes the key fields out of `data`.

    Without any key it is NOBODY, or the admin whose browser reads with a
    session. Raises Unauthorized for a key that nobody holds, BadRequest
    where two keys contradict each other.
    """
    keys = {}
    if 'Authorization' in request.headers:
        keys['Authorization'] = keyring().holder(_from_header())
    for field in FIELDS:
        if data is not None and field in data:
            keys[field] = _from_field(field, data.pop(field))
    if not keys:
        return _session() if request.method in ('GET', 'HEAD') else NOBODY
    if NOBODY in keys.values():
        raise Unauthorized('The key is not known here.')
    if len(set(keys.values())) > 1:
        raise BadRequest('The request carries keys of different holders: '
                         f'{" and ".join(keys)}. Send one.')
    return next(iter(keys.values()))


def _session():
    name = sessions.signed_in()
    return Caller(admin=name) if name else NOBODY


def _from_header():
    """Return the key in `Authorization`, '' if there is none in it."""
    given = request.authorization
    if given is None:
        return ''
    if given.type == 'bearer':
        return given.token or ''
    return (given.password or '') if given.type == 'basic' else ''


def _from_field(field, key):
    if not isinstance(key, str):
        raise InvalidFields(errors=[(field, 'must be a string')])
    holder = keyring().holder(key)
    fits = holder.pool if field == 'pool_api_key' else holder.admin
    return holder if fits else NOBODY


def demand(asking: Caller, domain: str | None = None, *,
           pool: bool = False, admin: bool = False) -> None:
    """Let pass the key of the pool of `domain`, an admin's, or both.

    Raises Unauthorized without a key, Forbidden for any other one.
    """
    wanted = ' or '.join(
        name for name, wanted in (("this pool's key", pool),
                                  ("an admin's key", admin)) if wanted)
    if not asking.is_anyone:
        raise Unauthorized(
            f'This needs {wanted}, as "Authorization: Bearer <key>".')
    if not (admin and asking.admin or pool and asking.pool == domain):
        raise Forbidden(f'This needs {wanted}; the key that was sent is '
                        'another one.')
