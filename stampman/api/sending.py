"""Sending: the one call that applications make."""

import base64
import re

from flask import Blueprint, current_app, g, request

from stampman.api import answers, auth, body, headers, problems, sessions
from stampman.api.addresses import url
from stampman.helpers import mail
from stampman.helpers.delivery import State
from stampman.helpers.exceptions import (
    InvalidFields, KeyReused, UnsupportedMediaType)

blueprint = Blueprint('sending', __name__)

STATUSES = {State.accepted: 200, State.queued: 202, State.sending: 202,
            State.deferred: 202, State.uncertain: 202, State.rejected: 422,
            State.failed: 422, State.cancelled: 422}
TITLES = {State.rejected: 'The email was refused for good',
          State.failed: 'No service could carry the email',
          State.cancelled: 'The message was cancelled'}
REPLAYED = {'Idempotent-Replayed': 'true'}
FORM_KEY = 'idempotency_key'    # of a form, which sends no headers
# Fields of the form that hold several values, one a line or with commas.
_LISTS = frozenset({'recipients', 'to', 'cc', 'bcc', 'reply_to', 'tags'})
_BETWEEN = re.compile(r'(?:"(?:[^"\\\n]|\\.)*"|[^",;\n]|")+')


@blueprint.get('/<domain>/send')
def form(domain):
    """Send one email through this pool.

    POST a JSON object to this address, with the pool's API key::

        curl https://stampman.example/example.com/send \\
          -H 'Authorization: Bearer <pool API key>' \\
          -H 'Content-Type: application/json' \\
          -d '{"from_email": "shop@example.com",
               "recipients": ["Ada <ada@example.org>"],
               "subject": "Your order", "content": "It is on its way."}'

    The key may also be the password of HTTP Basic, or stand in the JSON
    as `pool_api_key`.

    Required are `from_email`, at least one address in `recipients`, `cc` or
    `bcc`, and `content` (plain text), `html`, or both. An address is
    `"a@b.c"`, `"Name <a@b.c>"` or `{"email": …, "name": …}`. Optional are
    `from_name`, `reply_to`, `subject`, `headers` and `metadata` (objects of
    strings), `tags` (a list of strings), `attachments` (each with
    `filename`, `content_type`, `content` in base64 and, for an inline part
    of the html, `content_id`), `track_opens`, `track_clicks`, `send_at` (not
    before that time, at most 30 days ahead), `expires_at` (both times with
    their offset, RFC 3339) and `on_uncertain` (`"hold"` or `"failover"`).
    `from`, `to` and `text` are other names of `from_email`, `recipients` and
    `content`. A field that is not known is an error that names it.

    With the header `Idempotency-Key` (1 to 255 printable ASCII characters,
    of your choice) the same request may be sent again and again: for 24
    hours it is one message, and the answer tells where that stands now, with
    `Idempotent-Replayed: true`. Another body under the same key is a 422.
    A request that was refused (4xx without an `id`) is not remembered. With
    `Prefer: respond-async` the answer does not wait for a provider: 202,
    `queued`. Other preferences are ignored, as RFC 7240 asks.

    Up to 500 emails at once are posted to `send/batch`, as
    `{"emails": [ … ]}`.

    The answer tells where the message stands. 200: a provider took it, and
    `service_used` says which. 202: it is stored and will be sent, or is
    being settled; `status` and `next_attempt_at` say more. 422 with an `id`:
    it is stored, but was refused for good. 422 without one: fields are
    wrong, `errors` names them all, and nothing is stored. At `url` the whole
    story of the message can be read at any time.
    """
    return {'domain': domain, 'send_url': url(f'/{domain}/send'),
            'method': 'POST', 'content_type': 'application/json',
            'openapi_url': url('/openapi.json'),
            'schema': '#/components/schemas/Submission'}


@blueprint.post('/<domain>/send')
def send(domain):
    """Send one email through this pool."""
    data, key = _form(domain) if body.is_form() else (
        json_fields(domain), headers.idempotency_key())
    at_once = not headers.prefers_async()
    gateway = current_app.gateway
    submission = mail.submission(data, gateway.config.limits)
    try:
        taken = gateway.send(
            domain, submission, request.environ['stampman.arrived'], key,
            at_once)
    except KeyReused:
        if body.is_form():
            raise _sent_before() from None
        raise
    return _answer(taken, {} if at_once or taken.replayed else {
        'Preference-Applied': 'respond-async'})


