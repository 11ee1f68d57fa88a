"""How each recipient fares at Mandrill, in its words and in ours.

Mandrill answers a send with a list, one object for each recipient: `email`,
`status`, `_id`, `reject_reason`, `queued_reason`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from stampman.helpers import masking
from stampman.helpers.delivery import (
    MAX_REASON, Kind, Outcome, RecipientOutcome, together)
from stampman.helpers.mail import Address
from stampman.services.base import ALERT, DOMAIN_ONLY, THROTTLED


class Verdict(NamedTuple):
    """What Mandrill's word for a recipient comes to.

    `note` tells people, `flags` are fields of the `Outcome`.
    """

    kind: Kind
    note: str = ''
    flags: Mapping[str, Any] = {}


# By `status`: these say that it was taken, with an `_id` as the proof.
TAKEN = frozenset({'sent', 'queued', 'scheduled'})
NO_ID = Verdict(
    Kind.uncertain, 'a success without the provider\'s message id', ALERT)
INVALID = Verdict(Kind.rejected, 'the address is not valid')
UNKNOWN_STATUS = Verdict(
    Kind.uncertain, 'the provider does not say what became of it', ALERT)
UNNAMED = Verdict(
    Kind.uncertain, 'the provider does not name this recipient', ALERT)
CONTRADICTORY = Verdict(
    Kind.uncertain, 'the provider contradicts itself on this recipient',
    ALERT)

# By `reject_reason`, where the status is `rejected`.
REJECTED = {
    'hard-bounce': Verdict(Kind.rejected, 'it bounced for good before'),
    'spam': Verdict(Kind.rejected, 'the recipient complained before'),
    'unsub': Verdict(Kind.rejected, 'the recipient unsubscribed'),
    'invalid': INVALID,
    'soft-bounce': Verdict(Kind.unsupported, 'it bounced not long ago'),
    'custom': Verdict(Kind.unsupported, 'on the account\'s own deny-list'),
    'rule': Verdict(Kind.unsupported, 'a rule of the account'),
    'invalid-sender': Verdict(
        Kind.refused, 'the sender is not valid there', DOMAIN_ONLY),
    'unsigned': Verdict(
        Kind.refused, 'the sender\'s domain has no DKIM there', DOMAIN_ONLY),
    'test-mode-limit': Verdict(
        Kind.refused, 'the limit of the test mode', ALERT),
    'recipient-domain-mismatch': Verdict(
        Kind.refused, 'a demo account mails only its own domain', ALERT),
}
UNKNOWN_REJECTION = Verdict(
    Kind.unsupported, 'rejected for a reason that is not known', ALERT)

# By `queued_reason`, where it was taken.
AT_ONCE = Verdict(Kind.accepted)
LATE = Verdict(Kind.accepted, 'taken, but it will be late', THROTTLED)
STALLED = Verdict(Kind.accepted, 'taken, but it may never be sent',
                  {'stalled': True, 'alert': True})
QUEUED = {
    '': AT_ONCE,
    'attachments': AT_ONCE,
    'multiple-recipients': AT_ONCE,
    'sending-backlogged': LATE,
    'hourly-quota-exhausted': LATE,
    'free-trial-sends-exhausted': STALLED,
    'monthly-limit-reached': STALLED,
    'sending-paused': STALLED,
    'sending-suspended': STALLED,
    'account-suspended': STALLED,
}
UNKNOWN_QUEUE = Verdict(
    Kind.accepted, 'taken, but it waits for a reason that is not known',
    ALERT)

# What may be told as it stands; any other word may echo the email.
KNOWN_WORDS = TAKEN | {'invalid'} | REJECTED.keys() | QUEUED.keys()


class Fate(NamedTuple):
    """What an answer says of one recipient; `word` is Mandrill's own."""

    verdict: Verdict
    word: str = ''
    provider_message_id: str | None = None


MISSING = Fate(UNNAMED)


def outcome_of(told: Any, recipients: Sequence[Address],
               masked: Callable[[str], str],
               shown_id: Callable[[str], str]) -> Outcome | None:
    """Return what an answer's JSON comes to for `recipients`, or None where
    it is no list that names any of them.

    `masked` hides what must not be shown of a word, `shown_id` of an id.
    """
    fates = _fates(told)
    found = [fates.get(one.email.lower(), MISSING) for one in recipients]
    if all(fate is MISSING for fate in found):
        return None
    shown = {word: word if word in KNOWN_WORDS else masked(word)[:MAX_REASON]
             for word in {fate.word for fate in found}}
    reasons = [_reason(fate.verdict, shown[fate.word]) for fate in found]
    outcome = together([
        RecipientOutcome(email=one.email, kind=fate.verdict.kind,
                         reason=reason,
                         provider_message_id=fate.provider_message_id
                         and shown_id(fate.provider_message_id))
        for one, fate, reason in zip(recipients, found, reasons, strict=True)])
    # Where anybody was accepted, `together` says nothing of them.
    waits = dict.fromkeys(
        reason for fate, reason in zip(found, reasons, strict=True)
        if fate.verdict.kind is Kind.accepted)
    speaking = [fate for fate in found if fate.verdict.kind is outcome.kind]
    return outcome.model_copy(update={
        'reason': '; '.join(filter(None, (*waits, outcome.reason)))[
            :MAX_REASON],
        'code': next((shown[fate.word] for fate in speaking
                      if fate.verdict.note), ''),
        **_flags(found, speaking)})


def _fates(told):
    """Return the fate of each address that is named.

    An entry of another form names nobody.
    """
    fates = {}
    for entry in told if isinstance(told, list) else ():
        email = entry.get('email') if isinstance(entry, dict) else None
        if isinstance(email, str):
            fate = _fate(entry)
            known = fates.get(email.lower(), fate)
            fates[email.lower()] = (
                max(known, fate, key=_gravity)
                if known.verdict.kind is fate.verdict.kind
                else Fate(CONTRADICTORY))
    return fates


def _gravity(fate):
    """Of what is said of one recipient twice the worse counts."""
    flags = fate.verdict.flags
    return [flag in flags for flag in ('stalled', 'alert', 'throttled')] + [
        'domain_only' not in flags]


def _fate(entry):
    status, proof = _word(entry, 'status'), _id(entry)
    if status == 'rejected':
        word = _word(entry, 'reject_reason')
        return Fate(REJECTED.get(word, UNKNOWN_REJECTION), word, proof)
    if status == 'invalid':
        return Fate(INVALID, status, proof)
    if status not in TAKEN:
        return Fate(UNKNOWN_STATUS, status, proof)
    if not proof:
        return Fate(NO_ID, status)
    word = _word(entry, 'queued_reason')
    return Fate(QUEUED.get(word, UNKNOWN_QUEUE), word, proof)


def _word(entry, name):
    """A word of another type becomes one that no table knows."""
    word = entry.get(name)
    return '' if word is None else str(word)


def _id(entry):
    proof = entry.get('_id')
    if not isinstance(proof, str):
        return None
    return masking.one_line(proof) or None


def _reason(verdict, word):
    if not verdict.note:
        return ''
    return ': '.join(filter(None, (verdict.note, word)))[:MAX_REASON]


def _flags(found, speaking):
    """A refusal is about the domain where it is so for all who decide."""
    flags = {flag: any(flag in fate.verdict.flags for fate in found)
             for flag in ('alert', 'throttled', 'stalled')}
    return {**flags, 'domain_only': all(
        'domain_only' in fate.verdict.flags for fate in speaking)}
