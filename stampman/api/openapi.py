"""/openapi.json: OpenAPI 3.1, from the models that validate and answer."""

import inspect
import re
from typing import Any, NamedTuple

from flask import Blueprint, current_app
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

import stampman
from stampman.api import answers
from stampman.api.addresses import url
from stampman.api.batch import Batch, BatchAnswer
from stampman.api.headers import KEY
from stampman.api.messages import MAX_LIMIT, LIMIT, Resolution
from stampman.api.problems import Problem
from stampman.helpers.delivery import State
from stampman.helpers.mail import ALIASES, Submission

blueprint = Blueprint('openapi', __name__)


class AdminKey(BaseModel):
    """An admin's key, as the first Stampman took it."""

    admin_api_key: str


class AnyKey(BaseModel):
    """A key in the JSON, where none stands in a header."""

    pool_api_key: str | None = None
    admin_api_key: str | None = None


class Verdict(AnyKey, Resolution):
    """A person's word on an uncertain message, and perhaps a key."""


class KeyedBatch(Batch):
    """Up to 500 emails, and perhaps the pool's key."""

    pool_api_key: str | None = None


class Refused(Problem):
    """Nothing is stored: fields are wrong, or the Idempotency-Key came with
    another body (`code` is `idempotency_key_reused`). Or, with an `id`, the
    message is stored: it was refused for good (`rejected`), nobody can carry
    it (`failed`) or, told again, it was withdrawn (`cancelled`).
    """

    id: str | None = None
    url: str | None = None
    recipients: list[answers.RecipientAnswer] | None = None
    services_fail: dict[str, str] | None = None


class Unknown(Problem):
    """A commit was not answered: what was asked for may be done, now or
    soon, or not. Under an Idempotency-Key it may be repeated at once; else
    look first, as `detail` says.
    """


class Operation(NamedTuple):
    """One route: what it takes, what it answers, whose key it needs."""

    answers: dict[int, type[BaseModel] | None]
    problems: tuple[int, ...] = ()
    body: type[BaseModel] | None = None
    needs_key: bool = True
    parameters: tuple[dict, ...] = ()
    needs_body: bool = True
    headers: tuple[str, ...] = ()       # that answers about messages have


def _parameter(name, description, place='query', **schema):
    return {'name': name, 'in': place, 'required': False,
            'description': description, 'schema': schema}


_TIME = {'type': 'string', 'format': 'date-time'}
_FILTERS = (
    _parameter('state', 'only in this state', type='string',
               enum=list(State)),
    _parameter('recipient', 'only to this address', type='string'),
    _parameter('since', 'accepted then or later', **_TIME),
    _parameter('until', 'accepted before', **_TIME),
    _parameter('limit', 'how many', type='integer', minimum=1,
               maximum=MAX_LIMIT, default=LIMIT),
    _parameter('after', 'the last id of the page before', type='string'))
_ONCE = (
    _parameter(KEY, 'your name for this request: for 24 hours whatever is '
               'sent under it with the same body is one and the same',
               'header', type='string', minLength=1, maxLength=255,
               pattern='^[ -~]+$'),
    _parameter('Prefer', 'with `respond-async` no provider is waited for; '
               'other preferences are ignored (RFC 7240)', 'header',
               type='string'))
# Of answers. Those of the errors come with every answer of that status.
_HEADERS = {
    'Location': 'the URL of the message',
    'Idempotent-Replayed': '`true`: it came before under the same key',
    'Preference-Applied': '`respond-async`: no provider was waited for',
    'Retry-After': 'seconds after which to try again',
    'WWW-Authenticate': 'always `Bearer`'}
_OF_ERRORS = {401: ('WWW-Authenticate',), 409: ('Retry-After',),
              429: ('Retry-After',), 503: ('Retry-After',),
              504: ('Retry-After',)}
_ACT = Operation({200: answers.Timeline}, (
    400, 401, 403, 404, 409, 413, 415, 422, 503, 504), AnyKey,
    needs_body=False)
OPERATIONS = {
    'pools.index': Operation(
        {200: answers.PoolsAnswer}, (400, 401, 503), needs_key=False),
    'pools.index_by_key': Operation(
        {200: answers.PoolsAnswer}, (400, 401, 403, 413, 415, 422, 503),
        AdminKey, needs_key=False),
    'pools.pool': Operation(
        {200: answers.PoolAnswer}, (400, 401, 403, 404, 503), needs_key=False),
    'pools.pool_by_key': Operation(
        {200: answers.PoolAnswer},
        (400, 401, 403, 404, 413, 415, 422, 503), AdminKey, needs_key=False),
    'sending.form': Operation({200: None}, (400, 404), needs_key=False),
    'sending.send': Operation(
        {200: answers.Sent, 202: answers.Sent},
        (400, 401, 403, 404, 409, 413, 415, 422, 429, 503, 504), Submission,
        parameters=_ONCE, headers=(
            'Location', 'Idempotent-Replayed', 'Preference-Applied')),
    'batch.send': Operation(
        {200: BatchAnswer},
        (400, 401, 403, 404, 409, 413, 415, 422, 429, 503, 504), KeyedBatch,
        parameters=_ONCE, headers=('Idempotent-Replayed',)),
    'messages.index': Operation(
        {200: answers.Page}, (400, 401, 403, 404, 422, 503),
        parameters=_FILTERS),
    'messages.message': Operation(
        {200: answers.Timeline}, (400, 401, 403, 404, 503)),
    'messages.retry': _ACT,
    'messages.cancel': _ACT,
    'messages.resolve': _ACT._replace(body=Verdict, needs_body=True),
    'messages.delete': _ACT,
    'messages.erase': _ACT,
    'probes.healthz': Operation({200: None}, (400,), needs_key=False),
    'probes.readyz': Operation({200: None}, (400, 503), needs_key=False),
    'openapi.document': Operation({200: None}, (400,), needs_key=False),
}


