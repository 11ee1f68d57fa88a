"""Errors that Stampman raises on purpose.

::

    StampmanError                  what a caller can be told
    ├── ConfigError                config or environment: every problem at once
    ├── RequestError               the client's request cannot be served (4xx)
    │   ├── BadRequest             400  not strict JSON, or no JSON object
    │   ├── Unauthorized           401  no key, or an unknown one
    │   ├── Forbidden              403  a key or a sender that is not allowed
    │   ├── NotFound               404  no such pool, message or route
    │   ├── Conflict               409  the message's state does not allow it
    │   ├── KeyBusy                409  the first request with this key lasts
    │   ├── KeyReused              422  the key was used with another body
    │   ├── TooLarge               413  larger than the configured limit
    │   ├── UnsupportedMediaType   415  the body is not JSON
    │   ├── InvalidFields          422  fields are wrong: all of them named
    │   └── TooManyRequests        429  over the pool's rate
    ├── StoreUnavailable           503  nothing was accepted; try again
    │   └── CommitUnknown          504  something may have been, or may yet
    ├── KeyTaken                   a twin was faster: it has stored the same
    └── LeaseLost                  another worker holds the message now

A provider's answer is never an exception: it is an `Outcome`.
"""

from typing import NamedTuple


class FieldError(NamedTuple):
    """What is wrong with one field, and where it stands."""

    field: str      # as the client or the config file names it: `cc[2].email`
    message: str


class StampmanError(Exception):
    """Base of all errors below.

    `status` is the HTTP status it is answered with, `code` its stable name
    for programs, `title` its name for people. `retry_after` (seconds) is
    told to the client where it is set.
    """

    status = 500
    code = 'internal_error'
    title = 'Internal error'

    def __init__(self, detail='', *, errors=(), retry_after=None):
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(FieldError(*error) for error in errors)
        self.retry_after = retry_after

    def told(self) -> str:
        """Return all of it for people: a line for each field."""
        lines = [f'{place}: {message}' for place, message in self.errors]
        return '\n'.join(filter(None, [self.detail, *lines]))


class ConfigError(StampmanError):
    """The configuration cannot be used; `errors` names every problem."""

    code = 'invalid_config'
    title = 'The configuration is not valid'

    __str__ = StampmanError.told


class RequestError(StampmanError):
    """Base of the errors that are the client's to mend."""

    status = 400


class BadRequest(RequestError):
    """The request cannot be read."""

    status, code = 400, 'bad_request'
    title = 'The request cannot be read'


class Unauthorized(RequestError):
    """No key, or one that nobody holds."""

    status, code = 401, 'unauthorized'
    title = 'A valid API key is needed'


class Forbidden(RequestError):
    """The key is known but may not do this."""

    status, code = 403, 'forbidden'
    title = 'Not allowed'


class NotFound(RequestError):
    """There is no such thing."""

    status, code = 404, 'not_found'
    title = 'Not found'


class Conflict(RequestError):
    """The message's state does not allow this action."""

    status, code = 409, 'conflict'
    title = 'The state does not allow it'


class TooLarge(RequestError):
    """The body is larger than the configured limit."""

    status, code = 413, 'too_large'
    title = 'The request is too large'


class UnsupportedMediaType(RequestError):
    """The body is not of a media type that this route reads."""

    status, code = 415, 'unsupported_media_type'
    title = 'The body must be JSON'


class InvalidFields(RequestError):
    """Fields are wrong; `errors` names each of them."""

    status, code = 422, 'invalid_fields'
    title = 'Some fields are not valid'


class KeyBusy(RequestError):
    """The first request with this Idempotency-Key is still being stored."""

    status, code = 409, 'idempotency_key_busy'
    title = 'The first request with this key is not over yet'


class KeyReused(RequestError):
    """An Idempotency-Key came before, with another body."""

    status, code = 422, 'idempotency_key_reused'
    title = 'The key was used with another body'


class TooManyRequests(RequestError):
    """More messages than the pool's rate allows."""

    status, code = 429, 'too_many_requests'
    title = 'Over the rate of this pool'


class StoreUnavailable(StampmanError):
    """The store cannot be read or written now; nothing was accepted."""

    status, code = 503, 'store_unavailable'
    title = 'The store is not available'


class CommitUnknown(StoreUnavailable):
    """A commit was asked for, and its answer is lost, or says nothing: what
    it holds may be stored, now or later."""

    status, code = 504, 'outcome_unknown'
    title = 'It is not known whether this was stored'


class KeyTaken(StampmanError):
    """What came under the same Idempotency-Key at the same time is stored
    already; nothing more is."""

    code = 'key_taken'


class LeaseLost(StampmanError):
    """The claim on a message is no longer ours: do nothing more with it."""

    code = 'lease_lost'
