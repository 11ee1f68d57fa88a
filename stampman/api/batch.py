"""Sending a batch: many emails that have nothing to do with each other."""

from typing import Annotated, Any

from flask import Blueprint, current_app
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stampman.api import answers, headers, problems
from stampman.api.sending import REPLAYED, json_fields
from stampman.helpers import mail
from stampman.helpers.exceptions import InvalidFields, RequestError

blueprint = Blueprint('batch', __name__)

MOST = 500      # emails of one batch
# Times as many recipients as one email may have, over all of a batch: they
# are stored in one transaction, for which others wait.
MOST_RECIPIENTS = 10


class Batch(BaseModel):
    """What is posted; each email is held to its own rules, and answered by
    itself."""

    model_config = ConfigDict(extra='forbid')

    emails: Annotated[list[Any], Field(
        min_length=1, max_length=MOST, json_schema_extra={
            'items': {'$ref': '#/components/schemas/BatchEmail'}})]


class BatchResult(answers.Answer):
    """What became of one email: it has a `message`, or an `error`."""

    index: int = Field(description='which it is in `emails`, from 0')
    message: answers.Sent | None = None
    error: problems.Problem | None = Field(
        None, description='why nothing of it is stored; `status` is what '
        'it would have been answered alone, `errors` names its own fields')


class BatchAnswer(answers.Answer):
    """What became of each email of a batch."""

    stored: int = Field(description='how many have a message')
    refused: int = Field(description='how many have an error')
    results: list[BatchResult] = Field(
        description='one for each email, in their order')


@blueprint.post('/<domain>/send/batch')
def send(domain):
    """Send up to 500 separate emails through this pool.

    Each of `emails` is what `send` takes, and each recipient sees only their
    own::

        {"emails": [
          {"from": "shop@example.com", "to": "ada@example.org",
           "subject": "Your order", "text": "It is on its way."},
          {"from": "shop@example.com", "to": "bob@example.org",
           "subject": "Your order", "text": "It is late."}]}

    The answer is 200, with one of `results` for each of them: its `message`,
    which is stored and `queued`, or an `error`, and then nothing of it is
    stored. The good ones are stored together, or, where the whole request is
    answered with an error, none is. All together may have ten times as many
    recipients as one email.

    An `Idempotency-Key` holds for the batch: sent again, it is answered with
    the messages as they are now. Mend what was refused, and send it in
    another batch, under another key.
    """
    data = json_fields(domain)
    key = headers.idempotency_key()
    headers.prefers_async()     # it always is; what is malformed is refused
    gateway = current_app.gateway
    emails = _emails(data)
    read = {index: _read(email, gateway.config.limits)
            for index, email in enumerate(emails)}
    good = {index: one for index, one in read.items()
            if isinstance(one, mail.Submission)}
    _count_recipients(good.values(), gateway.config.limits)
    taken = gateway.send_batch(domain, good, key, {
        index: email for index, email in enumerate(emails)
        if index not in good})
    results = [_result(index, one) for index, one in {**read, **taken}.items()]
    stored = sum(one.message is not None for one in results)
    replayed = any(one.replayed for one in taken.values()
                   if not isinstance(one, RequestError))
    return BatchAnswer(
        stored=stored, refused=len(results) - stored, results=results
    ).json_object(), 200, REPLAYED if replayed else {}


def _emails(data):
    try:
        return Batch.model_validate(data).emails
    except ValidationError as failure:
        raise InvalidFields(errors=mail.problems(failure)) from None


def _read(email, limits):
    """Return an email as submitted, or what is wrong with it."""
    if not isinstance(email, dict):
        return InvalidFields('An email must be an object.')
    try:
        return mail.submission(email, limits)
    except InvalidFields as error:
        return error


def _count_recipients(submissions, limits):
    most = MOST_RECIPIENTS * limits.recipients
    found = sum(len(one.everyone) for one in submissions)
    if found > most:
        raise InvalidFields(errors=[(
            'emails', f'at most {most} recipients are allowed in all, not '
            f'{found}')])


def _result(index, one):
    if isinstance(one, RequestError):
        return BatchResult(index=index, error=problems.Problem(
            **problems.told(one)))
    return BatchResult(index=index, message=answers.sent(one.message))