@blueprint.get('/openapi.json')
def document():
    """Describe this API to programs (OpenAPI 3.1)."""
    cached = current_app.extensions.get('stampman_openapi')
    if cached is None:
        cached = current_app.extensions['stampman_openapi'] = build(
            current_app)
    return {**cached, 'servers': [{'url': url('') or '/'}]}


def build(app) -> dict[str, Any]:
    """Return the document of the routes of `app`, without its servers."""
    paths = {}
    for rule in app.url_map.iter_rules():
        if operation := OPERATIONS.get(rule.endpoint):
            path = re.sub('<([a-z_]+)>', r'{\1}', rule.rule)
            methods = (rule.methods or set()) & {'GET', 'POST', 'DELETE'}
            for method in sorted(methods):
                paths.setdefault(path, {})[method.lower()] = _operation(
                    app.view_functions[rule.endpoint], rule, operation)
    return {
        'openapi': '3.1.0',
        'info': {'title': 'Stampman', 'version': stampman.__version__,
                 'summary': 'A self-hosted gateway for transactional email'},
        'paths': dict(sorted(paths.items())),
        'components': {
            'schemas': _schemas(),
            'securitySchemes': {
                'bearer': {'type': 'http', 'scheme': 'bearer'},
                'basic': {'type': 'http', 'scheme': 'basic',
                          'description': 'the key is the password'}}}}


def _operation(view, rule, operation):
    summary, _, text = (inspect.getdoc(view) or '').partition('\n\n')
    found = {
        'operationId': rule.endpoint.replace('.', '_'),
        'summary': ' '.join(summary.split()),
        'parameters': [
            {'name': name, 'in': 'path', 'required': True,
             'schema': {'type': 'string'}}
            for name in sorted(rule.arguments)] + list(operation.parameters),
        'responses': {
            str(status): _response(status, model, operation)
            for status, model in {**operation.answers, **dict.fromkeys(
                operation.problems, Problem)}.items()}}
    if text:
        found['description'] = text
    if operation.needs_key:
        found['security'] = [{'bearer': []}, {'basic': []}, {}]
    if operation.body:
        schema = {'schema': _reference(operation.body)}
        found['requestBody'] = {'required': operation.needs_body,
                                'content': {'application/json': schema}}
    return found


def _response(status, model, operation):
    media_type, headers = 'application/json', operation.headers
    if model is Problem:
        media_type = 'application/problem+json'
        headers = _OF_ERRORS.get(status, ())
        if status == 422 and operation.body is Submission:
            model, headers = Refused, operation.headers
        elif status == 504:
            model = Unknown
    found = {'description': ' '.join(
        (inspect.getdoc(model) if model else 'A JSON object.').split()),
        'content': {media_type: {'schema': (
            _reference(model) if model else {'type': 'object'})}}}
    if headers:
        found['headers'] = {
            name: {'description': _HEADERS[name],
                   'schema': {'type': 'string'}} for name in headers}
    return found


def _reference(model):
    return {'$ref': f'#/components/schemas/{model.__name__}'}


def _schemas():
    models = {Problem, Refused, Unknown}
    for operation in OPERATIONS.values():
        models |= {operation.body, *operation.answers.values()} - {None}
    # As validated: what has a default may be left out, also in answers.
    _, schema = models_json_schema(
        [(model, 'validation')
         for model in sorted(models, key=lambda model: model.__name__)],
        ref_template='#/components/schemas/{model}')
    schemas = _without_null_defaults(schema['$defs'])
    schemas['BatchEmail'] = _as_posted(schemas['Submission'])
    schemas['Submission'] = _with_key(schemas['BatchEmail'])
    return schemas


def _without_null_defaults(schema):
    """What is None inside is left out outside: null is never posted."""
    if isinstance(schema, list):
        return [_without_null_defaults(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _without_null_defaults(value)
            for key, value in schema.items()
            if not (key == 'default' and value is None)}


def _as_posted(schema):
    """Add what a client may also call its fields, and what it must bring.

    The model sees the fields after the aliases are resolved.
    """
    properties = dict(schema['properties'])
    names = {name: [name] for name in properties}
    for alias, name in {**ALIASES, 'from': 'from_email'}.items():
        names[name].append(alias)
        properties[alias] = properties[name]
    address = {'anyOf': [{'type': 'string'},
                         {'$ref': '#/components/schemas/Address'}]}
    properties['from_email'] = properties['from'] = address

    def one_of(*fields):
        return {'anyOf': [{'required': [name]}
                          for field in fields for name in names[field]]}

    return {
        **{key: value for key, value in schema.items() if key != 'required'},
        'properties': properties,
        'allOf': [one_of('from_email'), one_of('recipients', 'cc', 'bcc'),
                  one_of('content', 'html')]}


def _with_key(schema):
    """Add the key, which is taken out before the model sees the fields."""
    return {**schema, 'properties': {**schema['properties'], 'pool_api_key': {
        'type': 'string', 'description': "the pool's key, if it stands in "
                                         'no header'}}}
