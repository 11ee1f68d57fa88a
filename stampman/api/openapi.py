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


class Refused(Problem):
    """Fields are wrong; or, with an `id`, the message is stored and was
    refused for good (`code` is `rejected`) or cannot be carried (`failed`).
    """

    id: str | None = None
    url: str | None = None
    recipients: list[answers.RecipientAnswer] | None = None
    services_fail: dict[str, str] | None = None


class Operation(NamedTuple):
    """One route: what it takes, what it answers, whose key it needs."""

    answers: dict[int, type[BaseModel] | None]
    problems: tuple[int, ...] = ()
    body: type[BaseModel] | None = None
    needs_key: bool = True
    parameters: tuple[dict, ...] = ()
    needs_body: bool = True


def _parameter(name, description, **schema):
    return {'name': name, 'in': 'query', 'required': False,
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
_ACT = Operation({200: answers.Timeline}, (
    400, 401, 403, 404, 409, 413, 415, 422, 503), AnyKey, needs_body=False)
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
        (400, 401, 403, 404, 413, 415, 422, 429, 503), Submission),
    'messages.index': Operation(
        {200: answers.Page}, (400, 401, 403, 404, 422, 503),
        parameters=_FILTERS),
    'messages.message': Operation(
        {200: answers.Timeline}, (400, 401, 403, 404, 503)),
    'messages.retry': _ACT,
    'messages.cancel': _ACT,
    'messages.resolve': _ACT._replace(body=Verdict, needs_body=True),
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
            methods = (rule.methods or set()) & {'GET', 'POST'}
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
            **{str(status): _response(model, 'application/json')
               for status, model in operation.answers.items()},
            **{str(status): _response(
                Refused if status == 422 and operation.body is Submission
                else Problem, 'application/problem+json')
               for status in operation.problems}}}
    if text:
        found['description'] = text
    if operation.needs_key:
        found['security'] = [{'bearer': []}, {'basic': []}, {}]
    if operation.body:
        schema = {'schema': _reference(operation.body)}
        found['requestBody'] = {'required': operation.needs_body,
                                'content': {'application/json': schema}}
    return found


def _response(model, media_type):
    schema = _reference(model) if model else {'type': 'object'}
    return {'description': ' '.join(
        (inspect.getdoc(model) if model else 'A JSON object.').split()),
        'content': {media_type: {'schema': schema}}}


def _reference(model):
    return {'$ref': f'#/components/schemas/{model.__name__}'}


def _schemas():
    models = {Problem, Refused}
    for operation in OPERATIONS.values():
        models |= {operation.body, *operation.answers.values()} - {None}
    # As validated: what has a default may be left out, also in answers.
    _, schema = models_json_schema(
        [(model, 'validation')
         for model in sorted(models, key=lambda model: model.__name__)],
        ref_template='#/components/schemas/{model}')
    schemas = _without_null_defaults(schema['$defs'])
    schemas['Submission'] = _as_posted(schemas['Submission'])
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

    The model sees the fields after the aliases are resolved and the key is
    taken out.
    """
    properties = dict(schema['properties'])
    names = {name: [name] for name in properties}
    for alias, name in {**ALIASES, 'from': 'from_email'}.items():
        names[name].append(alias)
        properties[alias] = properties[name]
    address = {'anyOf': [{'type': 'string'},
                         {'$ref': '#/components/schemas/Address'}]}
    properties['from_email'] = properties['from'] = address
    properties['pool_api_key'] = {
        'type': 'string', 'description': "the pool's key, if it stands in "
                                         'no header'}

    def one_of(*fields):
        return {'anyOf': [{'required': [name]}
                          for field in fields for name in names[field]]}

    return {
        **{key: value for key, value in schema.items() if key != 'required'},
        'properties': properties,
        'allOf': [one_of('from_email'), one_of('recipients', 'cc', 'bcc'),
                  one_of('content', 'html')]}
