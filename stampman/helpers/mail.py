"""The email, and what a client submits: immutable, checked at the door."""

import base64
import hashlib
import json
import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict,
    Field, PlainSerializer, StrictBool, StrictStr, ValidationError,
    ValidationInfo, field_validator)

from stampman.helpers import syntax
from stampman.helpers.exceptions import InvalidFields

NULL = 'must not be null: leave it out'


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, (str, dict)) else value


def _not_null(value: Any) -> Any:
    if value is None:
        raise ValueError(NULL)
    return value


def _may_be_absent(kind: Any) -> Any:
    """A field that is None where it is not given, but not given as null."""
    return Annotated[kind | None, BeforeValidator(
        _not_null, json_schema_input_type=kind)]


HeaderText = Annotated[StrictStr, AfterValidator(syntax.header_safe)]
BodyText = Annotated[
    StrictStr, Field(min_length=1), AfterValidator(syntax.body_text)]
Time = Annotated[datetime, BeforeValidator(
    syntax.rfc3339, json_schema_input_type=AwareDatetime)]


class Model(BaseModel):
    """A frozen value that knows exactly its own fields."""

    model_config = ConfigDict(extra='forbid', frozen=True)


class Address(Model):
    """One mailbox: `a@b.c`, `Name <a@b.c>`, or an object of the two."""

    email: Annotated[HeaderText, AfterValidator(syntax.address)]
    name: HeaderText = ''

    @property
    def domain(self) -> str:
        return self.email.rpartition('@')[2]

    @property
    def is_ascii(self) -> bool:
        """Whether a provider without SMTPUTF8 (RFC 6531) can mail it."""
        return self.email.isascii()


AnyAddress = Annotated[Address, BeforeValidator(
    syntax.split_address, json_schema_input_type=str | Address)]
Addresses = Annotated[
    tuple[AnyAddress, ...],
    BeforeValidator(_as_list, json_schema_input_type=(
        str | Address | list[str | Address]))]


class Attachment(Model):
    """A file; with a `content_id` it is an inline part of the html."""

    filename: Annotated[HeaderText, Field(min_length=1)]
    content_type: Annotated[
        HeaderText, AfterValidator(syntax.content_type)
    ] = 'application/octet-stream'
    content: Annotated[
        bytes,
        BeforeValidator(syntax.base64_bytes, json_schema_input_type=str),
        PlainSerializer(lambda raw: base64.b64encode(raw).decode(), str),
        Field(json_schema_extra={'contentEncoding': 'base64'})]
    content_id: _may_be_absent(Annotated[
        HeaderText, AfterValidator(syntax.content_id)]) = None


class Limits(Model):
    """How much one email may hold; `body_bytes` is the whole request."""

    body_bytes: int = Field(30_000_000, gt=0)
    recipients: int = Field(1000, gt=0)
    attachments: int = Field(50, ge=0)
    headers: int = Field(50, ge=0)


class Email(Model):
    """The content of a message. Nothing alters it once it is accepted."""

    from_email: Annotated[HeaderText, AfterValidator(syntax.address)]
    from_name: HeaderText = ''
    recipients: Addresses = ()
    cc: Addresses = ()
    bcc: Addresses = ()
    reply_to: Addresses = ()
    subject: HeaderText = ''
    content: _may_be_absent(BodyText) = None
    html: _may_be_absent(BodyText) = None
    headers: dict[
        Annotated[StrictStr, AfterValidator(syntax.header_name)], HeaderText
    ] = {}
    attachments: tuple[Attachment, ...] = ()
    tags: tuple[Annotated[HeaderText, Field(min_length=1)], ...] = ()
    metadata: dict[
        Annotated[HeaderText, AfterValidator(syntax.metadata_key)],
        HeaderText] = {}
    track_opens: _may_be_absent(StrictBool) = None
    track_clicks: _may_be_absent(StrictBool) = None

    @property
    def sender(self) -> Address:
        return Address.model_construct(
            email=self.from_email, name=self.from_name)

    @property
    def everyone(self) -> tuple[Address, ...]:
        """All whom the email goes to: To, then Cc, then Bcc."""
        return self.recipients + self.cc + self.bcc

    @property
    def inline(self) -> tuple[Attachment, ...]:
        return tuple(a for a in self.attachments if a.content_id)

    @property
    def attached(self) -> tuple[Attachment, ...]:
        return tuple(a for a in self.attachments if not a.content_id)

    @field_validator('recipients', 'cc', 'bcc', 'reply_to')
    @classmethod
    def _drop_twins(cls, addresses, info: ValidationInfo):
        """One mailbox gets one copy: To wins over Cc, Cc over Bcc."""
        seen = set()
        if info.field_name != 'reply_to':
            for earlier in ('recipients', 'cc', 'bcc'):
                seen.update(a.email.lower()
                            for a in info.data.get(earlier, ()))
        unique = []
        for one in addresses:
            if one.email.lower() not in seen:
                seen.add(one.email.lower())
                unique.append(one)
        return tuple(unique)

    @field_validator('headers')
    @classmethod
    def _check_headers(cls, headers):
        if len({name.lower() for name in headers}) < len(headers):
            raise ValueError('must not name the same header twice')
        return headers

    @field_validator('attachments')
    @classmethod
    def _check_content_ids(cls, attachments):
        ids = [a.content_id for a in attachments if a.content_id]
        if len(set(ids)) < len(ids):
            raise ValueError('must not use the same content_id twice')
        return attachments


