"""The email, and what a client submits: immutable, checked at the door."""

import base64
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field,
    PlainSerializer, StrictBool, StrictStr, ValidationError, ValidationInfo,
    field_validator)

from stampman.helpers import syntax
from stampman.helpers.exceptions import InvalidFields


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, (str, dict)) else value


HeaderText = Annotated[StrictStr, AfterValidator(syntax.header_safe)]
BodyText = Annotated[
    StrictStr, Field(min_length=1), AfterValidator(syntax.body_text)]
Time = Annotated[datetime, BeforeValidator(syntax.rfc3339)]


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
    content_id: Annotated[
        HeaderText, AfterValidator(syntax.content_id)] | None = None


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
    content: BodyText | None = None
    html: BodyText | None = None
    headers: dict[
        Annotated[StrictStr, AfterValidator(syntax.header_name)], HeaderText
    ] = {}
    attachments: tuple[Attachment, ...] = ()
    tags: tuple[Annotated[HeaderText, Field(min_length=1)], ...] = ()
    metadata: dict[
        Annotated[HeaderText, AfterValidator(syntax.metadata_key)],
        HeaderText] = {}
    track_opens: StrictBool | None = None
    track_clicks: StrictBool | None = None

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

    expires_at: Time | None = None
    on_uncertain: Literal['hold', 'failover'] | None = None

    def email(self) -> Email:
        """Return the content alone."""
        return Email.model_construct(**{
            name: getattr(self, name) for name in Email.model_fields})


# What the fields are also called, as other providers' clients know them.
ALIASES = {'to': 'recipients', 'text': 'content'}
# Agreed in the API, but not built yet: refused by name, never ignored.
NOT_YET = frozenset({'send_at'})


def submission(data: dict[str, Any], limits: Limits = Limits()) -> Submission:
    """Return what a client submits, from its JSON object.

    Raises InvalidFields that names every field that is wrong, as the client
    called it.
    """
    fields, called, errors = _one_name_each(data)
    errors += _over_limit(fields, limits)
    for field, _ in errors:
        fields.pop(field.partition('.')[0], None)
    try:
        parsed = Submission.model_validate(fields)
    except ValidationError as failure:
        known_wrong = {field for field, _ in errors}
        errors += [(field, message) for field, message in problems(failure)
                   if field not in known_wrong]
    errors += _missing(data)
    if errors:
        raise InvalidFields(errors=[
            _as_called(field, message, called) for field, message in errors])
    return parsed


def _one_name_each(data):
    """Resolve the aliases; also return who was called what, and errors."""
    fields, called, errors = {}, {}, []
    for name, value in data.items():
        if name in NOT_YET:
            errors.append((name, 'does not work yet: leave it out'))
            continue
        field = ALIASES.get(name, name)
        if field in fields:
            errors.append(
                (name, f'is the same field as "{called.get(field, field)}"'))
            continue
        if field != name:
            called[field] = name
        fields[field] = value
    if 'from' in fields:
        called['from_email'] = 'from'
        if {'from_email', 'from_name'} & set(fields):
            errors.append(
                ('from', 'stands instead of "from_email" and "from_name"'))
            fields.pop('from')
        else:
            fields['from_email'] = fields.pop('from')
    _split_sender(fields, called, errors)
    return fields, called, errors


def _split_sender(fields, called, errors):
    """The sender may be an address of any form; we keep it in two fields."""
    sender = fields.get('from_email')
    name = called.get('from_email', 'from_email')
    try:
        sender = syntax.split_address(sender)
    except ValueError as error:
        errors.append((name, str(error)))
        fields['from_email'] = 'in@error.example'
        return
    if not isinstance(sender, dict):
        return
    if unknown := set(sender) - {'email', 'name'}:
        errors.extend((f'{name}.{key}', 'is not a field of an address')
                      for key in sorted(unknown))
    if 'email' not in sender:
        errors.append((f'{name}.email', 'is required'))
    fields['from_email'] = sender.get('email', 'in@error.example')
    if 'name' in sender:
        if 'from_name' in fields:
            errors.append(('from_name', f'is already given in "{name}"'))
        else:
            called['from_name'] = f'{name}.name'
            fields['from_name'] = sender['name']


def _over_limit(fields, limits):
    """Count before anything is looked at: 100,000 addresses cost seconds."""
    def size(*names):
        return sum(len(fields[name]) for name in names
                   if isinstance(fields.get(name), (list, dict))
                   and not {'email', 'name'} & set(
                       fields[name] if isinstance(fields[name], dict) else ()))

    counts = (
        ('recipients', size('recipients', 'cc', 'bcc'), limits.recipients),
        ('reply_to', size('reply_to'), limits.recipients),
        ('attachments', size('attachments'), limits.attachments),
        ('headers', size('headers'), limits.headers))
    return [(field, f'at most {limit} are allowed, not {count}')
            for field, count, limit in counts if count > limit]


def _missing(data):
    """What must be there in one of several fields."""
    errors = []
    if not any(data.get(name) for name in ('recipients', 'to', 'cc', 'bcc')):
        errors.append(('recipients', 'at least one of recipients, cc and bcc '
                                     'must name somebody'))
    if not {'content', 'text', 'html'} & set(data):
        errors.append(('content', 'at least one of content and html must be '
                                  'there'))
    return errors


def _as_called(field, message, called):
    first, dot, rest = field.partition('.')
    first, bracket, index = first.partition('[')
    return called.get(first, first) + bracket + index + dot + rest, message


_MESSAGES = {
    'missing': 'is required',
    'extra_forbidden': 'is not a field that is known here',
    'string_type': 'must be a string',
    'string_too_short': 'must not be empty',
    'bool_type': 'must be true or false',
    'tuple_type': 'must be a list',
    'dict_type': 'must be an object',
    'model_type': 'must be an object',
    'model_attributes_type': 'must be an object',
}


def problems(failure: ValidationError) -> list[tuple[str, str]]:
    """Return each problem of a pydantic error as (place, message)."""
    return [(place(error['loc']), _message(error))
            for error in failure.errors(include_url=False,
                                        include_input=False)]


def place(loc) -> str:
    """Return a pydantic location as people write it: `cc[2].email`."""
    path = ''
    for step in loc:
        if isinstance(step, int):
            path += f'[{step}]'
        elif step != '[key]':
            path += f'.{step}' if path else str(step)
    return path


def _message(error):
    if error['type'] in _MESSAGES:
        return _MESSAGES[error['type']]
    if error['type'] == 'value_error':
        return str(error['ctx']['error'])
    return error['msg'][:1].lower() + error['msg'][1:]