def _answer(taken, told):
    """Answer with the message as it is; never an error from here on."""
    message = taken.message
    found = answers.sent(message).json_object()
    status = STATUSES[message.state]
    if status >= 400:
        found.pop('status')
        found = problems.document(
            status, message.state, TITLES[message.state],
            message.reason or TITLES[message.state], **found)
    return found, status, {'Location': found['url'], **told,
                           **(REPLAYED if taken.replayed else {})}


def json_fields(domain):
    """Return the fields that a program posts, its key proved."""
    proved = 'Authorization' in request.headers
    if proved:
        auth.demand(auth.caller(), domain, pool=True)   # before the body
    data = body.read_json()
    if not proved or not data.keys().isdisjoint(auth.FIELDS):
        auth.demand(auth.caller(data), domain, pool=True)
    return data


def _form(domain):
    """Return what a browser posts, its right to it proved: the fields, and
    the key of this form, which a double click or a reload brings again."""
    posted, files = body.read_form()
    data = _unrolled(posted)
    g.form = {name: value for name, value in data.items()
              if name not in (*auth.FIELDS, 'csrf_token')}
    if data.get('pool_api_key') or not sessions.signed_in():
        if 'pool_api_key' not in data:
            raise UnsupportedMediaType(
                'A form is read only with pool_api_key in it, or from an '
                'admin who has signed in. Programs post JSON.')
        if not data['pool_api_key']:
            del data['pool_api_key']
        auth.demand(auth.caller(data), domain, pool=True)
    else:
        sessions.check_token(posted)
        data.pop('pool_api_key', None)
    data.pop('csrf_token', None)
    key = _key_of_form(data.pop(FORM_KEY, ''))
    return _as_json(data, files), key


def _key_of_form(given):
    """Return the key of a form; a program may post one with the header."""
    key = headers.idempotency_key()
    if not given:
        return key
    wrong = '' if headers.is_key(given) else headers.KEY_RULE
    if key is not None:
        wrong = f'stands in the header {headers.KEY} too'
    if wrong:
        g.form.pop(FORM_KEY)
        raise InvalidFields(errors=[(FORM_KEY, wrong)])
    return given


class FormSentBefore(KeyReused):
    """Somebody went back in the browser and wrote another email."""

    title = 'This form was sent already'


def _sent_before():
    """Tell a person what happened; the form gets a new key."""
    g.form.pop(FORM_KEY, None)
    return FormSentBefore(
        'This form was sent before, with other content: that email is '
        'stored, and nothing was sent now. Press "Send" to send this one '
        'too.')


def _unrolled(posted):
    """Return each field of a form once."""
    twice = [name for name, values in posted.lists() if len(values) > 1]
    if twice:
        raise InvalidFields(errors=[
            (name, 'stands twice in the form') for name in twice])
    return {name: value.replace('\r\n', '\n')
            for name, value in posted.items()}


def _as_json(data, files):
    """Return a form's fields as a program would have posted them."""
    fields = {name: _several(value) if name in _LISTS else value
              for name, value in data.items() if value.strip()}
    wrong = [name for name, file in files.items(multi=True)
             if name != 'attachments' or not file.filename and file.read(1)]
    if wrong or 'attachments' in fields:
        raise InvalidFields(errors=[
            (name, 'files are taken in "attachments" alone, each with its '
                   'file name') for name in wrong or ['attachments']])
    attachments = [
        {'filename': file.filename,
         'content': base64.b64encode(file.read()).decode(),
         **({'content_type': file.content_type} if file.content_type
            else {})}
        for file in files.getlist('attachments') if file.filename]
    if attachments:
        fields['attachments'] = attachments
    return fields


def _several(text):
    """Split at commas, semicolons and line ends that are not quoted."""
    return [part.strip() for part in _BETWEEN.findall(text) if part.strip()]