class Submission(Email):
    """What a client POSTs: the email, and how this message is handled."""

    send_at: _may_be_absent(Time) = None
    expires_at: _may_be_absent(Time) = None
    on_uncertain: _may_be_absent(Literal['hold', 'failover']) = None

    @property
    def fingerprint(self) -> str:
        """What tells it from any other: SHA-256, in hex."""
        told = self.model_dump(mode='json', exclude_defaults=True)
        told |= {name: getattr(self, name).timestamp()
                 for name in ('send_at', 'expires_at') if name in told}
        return hashlib.sha256(json.dumps(
            told, sort_keys=True).encode()).hexdigest()

    def email(self) -> Email:
        """Return the content alone."""
        return Email.model_construct(**{
            name: getattr(self, name) for name in Email.model_fields})


_FIELDS = frozenset(Submission.model_fields)
# What the fields are also called, as other providers' clients know them.
ALIASES = {'to': 'recipients', 'text': 'content', 'from': 'from_email'}
RECIPIENTS = ('recipients', 'cc', 'bcc')
_ADDRESS_PLACE = re.compile(
    r'(?:recipients|cc|bcc|reply_to)\[(\d+)\](.*)')


def submission(data: dict[str, Any], limits: Limits = Limits()) -> Submission:
    """Return what a client submits, from its JSON object.

    Raises InvalidFields that names every field that is wrong, as the client
    called it.
    """
    draft = _Draft(data)
    draft.split_sender()
    draft.count(limits)
    draft.require_some()
    return draft.parse()


