"""What a raw message says of itself; raises Malformed where it cannot be
read."""

import email
import email.policy
import functools
from collections.abc import Callable, Sequence
from email.message import EmailMessage

from stampman.simulator import addresses
from stampman.simulator.ledger import Ids, Recipient, Taken


class Malformed(ValueError):
    """Raised where a message, or a field of it, cannot be read."""


def _guarded(read: Callable) -> Callable:
    @functools.wraps(read)
    def guarded(*args, **more):
        try:
            return read(*args, **more)
        # The standard library's parser has no error of its own: what it
        # stumbles over comes as AttributeError (`To: a@[`), IndexError,
        # UnicodeError, RecursionError, by version, and only where a field
        # is asked for.
        except Exception as error:
            raise Malformed('The message is not valid MIME') from error
    return guarded


@_guarded
def read(raw: bytes) -> EmailMessage:
    """Return `raw` parsed; what is wrong with it stands in `defects`."""
    return email.message_from_bytes(raw, policy=email.policy.default)


@_guarded
def named(message: EmailMessage, header: str) -> list[str]:
    """Return the addresses in a header, which may be missing."""
    return addresses.several([str(value)
                              for value in message.get_all(header, [])])


@_guarded
def taken_of(message: EmailMessage, size: int, provider_ids: Sequence[str],
             envelope: Sequence[str], sender: str = '',
             ids: Ids = Ids()) -> Taken:
    """Return the entry for a raw message sent to `envelope`.

    Whom neither To nor Cc names is a Bcc. `ids` stand where the header
    X-Stampman-Id is missing.
    """
    kinds = {address.lower(): kind for kind in ('cc', 'to')
             for address in named(message, kind)}
    planted = message['X-Stampman-Id']
    return Taken(
        provider_ids=tuple(provider_ids),
        sender=sender or next(iter(named(message, 'from')), ''),
        recipients=tuple(Recipient(address, kinds.get(address.lower(), 'bcc'))
                         for address in envelope),
        subject=str(message['Subject'] or ''), size=size,
        ids=Ids.of_header(str(planted)) if planted else ids,
        text=_content(message, 'plain'), html=_content(message, 'html'))


def _content(message, subtype):
    part = message.get_body((subtype,))
    if part is None:
        return ''
    raw = part.get_payload(decode=True) or b''
    charset = part.get_content_charset('utf-8')
    try:
        return raw.decode(charset, errors='replace')
    except LookupError:     # a charset that nobody knows
        return raw.decode(errors='replace')
