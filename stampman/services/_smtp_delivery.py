"""One email on its way over SMTP: one transaction, a fate per recipient."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from stampman.helpers.delivery import (
    Kind, Outcome, RecipientOutcome, together)
from stampman.helpers.mail import Email
from stampman.services import _mime
from stampman.services._smtp import Refused, Unfit
from stampman.services._rules import RECIPIENT_ONLY
from stampman.services._smtp_rules import TOO_MANY, Step
from stampman.services._smtp_vendors import headers_of
from stampman.services.base import CannotCarry, Rule, SendContext, over

if TYPE_CHECKING:
    from stampman.services.smtp import SmtpEmailService

RESERVE = 3.0           # seconds without which no further one is begun
RESET_LIMIT = 1.0       # seconds a refused transaction may take to be undone
# Where a server tells its own id of the message that it took.
_QUEUE_IDS = re.compile(
    r'queued as ([\w.<>@-]+)|\bInternalId=(\d+)|\bid=([\w-]+)'
    r'|^(?:2\.\d\.\d )?(\S+) Message accepted for delivery'
    r'|^(?:2\.\d\.\d )?Ok:? ([\w-]{16,})$', re.IGNORECASE | re.MULTILINE)


class Fate(NamedTuple):
    """What came of a recipient, and why."""

    rule: Rule
    reason: str = ''
    code: str = ''
    provider_message_id: str | None = None


NOT_NAMED = Fate(
    Rule(Kind.deferred, flags=RECIPIENT_ONLY), TOO_MANY)


class Delivery:
    """One email, as `context` asks for it."""

    def __init__(self, service: SmtpEmailService, email: Email,
                 context: SendContext):
        """Render the message; raises CannotCarry."""
        self._service = service
        self._email = email
        self._deadline = context.deadline
        self._to = [one.email for one in context.recipients_of(email)]
        self._message_id = f'{context.message_id}@{service.domain}'
        named = (*self._to, *(a.email for a in _mime.named_in(email)))
        self._needs_utf8 = not ''.join(named).isascii()
        self._message = _mime.render(
            email, service.clock.now(), self._message_id,
            {**headers_of(service.settings.vendor, email, context),
             **context.headers}, utf8=self._needs_utf8)
        if not self._message.endswith(b'\r\n'):
            self._message += b'\r\n'      # SMTP knows whole lines only
        self._is_8bit = not self._message.isascii()
        self._fates = {}
        self._now_for = ()          # whom the transaction is for, of late
        self._is_taken_by_any = False

    def outcome(self) -> Outcome:
        """Deliver once; raises CannotCarry where the server says before it
        is given anything that it cannot carry the email."""
        kept = self._service.connections.take(self._until())
        if not (kept and self._goes_by(kept, is_kept=True)):
            self._fates.clear()
            self._goes_by(self._service.connections.fresh(self._until()))
        return self._told()

    def _until(self):
        """The deadline of what comes before the final dot."""
        return min(self._deadline, self._service.clock.monotonic()
                   + self._service.seconds_for(self._email))

    def _goes_by(self, conversation, is_kept=False):
        """Deliver over one connection; say False where a kept one had gone
        before it was given anything, so that a fresh one may follow."""
        keep = False
        try:
            if not is_kept:
                conversation.open()
            keep = self._send(conversation)
        except CannotCarry:
            keep = True     # nothing has begun
            raise
        except (OSError, Refused, Unfit) as error:
            if is_kept and self._had_gone(conversation, error):
                return False
            self._end_badly(conversation, error)
            keep = (isinstance(error, Refused)
                    and self._undoes(conversation, error))
        finally:
            if keep and not conversation.is_broken:
                self._service.connections.give_back(conversation)
            else:
                conversation.drop()
        return True

    def _had_gone(self, conversation, error):
        is_closed = (error.reply.code == 421 if isinstance(error, Refused)
                     else not isinstance(error, TimeoutError))
        return (is_closed and not self._is_taken_by_any
                and conversation.step in (Step.mail, Step.rcpt, Step.data))

    def _end_badly(self, conversation, error):
        """What ends the conversation is about those it was just about; the
        others were never named to the server."""
        fate = self._service.fate_of(error, conversation, self._email)
        only_them = fate.rule.kind is Kind.uncertain or (
            fate.rule.kind is Kind.rejected
            and conversation.step in (Step.data, Step.dot))
        for address in self._to:
            about = address in self._now_for or not only_them
            self._fates.setdefault(address, fate if about else NOT_NAMED)

    # -- the transactions --------------------------------------------------

    def _send(self, conversation):
        """Give the server everybody, as many at once as it takes; say
        whether the connection is fit for more."""
        self._is_taken_by_any, waiting = False, tuple(self._to)
        while waiting:
            waiting = self._transaction(conversation, waiting)
            if self._now_for:
                self._is_taken_by_any = True
                conversation.begin(self._until())
            if self._deadline < self._service.clock.monotonic() + RESERVE:
                self._fates.update(dict.fromkeys(waiting, NOT_NAMED))
                break       # they are put off, rather than left uncertain
        return bool(self._now_for) or self._resets(conversation)

    def _mail(self, conversation):
        """Begin, unless what the server says of itself speaks against it."""
        self._check(conversation)
        options = (
            ('size', f' SIZE={len(self._message)}', True),
            ('8bitmime', ' BODY=8BITMIME', self._is_8bit),
            ('smtputf8', ' SMTPUTF8', self._needs_utf8))
        said = ''.join(option for name, option, is_needed in options
                       if is_needed and conversation.has_extn(name))
        reply = conversation.ask(
            Step.mail, f'MAIL FROM:<{self._email.from_email}>{said}')
        if reply.code != 250:
            raise Refused(Step.mail, reply)

    def _check(self, conversation):
        if self._needs_utf8 and not conversation.has_extn('smtputf8'):
            raise CannotCarry(
                f'{self._field_of_utf8()}: an address needs SMTPUTF8 '
                '(RFC 6531), which the server does not offer')
        if self._is_8bit and not conversation.has_extn('8bitmime'):
            field = (self._field_of_utf8() if self._needs_utf8
                     else 'attachments')
            raise CannotCarry(f'{field}: 8-bit text needs 8BITMIME, which '
                              'the server does not offer')
        size = conversation.esmtp_features.get('size', '')
        most = int(size) if re.fullmatch('[0-9]{1,18}', size) else 0
        if too_large := over(len(self._message), most or None, 'bytes'):
            raise CannotCarry(f'the whole email: {too_large}')

    def _field_of_utf8(self):
        email = self._email
        groups = {'from_email': (email.sender,),
                  'recipients': email.recipients, 'cc': email.cc,
                  'bcc': email.bcc, 'reply_to': email.reply_to}
        return next(name for name, group in groups.items()
                    if not all(one.is_ascii for one in group))

    def _transaction(self, conversation, addresses):
        """Send to some of `addresses`; return those that were too many."""
        self._mail(conversation)
        self._now_for, too_many = self._accepted_of(conversation, addresses)
        if not self._now_for:
            return ()
        reply = conversation.ask(Step.data, 'DATA')
        if reply.code != 354:
            raise Refused(Step.data, reply)
        reply = conversation.hand_over(
            self._message, lambda: min(
                self._deadline, self._service.clock.monotonic()
                + self._service.patience))
        if reply.code != 250:
            raise Refused(Step.dot, reply)
        taken = Fate(
            Rule(Kind.accepted), code=reply.enhanced or str(reply.code),
            provider_message_id=self._service.shown_id(
                _queue_id(reply.text) or self._message_id))
        self._fates.update(dict.fromkeys(self._now_for, taken))
        return too_many

    def _accepted_of(self, conversation, addresses):
        """Name `addresses`; return those that the server accepts, and the
        rest once it has said that they are too many."""
        accepted = []
        for number, address in enumerate(addresses):
            reply = conversation.ask(Step.rcpt, f'RCPT TO:<{address}>')
            if reply.code == 421:       # it closes, for all of them
                raise Refused(Step.rcpt, reply)
            if reply.code in (250, 251):
                accepted.append(address)
                continue
            fate = self._service.fate_by(Step.rcpt, reply, self._email)
            if fate.rule.note == TOO_MANY and accepted:
                return accepted, addresses[number:]
            self._fates[address] = fate
        return accepted, ()

    def _undoes(self, conversation, refused):
        """Leave a transaction behind; say whether that worked."""
        if refused.reply.code < 400 or conversation.is_broken:
            return False
        if refused.step in (Step.mail, Step.data):
            return self._resets(conversation)
        return refused.step is Step.dot     # it is over by itself

    def _resets(self, conversation):
        conversation.until = min(
            conversation.until,
            self._service.clock.monotonic() + RESET_LIMIT)
        try:
            return conversation.ask(Step.rset, 'RSET').code == 250
        except OSError:
            return False    # all is known already: only do not keep it

    # -- what came of it ---------------------------------------------------

    def _told(self):
        fates = [self._fates[address] for address in self._to]
        outcome = together([
            RecipientOutcome(
                email=address, kind=fate.rule.kind, reason=fate.reason,
                provider_message_id=fate.provider_message_id)
            for address, fate in zip(self._to, fates)])
        flags = [fate.rule.flags for fate in fates
                 if fate.rule.kind is outcome.kind]
        return outcome.model_copy(update={
            'code': next(fate.code for fate in fates
                         if fate.rule.kind is outcome.kind),
            'alert': any(fate.rule.flags.get('alert') for fate in fates),
            **{name: all(one.get(name) for one in flags)
               for name in ('throttled', 'domain_only',
                            'recipient_only')}})


def _queue_id(text):
    found = _QUEUE_IDS.search(text)
    if not found:
        return None
    proof = next(group for group in found.groups() if group)
    return proof.strip('<>')
