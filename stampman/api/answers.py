"""What the API answers about messages and pools.

The models are both: what an answer is built with, and what /openapi.json
tells of it.
"""

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from stampman.api.addresses import message_path, url
from stampman.helpers.delivery import Attempt, Kind, Message, State
from stampman.helpers.mail import Email


def rfc3339(at: float | None) -> str | None:
    """Return a time (seconds since the epoch) as RFC 3339 in UTC."""
    if at is None:
        return None
    text = datetime.fromtimestamp(at, UTC).isoformat(timespec='milliseconds')
    return text.replace('+00:00', 'Z')


class Answer(BaseModel):
    """Base of all answers; what is None is left out."""

    model_config = ConfigDict(extra='forbid', frozen=True)

    def json_object(self) -> dict[str, Any]:
        return self.model_dump(mode='json', exclude_none=True)


class RecipientAnswer(Answer):
    """Whom a message goes to, and the last thing known about that."""

    email: str
    kind: str = Field(description='`to`, `cc` or `bcc`')
    status: str
    reason: str


class Sent(Answer):
    """A message, as the answer to a send."""

    id: str
    url: str
    status: State
    recipients: list[RecipientAnswer]
    service_used: str | None = Field(
        None, description='the service whose provider took it')
    services_fail: dict[str, str] = Field(
        description='why each service before it did not take it, or gave '
        'no proof that it did (see the attempts)')
    possible_duplicate: bool = Field(
        description='whether more than one provider may have taken it')
    reason: str | None = None
    send_at: str | None = Field(
        None, description='nothing is tried before (RFC 3339)')
    next_attempt_at: str | None = Field(
        None, description='when it is tried next, if it is (RFC 3339); of '
        'an `uncertain` message: it is being settled, and else it is held')
    erased_at: str | None = Field(
        None, description='since then content and addresses are gone')
    simulated: bool | None = Field(
        None, description='true where no mail really went out')


class RecipientAttempt(Answer):
    """How one recipient fared in an attempt."""

    email: str
    outcome: Kind
    reason: str | None = None
    provider_message_id: str | None = None


class AttemptAnswer(Answer):
    """One delivery of a message by one service."""

    id: str
    service: str
    provider: str
    round: int
    started_at: str
    ended_at: str | None = None
    outcome: Kind | None = Field(None, description='none while it runs')
    reason: str | None = None
    code: str | None = Field(None, description="the provider's own word")
    http_status: int | None = None
    passed_over: list[str] | None = Field(
        None, description='the services before it that rested')
    provider_message_id: str | None = None
    retry_after: float | None = Field(None, description='seconds')
    resolved: str | None = Field(
        None, description="what settled an uncertain attempt: a person's "
        'word, `accepted` or `not_sent`, or `replayed`: the provider, asked '
        'again')
    replays: str | None = Field(
        None, description='the uncertain attempt that the provider was '
        'asked about, by sending it what it takes only once')
    envelope: list[str] | None = Field(
        None, description='whom it was for, where not for all')
    recipients: list[RecipientAttempt] | None = Field(
        None, description='how each recipient fared, where they are told '
        'apart')


class Timeline(Sent):
    """A message with all that happened to it."""

    pool: str
    created_at: str
    expires_at: str
    on_uncertain: str
    attempts: list[AttemptAnswer]
    email: dict[str, Any] | None = Field(
        None, description='the content; for an admin only')


class Summary(Answer):
    """A message, as a list shows it."""

    id: str
    url: str
    status: State
    created_at: str
    send_at: str | None = None
    next_attempt_at: str | None = None
    erased_at: str | None = None
    possible_duplicate: bool
    reason: str | None = None


class Page(Answer):
    """Messages of a pool, newest first."""

    messages: list[Summary]
    has_more: bool
    next: str | None = Field(None, description='the URL of the next page')


class ServiceAnswer(Answer):
    """A service of a pool; with a key also its health."""

    name: str
    provider: str
    priority: int
    state: str | None = Field(
        None, description='`available`, `trial` or `resting`')
    until: str | None = Field(None, description='rests until (RFC 3339)')
    reason: str | None = None
    account: str | None = None
    carries: dict[str, str] | None = Field(
        None, description='what its provider can carry, in words, by topic; '
        'for an admin only')


