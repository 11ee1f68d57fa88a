"""What a reply of an SMTP server comes to, by the step that it answers.

The enhanced code (RFC 3463) stands at the beginning of the words that the
rules search, and so beats the basic code where a line asks for it.
"""

import re
from enum import StrEnum

from stampman.helpers.delivery import Kind
from stampman.services._rules import (
    ALERT, DOMAIN_ONLY, RECIPIENT_ONLY, THROTTLED, Rule, rule_for)


class Step(StrEnum):
    """What the server was asked when it replied."""

    connect = 'connecting'
    greeting = 'the greeting'
    ehlo = 'EHLO'
    starttls = 'STARTTLS'
    auth = 'AUTH'
    mail = 'MAIL'
    rcpt = 'RCPT'
    data = 'DATA'
    dot = 'the end of the message'
    rset = 'RSET'
    noop = 'NOOP'


def _codes(first, last):
    return tuple(range(first, last + 1))


TEMPORARY, PERMANENT = _codes(400, 499), _codes(500, 599)
TOO_MANY = 'too many recipients at once'
MAX_WORDS = 4096        # characters of a reply that rules are held against
SYNTAX = _codes(500, 504) + (555,)

# Codes so plain that no text about a quota or a rate may be read over them.
_PLAIN = (
    Rule(Kind.unsupported, (), r'^[45]\.3\.4\b|^5\.2\.3\b',
         note='it is too large'),
    Rule(Kind.unsupported, (552, 554),
         r'size.{0,40}(exceed|limit)|too (large|big)',
         note='it is too large'),
    Rule(Kind.unsupported, (523,), note='it is too large'),
    Rule(Kind.deferred, (), r'^[45]\.5\.3\b|too many recipients',
         RECIPIENT_ONLY, note=TOO_MANY),
    Rule(Kind.deferred, (), r'^4\.2\.', RECIPIENT_ONLY),
    Rule(Kind.rejected, (), r'^5\.2\.[12]\b'),
    Rule(Kind.deferred, TEMPORARY,
         r'(mailbox|recipient|inbox).{0,40}(full|quota)', RECIPIENT_ONLY),
    Rule(Kind.rejected, PERMANENT,
         r'(mailbox|recipient|inbox).{0,40}(full|quota)'),
)
# Said at any step, with any code: 451 and 550 were seen for both.
_OF_PACE = (
    Rule(Kind.refused, (), r'\bquota\b|\bdaily\b|credits? exceeded', ALERT,
         note='the quota is used up'),
    Rule(Kind.deferred, (), r'throttl|\brates?\b|per (second|minute)\b'
         r'|too (many|much) (e-?mails|messages|mails|connections|requests)',
         THROTTLED),
    Rule(Kind.refused, (), r'\blimits? (is |was )?(exceeded|reached)'
         r'|exceed(s|ed)? .{0,40}\blimit\b', ALERT,
         note='the quota is used up'),
)
_OF_SENDER = (
    Rule(Kind.refused, (), r'domain .{0,300}is not allowed to send'
         r'|sender identity|verified sender|address is not verified'
         r'|(sender|from).{0,60}not (been )?(verified|allowed|authori[sz]ed'
         r'|permitted|owned)|not (allowed|authori[sz]ed|permitted) to send'
         r'|relay(ing)? (access )?(is )?(denied|not)'
         r'|(unable|not permitted|not allowed) to relay', DOMAIN_ONLY,
         note='the sender is not allowed there'),
)
_LOGIN_NEEDED = Rule(Kind.refused, (530,), '', ALERT,
                     note='it asks for a login')
_OUR_WORDS = Rule(Kind.unsupported, SYNTAX, '', ALERT,
                  note='it does not understand us')

_UNREACHED = (Rule(Kind.deferred),)
_NOT_SPOKEN = (Rule(Kind.deferred, SYNTAX, flags=ALERT,
                    note='it does not understand us'),)
