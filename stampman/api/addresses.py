"""Where things are found: the URLs in answers and in pages.

A URL names a host only if we know that it is ours: a client can put
anything into `Host`.
"""

import re
from urllib.parse import quote, urlsplit

from flask import current_app, request
from werkzeug.sansio.utils import host_is_trusted

_HOST = re.compile(r'[a-z0-9.-]{1,253}(:\d{1,5})?')
_LOOPBACK = re.compile(r'(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?')


def url(path: str) -> str:
    """Return the URL of one of our paths.

    It is absolute where our own name is known, else the path alone.
    """
    gateway = current_app.gateway
    if gateway.environment.public_url:
        return gateway.environment.public_url + path
    asked = request._get_current_object()
    host = asked.environ.get('HTTP_HOST', '').lower()
    if _is_ours(host, gateway.config.trusted_hosts):
        return f'{asked.scheme}://{host}{asked.root_path}{path}'
    return asked.root_path + path


def link(path: str) -> str:
    """Return one of our paths as a page links to it."""
    public_url = current_app.gateway.environment.public_url
    prefix = urlsplit(public_url).path if public_url else request.root_path
    return prefix + path


def message_path(domain: str, message_id: str) -> str:
    """Return the path of a message."""
    return f'/{quote(domain)}/messages/{quote(message_id, safe="")}'


def own_path(text: str) -> str:
    """Return `text` if it is one of our own paths, else `/`.

    A browser takes `//host`, `/\\host` and paths with control characters
    for other places.
    """
    safe = (text.startswith('/') and not text.startswith('//')
            and '\\' not in text and text.isascii() and text.isprintable())
    return text if safe else '/'


def _is_ours(host, trusted_hosts):
    if _LOOPBACK.fullmatch(host):
        return True
    return bool(trusted_hosts and _HOST.fullmatch(host)
                and host_is_trusted(host, trusted_hosts))