class _Draft:
    """A client's fields on the way to a Submission.

    What is found wrong here is not looked at again: one mistake, one error.
    """

    def __init__(self, data):
        self.fields, self.called = {}, {}
        self.errors, self.judged = [], set()
        for name, value in data.items():
            field = ALIASES.get(name, name)
            if field not in _FIELDS:
                self.errors.append(
                    (_printable(name), UNKNOWN))
            elif field in self.fields:
                self.errors.append((name, 'is the same field as '
                                          f'"{self.called[field]}"'))
            else:
                self.fields[field], self.called[field] = value, name
                if value is None:
                    self.wrong(field, NULL)

    def wrong(self, field, message, under=''):
        """Note an error of `field`, at `under` in it, as it was called."""
        self.errors.append((self.called.get(field, field) + under, message))
        self.judged.add(field)

    def split_sender(self):
        """The sender may be an address of any form; we keep two fields."""
        try:
            sender = syntax.split_address(self.fields.get('from_email'))
        except ValueError as error:
            return self.wrong('from_email', str(error))
        if not isinstance(sender, dict):
            return
        name = self.called['from_email']
        self.errors += [(f'{name}.{_printable(key)}', UNKNOWN)
                        for key in sorted(set(sender) - {'email', 'name'})]
        if 'email' not in sender:
            self.wrong('from_email', REQUIRED, under='.email')
        if 'name' in sender and 'from_name' in self.fields:
            self.wrong('from_name', f'is given in "{name}" already')
        if isinstance(self.fields['from_email'], dict):
            self.called['from_email'] = f'{name}.email'
            self.called.setdefault('from_name', f'{name}.name')
        else:
            self.called.setdefault('from_name', name)
        self.fields['from_email'] = sender.get('email')
        if 'name' in sender:
            self.fields['from_name'] = sender['name']

    def count(self, limits):
        """Before anything is looked at: 100,000 addresses cost seconds."""
        for fields, limit in (
                (RECIPIENTS, limits.recipients),
                (('reply_to',), limits.recipients),
                (('attachments',), limits.attachments),
                (('headers',), limits.headers)):
            there = [name for name in fields if name in self.fields]
            size = sum(_size(name, self.fields[name]) for name in there)
            if size > limit:
                self.wrong(there[0],
                           f'at most {limit} are allowed, not {size}')
                self.judged.update(there)

    def require_some(self):
        """What must be there in one of several fields."""
        there = [name for name in RECIPIENTS if name in self.fields]
        if not any(self.fields[name] or name in self.judged
                   for name in there):
            self.wrong(there[0] if there else 'recipients',
                       'at least one of recipients, cc and bcc must name '
                       'somebody')
        if not {'content', 'html'} & set(self.fields):
            self.wrong('content', 'at least one of content and html must be '
                                  'there')

    def parse(self):
        """Return the Submission; raises InvalidFields."""
        sound = {name: value for name, value in self.fields.items()
                 if name not in self.judged}
        try:
            parsed = Submission.model_validate(sound)
        except ValidationError as failure:
            self.errors += [
                (self._as_called(where), message)
                for where, message in problems(failure)
                if _first(where) not in self.judged]
        if self.errors:
            raise InvalidFields(errors=self.errors)
        return parsed

    def _as_called(self, where):
        """An address may be a string, and one need not stand in a list."""
        first = _first(where)
        rest = where[len(first):]
        if found := _ADDRESS_PLACE.fullmatch(where):
            value, number, rest = self.fields[first], found[1], found[2]
            if isinstance(value, list):
                value, rest = value[int(number)], f'[{number}]{rest}'
            if isinstance(value, str):
                rest = rest.removesuffix('.email').removesuffix('.name')
        return self.called.get(first, first) + rest


def _first(where):
    return re.split(r'[.\[]', where, maxsplit=1)[0]


def _size(name, value):
    if name == 'headers':
        return len(value) if isinstance(value, dict) else 0
    return len(value) if isinstance(value, list) else 1


REQUIRED = 'is required'
UNKNOWN = 'is not a field that is known here'
_MESSAGES = {
    'missing': REQUIRED,
    'extra_forbidden': UNKNOWN,
    'string_type': 'must be a string',
    'string_too_short': 'must not be empty',
    'string_unicode': 'must not contain lone surrogates',
    'bool_type': 'must be true or false',
    'int_type': 'must be a whole number',
    'int_parsing': 'must be a whole number',
    'int_from_float': 'must be a whole number',
    'float_type': 'must be a number',
    'float_parsing': 'must be a number',
    'too_short': 'must not be empty',
    'tuple_type': 'must be a list',
    'list_type': 'must be a list',
    'dict_type': 'must be an object',
    'model_type': 'must be an object',
    'model_attributes_type': 'must be an object',
}


def problems(failure: ValidationError) -> list[tuple[str, str]]:
    """Return each problem of a pydantic error as (place, message)."""
    found = failure.errors(include_url=False, include_input=False)
    # Items that are wrong do not count, and then the list is too short.
    within = {error['loc'][:n] for error in found
              for n in range(len(error['loc']))}
    return [(place(error['loc']), _message(error)) for error in found
            if error['type'] != 'too_short' or error['loc'] not in within]


def place(loc) -> str:
    """Return a pydantic location as people write it: `cc[2].email`."""
    path = ''
    for step in loc:
        if isinstance(step, int):
            path += f'[{step}]'
        elif step != '[key]':
            path += f'.{_printable(step)}' if path else _printable(step)
    return path


def _printable(key):
    """A key may be anything: it must not break a line or an encoding."""
    return key if key.isprintable() else (
        key.encode('unicode_escape').decode())


def _message(error):
    context = error.get('ctx', {})
    if error['type'] == 'value_error':
        return str(context['error'])
    if context.get('class_name') == 'Address':
        return 'must be an address: a string, or an object of email and name'
    if error['type'] == 'too_long':
        return (f'at most {context["max_length"]} are allowed, not '
                f'{context["actual_length"]}')
    if error['type'] in _MESSAGES:
        return _MESSAGES[error['type']]
    message = error['msg'].removeprefix('Input should be ')
    if message != error['msg']:
        return f'must be {message}'
    return message[:1].lower() + message[1:]
