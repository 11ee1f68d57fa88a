"""Messages: where they stand, what happened to them, and what to do."""

import re
from datetime import datetime
from typing import Literal
from urllib.parse import urlencode

from flask import Blueprint, current_app, request
from pydantic import BaseModel, ConfigDict, ValidationError

from stampman.api import answers, auth, body, sessions
from stampman.api.addresses import url
from stampman.helpers import syntax
from stampman.helpers.delivery import State
from stampman.helpers.exceptions import InvalidFields, NotFound
from stampman.helpers.mail import problems

blueprint = Blueprint('messages', __name__)

MAX_LIMIT, LIMIT = 100, 50
_ID = re.compile('[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}')


class Resolution(BaseModel):
    """A person's word on an uncertain message.

    `accepted`: a provider took it; `not_sent`: none did, it fails;
    `send_again`: whatever happened, try again.
    """

    model_config = ConfigDict(extra='forbid')

    verdict: Literal['accepted', 'not_sent', 'send_again']


@blueprint.get('/<domain>/messages/')
def index(domain):
    """The messages of this pool, newest first.

    `state` shows only those in that state: `queued`, `sending`, `deferred`,
    `uncertain`, `accepted`, `rejected`, `failed` or `cancelled`. `recipient`
    shows only those to that address. `since` and `until` are times with
    their offset, like `2026-01-31T12:00:00Z`, between which a message was
    accepted. `limit` (50, at most 100) is how many are shown; where there
    are more, `has_more` is true and `next` is the address of the next page.

    Needs the pool's key or an admin's.
    """
    auth.demand(auth.caller(), domain, pool=True, admin=True)
    wanted = _query()
    limit = wanted.pop('limit', LIMIT)
    found, has_more = current_app.gateway.messages(
        domain, limit=limit, **wanted)
    return answers.Page(
        messages=[answers.summary(message) for message in found],
        has_more=has_more,
        next=_next(domain, found[-1].id) if has_more else None
    ).json_object()


@blueprint.get('/<domain>/messages/<message_id>')
def message(domain, message_id):
    """A message: where it stands, and what happened to it.

    `attempts` tells of each delivery by a service, oldest first: how it
    ended, and why. With an admin's key the content is shown too.

    A message that was refused, that failed or was cancelled can be tried
    again; one that waits can be cancelled. One that is `uncertain` was
    handed to a provider that never said whether it took it: with a
    `next_attempt_at` it is being settled, without one it is held until
    somebody settles it. Of a message at its end the content and the
    addresses can be erased (DELETE).
    """
    asking = auth.caller()
    auth.demand(asking, domain, pool=True, admin=True)
    return _timeline(domain, message_id, asking)


@blueprint.post('/<domain>/messages/<message_id>/retry')
def retry(domain, message_id):
    """Set a rejected, failed or cancelled message going again."""
    asking, _ = _act(domain)
    current_app.gateway.retry(domain, message_id)
    return _timeline(domain, message_id, asking)


@blueprint.post('/<domain>/messages/<message_id>/cancel')
def cancel(domain, message_id):
    """Withdraw a message that is queued or deferred."""
    asking, _ = _act(domain)
    current_app.gateway.cancel(domain, message_id)
    return _timeline(domain, message_id, asking)


@blueprint.post('/<domain>/messages/<message_id>/resolve')
def resolve(domain, message_id):
    """Settle an uncertain message: whoever asked the provider knows.

    `verdict` is `accepted` (a provider took it), `not_sent` (none did, and
    the message fails) or `send_again` (whatever happened, try again)::

        {"verdict": "accepted"}
    """
    asking, data = _act(domain, Resolution)
    current_app.gateway.resolve(domain, message_id, data.verdict)
    return _timeline(domain, message_id, asking)


@blueprint.delete('/<domain>/messages/<message_id>')
def delete(domain, message_id):
    """Erase the content and the addresses of a message now.

    Only what is settled can be erased: one that waits can be cancelled
    before, one that is `uncertain` can be resolved. Its story stays; its
    recipients are called `erased-1`, `erased-2` and so on. To erase again
    changes nothing.
    """
    return _erased(domain, message_id)


@blueprint.post('/<domain>/messages/<message_id>/erase')
def erase(domain, message_id):
    """Erase the content and the addresses of a message now.

    The same as a DELETE of the message, for the forms of a browser.
    """
    return _erased(domain, message_id)


def _erased(domain, message_id):
    asking, _ = _act(domain)
    current_app.gateway.erase(domain, message_id)
    return _timeline(domain, message_id, asking)


class Nothing(BaseModel):
    """An act that needs no more words."""

    model_config = ConfigDict(extra='forbid')


def _act(domain, model=Nothing):
    """Return who acts, and the body as `model`.

    A program sends JSON, or no body where nothing needs to be said; a
    browser a form that carries the token of an admin's session.
    """
    if body.is_form() and (admin := sessions.signed_in()):
        fields, _ = body.read_form()
        sessions.check_token(fields)
        asking = auth.Caller(admin=admin)
        data = {name: value for name, value in fields.items()
                if name != 'csrf_token'}
    else:
        if 'Authorization' in request.headers:      # before the body
            auth.demand(auth.caller(), domain, pool=True, admin=True)
        data = {} if body.is_empty() else body.read_json()
        asking = auth.caller(data)
        auth.demand(asking, domain, pool=True, admin=True)
    try:
        return asking, model.model_validate(data)
    except ValidationError as failure:
        raise InvalidFields(errors=problems(failure)) from None


def _timeline(domain, message_id, asking):
    gateway, email = current_app.gateway, None
    found = gateway.message(domain, message_id)
    if asking.admin:
        try:
            email = gateway.email(domain, message_id)
        except NotFound:    # its time is over; the story stays
            email = None
    return answers.timeline(found, email).json_object()


def _query():
    """Return the filters of the query string; what is empty filters not."""
    wanted, errors = {}, []
    for name, values in request.args.lists():
        if name not in _FILTERS:
            errors.append((name, 'is not a parameter here; these are: '
                                 f'{", ".join(_FILTERS)}'))
        elif len(values) > 1:
            errors.append((name, 'stands twice'))
        elif values[0]:
            try:
                wanted[name] = _FILTERS[name](values[0])
            except ValueError as error:
                errors.append((name, str(error)))
    if errors:
        raise InvalidFields(errors=errors)
    return wanted


def _state(text):
    if text not in State.__members__:
        raise ValueError(f'must be one of: {", ".join(State)}')
    return State(text)


def _time(text):
    moment: datetime = syntax.rfc3339(text)
    return moment.timestamp()


def _limit(text):
    if not re.fullmatch('[0-9]{1,3}', text) \
            or not 1 <= int(text) <= MAX_LIMIT:
        raise ValueError(f'must be a whole number from 1 to {MAX_LIMIT}')
    return int(text)


def _id(text):
    if not _ID.fullmatch(text):
        raise ValueError('must be the id of a message')
    return text


_FILTERS = {'state': _state, 'recipient': syntax.address, 'since': _time,
            'until': _time, 'limit': _limit, 'after': _id}


def _next(domain, last):
    kept = [(name, value) for name, value in request.args.items()
            if name != 'after' and value]
    return url(f'/{domain}/messages/?{urlencode([*kept, ("after", last)])}')
