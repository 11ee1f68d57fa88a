"""What a provider can carry, for the program and for people."""

from dataclasses import dataclass
from typing import Any

import pydantic_core

from stampman.helpers.mail import Email
from stampman.services._context import SendContext


@dataclass(frozen=True)
class Capabilities:
    """What a provider can carry; what it cannot makes it `unsupported`.

    Sizes are in bytes. `max_request` is the size of the provider's request
    as built, `max_message` that of the email as MIME, which the service
    itself counts; the others are counted on the email, `max_metadata` as
    JSON and with our own ids. `envelope`: it can send to some of an email's
    recipients alone, its headers unchanged. The rest is for people:
    `tag_words` and `metadata_words` tell of limits that have no field here,
    `notes` what else arrives otherwise than it was given, and what only the
    provider knows.
    """

    max_request: int | None = None
    max_message: int | None = None
    max_recipients: int | None = None
    max_tags: int | None = None
    max_tag_length: int | None = None
    max_metadata: int | None = None
    ascii_tags: bool = False
    smtputf8: bool = False
    envelope: bool = False
    tracking: bool = True
    inline_images_only: bool = False
    needs_to: bool = False
    needs_subject: bool = False
    needs_plain_types: bool = False
    needs_full_files: bool = False
    tag_words: str = ''
    metadata_words: str = ''
    notes: tuple[str, ...] = ()

    def objection(self, email: Email, context: SendContext) -> str:
        """Return what in `email` cannot be carried, by field, or ''."""
        for name, text in self._objections(email, context):
            if text:
                return f'{name}: {text}'
        return ''

    def _objections(self, email, context):
        yield 'recipients', over(
            len(context.recipients_of(email)), self.max_recipients,
            'recipients')
        yield 'recipients', (
            not self.envelope and context.envelope is not None
            and 'it cannot be sent to some of them alone')
        yield 'recipients', (
            self.needs_to and not email.recipients
            and 'at least one To is needed beside Cc and Bcc')
        yield 'subject', (self.needs_subject and not email.subject
                          and 'a subject is needed')
        if not self.smtputf8:
            yield 'from_email', (
                not email.from_email.isascii() and _NEEDS_SMTPUTF8)
            for name in ('recipients', 'cc', 'bcc', 'reply_to'):
                yield name, (
                    not all(a.is_ascii for a in getattr(email, name))
                    and _NEEDS_SMTPUTF8)
        yield 'tags', over(len(email.tags), self.max_tags, 'tags')
        yield 'tags', over(max(map(len, email.tags), default=0),
                           self.max_tag_length, 'characters in a tag')
        yield 'tags', (self.ascii_tags and not ''.join(email.tags).isascii()
                       and 'only ASCII is carried')
        if self.max_metadata is not None:
            yield 'metadata', over(
                len(to_json({**email.metadata, **context.metadata})),
                self.max_metadata, 'bytes of metadata')
        for number, part in enumerate(email.attachments):
            yield f'attachments[{number}].content_type', (
                self.needs_plain_types and ';' in part.content_type
                and 'parameters are not carried')
            yield f'attachments[{number}].content', (
                self.needs_full_files and not part.content
                and 'an empty file is not carried')
            yield f'attachments[{number}].content_id', (
                self.inline_images_only and part.content_id
                and not part.content_type.lower().startswith('image/')
                and 'only images are carried inline')
        for name in ('track_opens', 'track_clicks'):
            yield name, (
                not self.tracking and getattr(email, name) is not None
                and 'it is not for us to switch there')

    def described(self) -> dict[str, str]:
        """Return what can be carried, in words for people, by topic."""
        needs = [name for name, needed in (
            ('somebody in To', self.needs_to),
            ('a subject', self.needs_subject),
            ('content types without parameters', self.needs_plain_types),
            ('files that are not empty', self.needs_full_files),
        ) if needed]
        return {
            'size': ', '.join(_most(limit, unit) for limit, unit in (
                (self.max_request, ' bytes as sent to it'),
                (self.max_message, ' bytes as MIME')) if limit) or 'any',
            'recipients': _most(self.max_recipients),
            'some recipients alone': _YES[self.envelope],
            'addresses': 'any' if self.smtputf8 else
            'ASCII before the @, any domain',
            'inline parts': 'images' if self.inline_images_only else 'any',
            'headers': 'any that can be set',
            'tags': ', '.join(filter(None, (
                _most(self.max_tags),
                self.max_tag_length and
                f'of up to {self.max_tag_length} characters',
                self.ascii_tags and 'ASCII', self.tag_words))),
            'metadata': ', '.join(filter(None, (
                _most(self.max_metadata, ' bytes as JSON'),
                self.metadata_words))),
            'tracking switches': _YES[self.tracking],
            'needs': ', '.join(needs) or 'nothing more',
            'notes': ' '.join(self.notes)}


_NEEDS_SMTPUTF8 = 'an address needs SMTPUTF8 (RFC 6531)'
_YES = {True: 'yes', False: 'no'}


def _most(limit, unit=''):
    if not limit:
        return 'none' if limit == 0 else 'any'
    return f'up to {limit:,}{unit}'


def over(count: int, most: int | None, what: str) -> str:
    """Return what to say where `count` is over the limit `most`, else ''."""
    if most is None or count <= most:
        return ''
    return f'at most {most} {what} are carried, not {count}'


def to_json(value: Any) -> bytes:
    """Return `value` as compact JSON in UTF-8, as providers count it."""
    return pydantic_core.to_json(value)
