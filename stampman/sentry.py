"""Sentry: where the operator wants to hear of crashes, and nothing more.

Nothing is sent that is not on a list here: no header, cookie, query, body,
local variable, source line, breadcrumb or trace, and of an exception its
class and code, never its message. sentry-sdk by default sends most of them.
"""

import logging
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from stampman import logs
from stampman.helpers import masking

# What an event keeps as it is: none of it comes from a request or an email.
KEPT = ('event_id', 'timestamp', 'level', 'platform', 'logger', 'release',
        'environment', 'server_name')
KEPT_OF_FRAME = ('filename', 'abs_path', 'module', 'function', 'lineno',
                 'in_app')
KEPT_OF_MECHANISM = ('type', 'handled', 'exception_id', 'parent_id')
KEPT_OF_CONTEXTS = {'runtime': ('name', 'version'),
                    'trace': ('trace_id', 'span_id')}
# Extras of a log record that are words of ours or numbers.
KEPT_OF_EXTRAS = ('kind', 'stage', 'state', 'status', 'ms', 'seconds',
                  'method', 'provider', 'service', 'attempt_id', 'round')

# Since 2.75 this decides; without it the SDK's next major collects more.
DATA_COLLECTION = {
    'user_info': False,
    'cookies': {'mode': 'off'},
    'http_headers': {'request': {'mode': 'off'}},
    'http_bodies': [],
    'url_query_params': {'mode': 'off'},
    'graphql': {'document': False, 'variables': False},
    'gen_ai': {'inputs': False, 'outputs': False},
    'database_query_data': False,
    'queues': False,
    'stack_frame_variables': False,
    'frame_context_lines': 0,
}
OPTIONS = {
    'data_collection': DATA_COLLECTION,
    'include_local_variables': False,
    'include_source_context': False,
    'max_request_body_size': 'never',
    'max_breadcrumbs': 0,
    'traces_sample_rate': None,
    'trace_propagation_targets': [],
    'auto_session_tracking': False,
    'enable_logs': False,
    'enable_metrics': False,
    'spotlight': False,
    'debug': False,
    # Others patch what they find, write breadcrumbs, or add headers to our
    # calls of providers.
    'default_integrations': False,
    'auto_enabling_integrations': False,
}

Event = dict[str, Any]
_ROUTE = {'source': 'route'}    # any other name may be made of anything
_USER = re.compile('//[^/]*@')
_log = logging.getLogger(__name__)


def start(dsn: str | None, release: str, environment: str,
          secrets: Iterable[str], transport: Any = None) -> bool:
    """Report errors to `dsn` from now on; say whether that is so.

    Off without a DSN. An invalid one is logged, and stops nothing.
    `transport` replaces the SDK's own way to send.
    """
    if not dsn:
        return False
    import sentry_sdk   # only where it is used: it takes a while
    from sentry_sdk.utils import Dsn
    try:
        Dsn(dsn)
    except ValueError:  # its text quotes parts of the DSN
        _log.error('SENTRY_API_DSN is not a DSN: errors are not reported')
        return False
    sentry_sdk.init(
        dsn=dsn, release=release, environment=environment,
        transport=transport, integrations=_integrations(),
        before_send=Cleaner((*secrets, dsn)), before_breadcrumb=_nothing,
        before_send_transaction=_nothing, before_send_log=_nothing,
        before_send_metric=_nothing, **OPTIONS)
    return True


def _nothing(item, hint):
    """Only errors are sent."""
    return None


def _integrations():
    from sentry_sdk.integrations import (
        atexit, dedupe, logging as sentry_logging)
    chosen = [
        sentry_logging.LoggingIntegration(
            level=None, event_level=logging.ERROR, sentry_logs_level=None),
        dedupe.DedupeIntegration(),     # Flask and the log tell the same
        atexit.AtexitIntegration(callback=_nothing),
    ]
    if 'flask' in sys.modules:          # a worker runs without it
        from sentry_sdk.integrations.flask import FlaskIntegration
        chosen.append(FlaskIntegration(transaction_style='url'))
    return chosen


class Cleaner:
    """The `before_send`: builds each event anew from the lists above.

    An error in it makes the SDK drop the event: then nothing is sent.
    """

    def __init__(self, secrets: Iterable[str]):
        self.secrets = masking.spellings(secrets)

    def __call__(self, event: Event, hint: Event) -> Event:
        hint.pop('attachments', None)
        contexts = event.get('contexts') or {}
        kept = {
            **_only(event, KEPT), **self._logged(event, hint),
            'contexts': {name: _only(contexts[name], keys)
                         for name, keys in KEPT_OF_CONTEXTS.items()
                         if name in contexts},
            'sdk': _only(event.get('sdk'), ('name', 'version')),
            'tags': {name: self._clean(id)
                     for name, id in logs.bound().items()}}
        if _only(event.get('transaction_info'), ('source',)) == _ROUTE:
            kept['transaction'] = self._clean(event['transaction'])
        if request := event.get('request'):
            kept['request'] = self._request(request)
        if values := _values(event.get('exception')):
            shown = _shown(hint)
            kept['exception'] = {'values': [
                self._exception(value, shown) for value in values]}
        return kept

    def _clean(self, text):
        return logs.clean(str(text), self.secrets)

    def _request(self, request):
        """By hand: a client's `Host` can make `urlsplit` raise."""
        url = str(request.get('url')).partition('?')[0]
        while (decoded := unquote(url)) != url:     # to see what is in it
            url = decoded
        url = logs.redact(_USER.sub('//', url), self.secrets)
        return {'url': '/'.join(map(self._clean, url.split('/'))),
                'method': self._clean(request.get('method'))}

    def _logged(self, event, hint):
        """What the log wrote of the same record, without other extras."""
        if record := hint.get('log_record'):
            extras = _only(logs.extras(record), KEPT_OF_EXTRAS)
            return {'logentry': {       # the template is what they group by
                        'message': self._clean(logs.plain(record.msg)),
                        'formatted': self._clean(logs.event_text(record))},
                    'extra': {name: self._clean(value)
                              for name, value in extras.items()}}
        text = event.get('message')
        return {'logentry': {'message': self._clean(text)}} if text else {}

    def _exception(self, value, shown):
        name = str(value.get('type') or 'Exception')
        kept = {
            'type': self._clean(name),
            'module': self._clean(value.get('module') or ''),
            'value': self._clean(shown.get(name, name)),
            'mechanism': _only(value.get('mechanism'), KEPT_OF_MECHANISM)}
        if frames := (value.get('stacktrace') or {}).get('frames'):
            kept['stacktrace'] = {
                'frames': [_only(frame, KEPT_OF_FRAME) for frame in frames]}
        return kept


def _only(mapping, keys):
    return {key: mapping[key] for key in keys if key in (mapping or {})}


def _values(interface):
    """The SDK allows both `{'values': [...]}` and the bare list."""
    if isinstance(interface, Mapping):
        return interface.get('values') or []
    return interface or []


def _shown(hint):
    """Class name: what may be shown of the exceptions of this event."""
    error = (hint.get('exc_info') or (None, None, None))[1]
    return {} if error is None else {
        type(link).__qualname__: logs.describe(link)
        for link in logs.chain(error)}
