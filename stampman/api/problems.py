"""Errors, in the one shape that all of them have (RFC 9457)."""

import logging
import math
from typing import Any

from flask import request
from pydantic import BaseModel, ConfigDict, Field
from werkzeug.exceptions import HTTPException

from stampman.helpers import exceptions
from stampman.helpers.exceptions import RequestError, StampmanError

log = logging.getLogger(__name__)


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    model_config = ConfigDict(extra='forbid')

    field: str = Field(description='as the request named it: `cc[2].email`')
    message: str


class Problem(BaseModel):
    """An error (RFC 9457), as `application/problem+json`."""

    model_config = ConfigDict(extra='allow')

    type: str = Field(description='a URI of this kind of problem')
    title: str
    status: int = Field(description='the HTTP status')
    detail: str
    code: str = Field(description='the stable name of this kind')
    errors: list[FieldProblem] = Field(
        default=[], description='every field that is wrong')
    request_id: str


# HTTP errors that Werkzeug finds have the names that ours have.
_OURS = {error.status: error for error in vars(exceptions).values()
         if isinstance(error, type) and issubclass(error, RequestError)
         and error is not RequestError}
_DETAILS = {404: 'There is nothing at this address.',
            405: 'This address does not know the method {method}.',
            500: 'It is our fault, and has been reported. The request_id '
                 'finds it in the log.'}


def document(status: int, code: str, title: str, detail: str,
             errors=(), **more: Any) -> dict[str, Any]:
    """Return a problem as a JSON object."""
    found = {'type': f'urn:stampman:problem:{code}', 'title': title,
             'status': status, 'detail': detail, 'code': code}
    if errors:
        found['errors'] = [{'field': field, 'message': message}
                           for field, message in errors]
    return {**found, **more,
            'request_id': request.environ['stampman.request_id']}


def told(error: StampmanError) -> dict[str, Any]:
    """Return an error that we raised on purpose as a problem."""
    return document(error.status, error.code, error.title,
                    error.detail or f'{error.title}.', error.errors)


def of_ours(error: StampmanError):
    """Answer an error that we raised on purpose."""
    if error.status == 500:     # it should not have come this far: a bug
        raise error
    if error.status > 500:
        log.error('%s: %s', error.code, error.detail)
    headers = {}
    if error.status == 401:
        headers['WWW-Authenticate'] = 'Bearer'
    if error.retry_after is not None:
        headers['Retry-After'] = str(max(1, math.ceil(error.retry_after)))
    return told(error), error.status, headers


def of_http(error: HTTPException):
    """Answer an error that Flask, Werkzeug or a bug of ours raised."""
    status = error.code or 500
    if ours := _OURS.get(status):
        code, title = ours.code, ours.title
    else:
        title = error.name
        code = title.lower().replace(' ', '_').replace("'", '')
    if status >= 500:
        code, title = 'internal_error', 'Internal error'
    detail = _DETAILS.get(status) or error.description or f'{title}.'
    headers = [(name, value) for name, value in error.get_headers()
               if name.lower() not in ('content-type', 'content-length')]
    return document(status, code, title,
                    detail.replace('{method}', request.method)
                    ), status, dict(headers)


def register(app) -> None:
    """Let `app` answer every error in this shape.

    Flask-API takes the first handler that fits, not the closest: there is
    one for our errors and one for all others.
    """
    app.register_error_handler(StampmanError, of_ours)
    app.register_error_handler(HTTPException, of_http)
