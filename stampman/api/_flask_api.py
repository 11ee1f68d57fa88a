"""What Flask-API 3.1 needs to run on a current Flask.

Its last release wants two names that Werkzeug 3 and Flask 2.4 dropped.
Import this before anything of `flask_api`; a test tells when it may go.
"""

from urllib.parse import parse_qsl

import flask.globals
import werkzeug.urls
from werkzeug.datastructures import MultiDict


class _RequestStack:
    """Stands for the stack of request contexts that Flask once had."""

    @property
    def top(self):
        return flask.globals.request_ctx._get_current_object()


def _url_decode_stream(stream):
    return MultiDict(parse_qsl(stream.read().decode(),
                               keep_blank_values=True))


if not hasattr(werkzeug.urls, 'url_decode_stream'):
    werkzeug.urls.url_decode_stream = _url_decode_stream
if not hasattr(flask.globals, '_request_ctx_stack'):
    flask.globals._request_ctx_stack = _RequestStack()