_AUTH = (
    Rule(Kind.refused, (432,), '', ALERT, note='a new password is needed'),
    Rule(Kind.deferred, TEMPORARY),
    Rule(Kind.refused, (504, 538), '', ALERT,
         note='the way to log in is not allowed'),
    Rule(Kind.refused, PERMANENT, '', ALERT, note='the login is refused'),
)
_MAIL = (
    Rule(Kind.deferred, TEMPORARY),
    Rule(Kind.rejected, (), r'^5\.1\.7\b', note='the sender is not valid'),
    Rule(Kind.unsupported, (552,), note='it is too large'),
    _LOGIN_NEEDED, _OUR_WORDS,
    Rule(Kind.refused, PERMANENT, '', DOMAIN_ONLY,
         note='the sender is not allowed there'),
)
_RCPT = (
    Rule(Kind.deferred, (421,)),
    Rule(Kind.deferred, (), r'^4\.3\.'),     # the server itself
    Rule(Kind.deferred, TEMPORARY, '', RECIPIENT_ONLY),
    Rule(Kind.rejected, (), r'^5\.[12]\.'),
    _LOGIN_NEEDED,
    Rule(Kind.unsupported, (), r'^5\.7\.'),
    # RFC 5321 4.5.3.1.10: one of too many recipients, whatever it says.
    Rule(Kind.deferred, (552,), '', RECIPIENT_ONLY, note=TOO_MANY),
    Rule(Kind.unsupported, (554,)),
    _OUR_WORDS,
    Rule(Kind.rejected, PERMANENT),
)
_CONTENT = (
    Rule(Kind.deferred, TEMPORARY),
    Rule(Kind.rejected, PERMANENT, r'\b(virus|malware)'),
    Rule(Kind.rejected, (), r'^5\.1\.[1-6]\b'),
    _LOGIN_NEEDED,
    Rule(Kind.unsupported, (), r'^5\.[67]\.'),
    Rule(Kind.unsupported, (552,), note='it is too large'),
    _OUR_WORDS,
    Rule(Kind.unsupported, PERMANENT),
)
_NOT_A_REPLY = (Rule(Kind.deferred, note='that is no reply to it'),)
_NO_PROOF = (Rule(Kind.uncertain, flags=ALERT,
                  note='that is no reply to a message'),)

_EVERYWHERE = (_PLAIN, _OF_PACE, _OF_SENDER)
_TABLES = {
    Step.greeting: (_OF_PACE, _UNREACHED),
    Step.ehlo: (_OF_PACE, _NOT_SPOKEN, _UNREACHED),
    Step.starttls: (_OF_PACE, _NOT_SPOKEN, _UNREACHED),
    Step.auth: (_OF_PACE, _AUTH),
    Step.mail: (*_EVERYWHERE, _MAIL),
    Step.rcpt: (_PLAIN[:1], (Rule(Kind.rejected, (), r'^5\.1\.'),),
                *_EVERYWHERE, _RCPT),
    Step.data: (*_EVERYWHERE, _CONTENT),
    Step.dot: (*_EVERYWHERE, _CONTENT),
    Step.rset: (_UNREACHED,),
    Step.noop: (_UNREACHED,),
}
# From the start of a word, once: any other way costs time in the square.
_ADDRESS = re.compile(r'(?<!\S)\S*@\S*')
_CLASS = re.compile(r'([45])\.[0-9]{1,3}\.[0-9]{1,3}\b')


def rule_at(step: Step, code: int, words: str) -> Rule:
    """Return what a reply of `code` means at `step`.

    `words` begin with the enhanced code, where there is one; an address in
    them is nothing that the server says.
    """
    if not 400 <= code <= 599:
        return rule_for(code, '',
                        _NO_PROOF if step is Step.dot else _NOT_A_REPLY)
    if enhanced := _CLASS.match(words):     # 550 4.7.1 is temporary
        code = code % 100 + int(enhanced[1]) * 100
    return rule_for(code, _ADDRESS.sub('', words[:MAX_WORDS]),
                    *_TABLES[step], _NOT_A_REPLY)
