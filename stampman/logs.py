"""Logs: one line an event, JSON for programs, text for a terminal.

`setup` is called once, before anything else logs. Whatever is written
through `logging` comes out in one shape: `ts`, `level`, `event`, `logger`,
the ids that `bind` put on this thread, the `extra` fields, and an exception
as `error`. What a line may show is decided here and nowhere else: addresses
are masked, secrets redacted; foreign objects and foreign exceptions, which
quote what they choked on, are shown by their class. Our own may speak.
"""

import contextlib
import functools
import json
import logging
import math
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, TextIO
from uuid import UUID

from stampman.helpers import masking
from stampman.helpers.exceptions import StampmanError

MAX_INPUT = 20_000      # characters; what is longer is a body, not an event
MAX_TEXT = 2_000        # characters of one text that are written
MAX_ITEMS = 50          # of a list or an object
MAX_DEPTH = 4
MAX_FRAMES = 30         # the innermost ones

# Their lower levels write out requests, headers and SQL with its values.
PINNED = ('alembic.', 'asyncio.', 'boto3.', 'botocore.', 'http.client.',
          'psycopg.', 'requests.', 'sentry_sdk.', 'sqlalchemy.', 'urllib3.')
# Extras of these names are parts of an email, of a request, or credentials.
WITHHELD = frozenset({
    'api_key', 'attachments', 'authorization', 'body', 'content', 'cookie',
    'cookies', 'data', 'email', 'headers', 'html', 'key', 'metadata',
    'password', 'payload', 'query_string', 'secret', 'subject', 'text',
    'token'})
# What a foreign exception may tell beside its class: bare error codes.
SAFE_CODES = ('errno', 'sqlite_errorname', 'sqlstate')

_TEXTUAL = (PurePath, UUID, date, datetime, time, timedelta, Decimal)
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {
    'message', 'asctime', 'taskName'}
_CODE = re.compile('[A-Za-z0-9_]{1,40}')
_BARE = re.compile(r'[\w.:/@*+\[\]-]+')
_encode = json.JSONEncoder(allow_nan=False, check_circular=False).encode

_bound: ContextVar[Mapping[str, str]] = ContextVar(
    'stampman_log_ids', default=MappingProxyType({}))
# The secrets, in every spelling, and how long the shortest is.
_known: tuple[tuple[str, ...], int] = ((), 0)
_log = logging.getLogger(__name__)


# -- ids ----------------------------------------------------------------

@contextlib.contextmanager
def bind(*, request_id: str | None = None, message_id: str | None = None,
         attempt_id: str | None = None, pool: str | None = None,
         service: str | None = None) -> Iterator[None]:
    """Put ids on every line this thread writes inside the block.

    Blocks nest: what is None stays as the outer block has it.
    """
    given = {'request_id': request_id, 'message_id': message_id,
             'attempt_id': attempt_id, 'pool': pool, 'service': service}
    token = _bound.set(MappingProxyType({
        **_bound.get(),
        **{name: id for name, id in given.items() if id is not None}}))
    try:
        yield
    finally:
        _bound.reset(token)


def bound() -> Mapping[str, str]:
    """Return the ids that are bound here and now."""
    return _bound.get()


# -- what may be shown ------------------------------------------------------