class PoolAnswer(Answer):
    """A sending domain and where its mail is posted."""

    domain: str
    url: str
    send_url: str
    messages_url: str
    services: list[ServiceAnswer] | None = None
    waiting: dict[str, int] | None = Field(
        None, description='messages that are not settled, by status')


class PoolsAnswer(Answer):
    """The pools of this Stampman."""

    pools: list[PoolAnswer]
    openapi_url: str
    unserved: dict[str, dict[str, int]] | None = Field(
        None, description='For admins: unsettled messages of pools that are '
        'configured no more, by pool and state')


def sent(message: Message) -> Sent:
    """Return the answer to a send that was stored."""
    return Sent(**_standing(message))


def timeline(message: Message, email: Email | None = None) -> Timeline:
    """Return all that is known of a message."""
    return Timeline(
        **_standing(message), pool=message.pool,
        created_at=rfc3339(message.created_at),
        expires_at=rfc3339(message.expires_at),
        on_uncertain=message.on_uncertain,
        attempts=[_attempt(one) for one in message.attempts],
        email=email and _content(email))


def summary(message: Message) -> Summary:
    """Return a message as a list shows it."""
    return Summary(
        id=message.id, url=_url(message),
        status=message.state, created_at=rfc3339(message.created_at),
        send_at=rfc3339(message.send_at),
        next_attempt_at=rfc3339(message.next_attempt_at),
        erased_at=rfc3339(message.erased_at),
        possible_duplicate=message.possible_duplicate,
        reason=message.reason or None)


def _url(message):
    return url(message_path(message.pool, message.id))


def _service_used(message):
    """A person's word on several attempts does not say which it was."""
    proven = [one.service for one in message.attempts
              if one.outcome and one.outcome.kind is Kind.accepted]
    said = [one.service for one in message.attempts
            if one.resolved == Kind.accepted]
    return (proven or (said if len(said) == 1 else [None]))[0]


def _standing(message):
    used = _service_used(message)
    simulated = any(one.outcome and one.outcome.simulated
                    for one in message.attempts)
    return {
        'id': message.id,
        'url': _url(message),
        'status': message.state,
        'recipients': [RecipientAnswer(
            email=one.email, kind=one.kind, status=one.status,
            reason=one.reason) for one in message.recipients],
        'service_used': used,
        'services_fail': {
            **{name: 'it rested' for one in message.attempts if one.outcome
               for name in one.outcome.passed_over if name != used},
            **{one.service: one.outcome.reason or str(one.outcome.kind)
               for one in message.attempts
               if one.outcome and one.outcome.kind is not Kind.accepted
               and one.service != used and not one.replays
               and one.resolved != Kind.accepted}},
        'possible_duplicate': message.possible_duplicate,
        'reason': message.reason or None,
        'send_at': rfc3339(message.send_at),
        'next_attempt_at': rfc3339(message.next_attempt_at),
        'erased_at': rfc3339(message.erased_at),
        'simulated': simulated or None}


def _attempt(attempt: Attempt):
    outcome = attempt.outcome
    return AttemptAnswer(
        id=attempt.id, service=attempt.service, provider=attempt.provider,
        round=attempt.round, started_at=rfc3339(attempt.started_at),
        ended_at=rfc3339(attempt.ended_at), resolved=attempt.resolved,
        replays=attempt.replays,
        envelope=attempt.envelope and list(attempt.envelope),
        **({} if outcome is None else {
            'outcome': outcome.kind, 'reason': outcome.reason or None,
            'code': outcome.code or None,
            'http_status': outcome.http_status,
            'passed_over': list(outcome.passed_over) or None,
            'provider_message_id': outcome.provider_message_id,
            'retry_after': outcome.retry_after,
            'recipients': [RecipientAttempt(
                email=one.email, outcome=one.kind, reason=one.reason or None,
                provider_message_id=one.provider_message_id)
                for one in outcome.recipients] or None}))


def _content(email):
    content = email.model_dump(mode='json')
    for attachment, part in zip(content['attachments'], email.attachments):
        attachment['size'] = len(part.content)
    return content
