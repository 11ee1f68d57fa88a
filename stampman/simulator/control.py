"""The simulator's own routes: the ledger, the calls, and the faults.

They are for this machine alone: a request must name loopback as its host
and, where it brings a body, be JSON, which no page of another site can send
without being allowed to.
"""

import re
from dataclasses import asdict
from urllib.parse import parse_qs, urlsplit

from stampman.helpers import strict_json
from stampman.helpers.exceptions import BadRequest
from stampman.simulator import faults
from stampman.simulator.exchange import Refused, as_json, as_text

LOOPBACK = {'127.0.0.1', 'localhost', '::1'}
_NUMBERED = re.compile(r'/(ledger|faults)/([1-9][0-9]{0,14})')


def problem(status, text):
    """Return an error of the control routes."""
    return as_json(status, {'error': text})


class Control:
    """Answers what is no provider's."""

    def __init__(self, simulator):
        self._simulator = simulator
        self._routes = {
            ('GET', '/'): self._page,
            ('GET', '/ledger'): self._ledger,
            ('DELETE', '/ledger'): self._forget,
            ('GET', '/calls'): self._calls,
            ('GET', '/faults'): self._faults,
            ('POST', '/faults'): self._switch_on,
            ('DELETE', '/faults'): self._switch_off,
        }
        self._numbered = {
            ('GET', 'ledger'): self._message,
            ('DELETE', 'faults'): self._switch_one_off,
        }

    def answer(self, request):
        """Return what is answered to `request`."""
        if _host(request.headers.get('host', '')) not in LOOPBACK:
            return problem(403, 'the host must be 127.0.0.1 or localhost')
        found = _NUMBERED.fullmatch(request.path)
        try:
            if found and (request.method, found[1]) in self._numbered:
                return self._numbered[request.method, found[1]](
                    int(found[2]))
            route = self._routes.get((request.method, request.path))
            if route:
                return route(request)
        except Refused as refused:
            return refused.reply
        paths = {path for _, path in self._routes}
        return problem(405 if request.path in paths or found else 404,
                       f'there is no {request.method} {request.path} here')

    def _page(self, request):
        return as_text(200, self._simulator.described())

    def _ledger(self, request):
        return as_json(200, {'ledger': [
            asdict(entry) for entry in self._simulator.ledger.entries(
                _provider(request))]})

    def _message(self, number):
        ledger = self._simulator.ledger
        entry = next((entry for entry in ledger.entries()
                      if entry.number == number), None)
        if entry is None:
            return problem(404, f'the ledger has no number {number}')
        content = ledger.content(number)
        return as_json(200, {**asdict(entry), 'content': content})

    def _forget(self, request):
        self._simulator.ledger.clear()
        return as_json(200, {'ledger': []})

    def _calls(self, request):
        return as_json(200, {'calls': [
            asdict(call) for call in self._simulator.ledger.calls(
                _provider(request))]})

    def _faults(self, request):
        return as_json(200, {'faults': [
            rule.shown() for rule in self._simulator.faults.rules()]})

    def _switch_on(self, request):
        if request.media_type != 'application/json':
            return problem(415, 'send application/json')
        try:
            found = strict_json.read(request.body)
            rule = (faults.from_spec(found) if isinstance(found, str)
                    else faults.from_json(found))
        except (BadRequest, faults.WrongFault) as error:
            return problem(400, str(error))
        return as_json(201, self._simulator.faults.add(rule).shown())

    def _switch_off(self, request):
        self._simulator.faults.clear()
        return as_json(200, {'faults': []})

    def _switch_one_off(self, number):
        if not self._simulator.faults.clear(number):
            return problem(404, f'no fault has the number {number}')
        return self._faults(None)


def _host(header):
    """Return the name in a Host header; '' where it is none."""
    try:
        return urlsplit(f'//{header}').hostname or ''
    except ValueError:
        return ''


def _provider(request):
    asked = parse_qs(request.query, keep_blank_values=True).get('provider')
    if asked is None:
        return None
    if asked[0] not in faults.PROVIDERS:
        raise Refused(problem(400, 'provider must be one of '
                              f'{", ".join(faults.PROVIDERS)}'))
    return asked[0]