def set_secrets(secrets: Iterable[str]) -> None:
    """Replace what is redacted from now on, as after a reload."""
    global _known
    known = masking.spellings(secrets)
    _known = known, min(map(len, known), default=0)
    _name.cache_clear()


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Return `text` without the known secrets, and those of `secrets`."""
    known, _ = _known
    found = [secret for secret in (*known, *secrets) if secret in text]
    return masking.redact(text, found) if found else text


def clean(text: str, secrets: Iterable[str] = ()) -> str:
    """Return `text` without secrets, whole addresses and query strings."""
    if len(text) > MAX_INPUT:
        return f'[{len(text)} characters withheld]'
    if secrets or len(text) >= _known[1]:     # most texts are too short
        text = redact(text, secrets)
    if '@' in text or '%' in text or '?' in text:   # not so in most
        text = masking.mask_addresses(masking.mask_queries(text))
    return text if len(text) <= MAX_TEXT else f'{text[:MAX_TEXT]}[...]'


def plain(value: Any, depth: int = MAX_DEPTH) -> Any:
    """Return `value` as JSON may show it; a foreign object by its class."""
    if isinstance(value, str):
        return clean(str.__str__(value))
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and value.bit_length() <= 64:
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else repr(float(value))
    if isinstance(value, BaseException):
        ours = isinstance(value, StampmanError) and clean(str(value))
        return ours or describe(value)
    if isinstance(value, _TEXTUAL):
        return clean(str(value))
    if depth and isinstance(value, Mapping):
        return {clean(str(plain(name))):
                _field(str(plain(name)), item, depth - 1)
                for name, item in [*value.items()][:MAX_ITEMS]}
    if depth and isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item, depth - 1) for item in [*value][:MAX_ITEMS]]
    return f'<{type(value).__name__}>'


def _field(name, value, depth=MAX_DEPTH):
    return '[withheld]' if name.lower() in WITHHELD else plain(value, depth)


@functools.lru_cache(512)
def _name(name):
    """Return the name of a field, or of a logger: there are few."""
    return str(plain(name))


def event_text(record: logging.LogRecord) -> str:
    """Return the message of `record`; its arguments are shown by `plain`."""
    if not isinstance(record.msg, str):
        return str(plain(record.msg))
    text = str.__str__(record.msg)
    if record.args:
        text = _filled(text, record.args)
    return clean(text)


def _filled(template, args):
    shown = ({name: _argument(value) for name, value in args.items()}
             if isinstance(args, Mapping) else tuple(map(_argument, args)))
    try:
        return template % shown
    except (TypeError, ValueError, LookupError, OverflowError):
        return f'{template} [the arguments do not fit]'


def _argument(value):
    """Numbers stay as they are: `%d` and `%.1f` want them."""
    return value if isinstance(value, (int, float)) else plain(value)


def extras(record: logging.LogRecord) -> dict[str, Any]:
    """Return the `extra` fields that `record` was logged with."""
    given = [(_name(name), value) for name, value in vars(record).items()
             if name not in _STANDARD]
    return {name: _tried(_field, name, value) for name, value in given}


# -- exceptions -----------------------------------------------------------

def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield `error`, what caused it, what caused that, each once."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (
            None if error.__suppress_context__ else error.__context__)


def class_name(error: BaseException) -> str:
    """Return the class of `error` with its module, if that is not builtin."""
    kind = type(error)
    return (kind.__qualname__ if kind.__module__ == 'builtins'
            else f'{kind.__module__}.{kind.__qualname__}')


def safe_code(error: BaseException) -> str:
    """Return the code of `error` that quotes nothing of what it met, or ''.

    Ours is `code`; of foreign ones: the operating system's or database's.
    """
    if isinstance(error, StampmanError):
        return error.code
    codes = (getattr(error, name, None) for name in SAFE_CODES)
    return next((str(code) for code in codes
                 if isinstance(code, (int, str))
                 and _CODE.fullmatch(str(code))), '')


def describe(error: BaseException) -> str:
    """Return the class and the safe code of `error`, never its message."""
    code = safe_code(error)
    return clean(class_name(error)) + (f' ({code})' if code else '')


def _error(error):
    links = [_link(link) for link in [*chain(error)][:MAX_ITEMS]]
    for outer, inner in zip(links, links[1:]):
        outer['cause'] = inner
    return links[0]


def _link(error):
    link = {'class': clean(class_name(error))}
    if code := safe_code(error):
        link['code'] = code
    if isinstance(error, StampmanError):
        link['message'] = clean(str(error))
    link['traceback'] = _frames(error.__traceback__)
    return link


def _frames(start):
    lines = [f'{frame.f_code.co_filename}:{number} {frame.f_code.co_name}'
             for frame, number in traceback.walk_tb(start)]
    return [clean(line) for line in lines[-MAX_FRAMES:]]


# -- lines ----------------------------------------------------------------

def _tried(make: Callable[..., Any], *args: Any) -> Any:
    """Logging must never stop the program: what fails is named instead."""
    try:
        return make(*args)
    except Exception as failure:
        return f'[cannot be shown: {type(failure).__name__}]'


def _moment(record):
    moment = datetime.fromtimestamp(record.created, timezone.utc)
    return f'{moment.isoformat(timespec="milliseconds")[:-6]}Z'


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return what a line says of `record`; never raises."""
    line = {'ts': _tried(_moment, record),
            'level': _tried(_name, record.levelname).lower(),
            'event': _tried(event_text, record),
            'logger': _tried(_name, record.name)}
    ids = {name: _tried(plain, id) for name, id in bound().items()}
    line = {**line, **ids, **extras(record), **line}
    if isinstance(record.exc_info, tuple) and record.exc_info[1] is not None:
        line['error'] = _tried(_error, record.exc_info[1])
    return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line, in ASCII: nothing in it can break the line."""

    def format(self, record):
        return _encode(fields(record))


class TextFormatter(logging.Formatter):
    """One line for people; what is not printable is shown escaped."""

    def format(self, record):
        line = fields(record)
        error = line.pop('error', None)
        parts = [line.pop('ts'), line.pop('level').upper(),
                 _printable(line.pop('event')),
                 *(f'{_printable(name)}={_value(value)}'
                   for name, value in line.items())]
        if error is not None:
            parts.append(f'error={_value(error)}')
        return '  '.join(parts)


def _printable(text):
    return ''.join(
        letter if letter.isprintable()
        else letter.encode('unicode_escape').decode() for letter in text)


def _value(value):
    if isinstance(value, str) and _BARE.fullmatch(value):
        return value
    return _printable(json.dumps(value, ensure_ascii=False))


# -- the root handler -----------------------------------------------------

_FORMATTERS = {'json': JsonFormatter, 'text': TextFormatter}


class RootHandler(logging.StreamHandler):
    """Writes every record to one stream, and tells nothing if it cannot."""

    def filter(self, record):
        pinned = f'{record.name}.'.startswith(PINNED)
        return (not pinned or record.levelno >= logging.WARNING) and (
            super().filter(record))

    def handleError(self, record):
        """The standard one prints the record with all its arguments."""
        failure = sys.exc_info()[1]
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.write('a log line could not be written: '
                             f'{type(failure).__name__}\n')


def setup(stream: TextIO, secrets: Iterable[str] = (),
          level: int | str = logging.INFO,
          format: str | None = None) -> None:
    """Write everything that is logged to `stream`, and redact `secrets`.

    `format` is `json` or `text`; None is text on a terminal, else JSON.
    May be called again, as with another stream.
    """
    if format is None:
        format = 'text' if stream.isatty() else 'json'
    if hasattr(stream, 'reconfigure'):      # an ASCII terminal, say
        stream.reconfigure(errors='backslashreplace')
    set_secrets(secrets)
    handler = RootHandler(stream)
    handler.setFormatter(_FORMATTERS[format]())
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, RootHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    # No line tells where the program runs, so nothing need find it out.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = False
    logging.logMultiprocessing = logging.logAsyncioTasks = False
    adopt_gunicorn()


def adopt_gunicorn() -> None:
    """Let gunicorn's errors come out as all else, and its access log not."""
    for name, propagate in (('gunicorn.error', True),
                            ('gunicorn.access', False)):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = propagate


def gunicorn_logger() -> type:
    """Return the class for gunicorn's `logger_class`.

    With it the lines of the arbiter, from the first, are as all others.
    """
    from gunicorn.glogging import Logger    # a worker does not need gunicorn

    class GunicornLogger(Logger):
        access_log_enabled = False      # else each is built, then dropped

        def setup(self, cfg):
            super().setup(cfg)
            if any(isinstance(handler, RootHandler)
                   for handler in logging.getLogger().handlers):
                adopt_gunicorn()
            else:
                setup(sys.stderr)

    return GunicornLogger


def log_uncaught() -> None:
    """Log what nobody catches, in any thread, instead of printing it.

    What Python prints ends with the exception's message. For a program's
    entry: it replaces the hooks of the whole process.
    """
    def log(kind, error, traceback):
        if not issubclass(kind, (KeyboardInterrupt, SystemExit)):
            _log.critical('uncaught exception',
                          exc_info=(kind, error, traceback))

    sys.excepthook = log
    threading.excepthook = sys.unraisablehook = lambda args: log(
        args.exc_type, args.exc_value, args.exc_traceback)
