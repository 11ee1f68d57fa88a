"""Reaching a host: every address in its share of the time, and in words
what went wrong."""

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator

from stampman.helpers.turns import turns
from stampman.services._wire import Names, Trouble


def dial(names: Names, host: str, port: int,
         left: Callable[[], float]) -> socket.socket:
    """Return a socket that is connected to `host`.

    `left` returns the seconds there are, or raises TimeoutError. Raises
    Trouble where the name is not known, OSError of the last address tried.
    """
    with turns.away:
        return _dial(names, host, port, left)


def _dial(names, host, port, left):
    found = names.find(host, port, left())
    for others, address in zip(range(len(found))[::-1], found):
        try:
            return _reach(address, left() / (others + 1), left)
        except OSError:
            if not others:
                raise


def _reach(address, seconds, left):
    family, kind, protocol, _, place = address
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(seconds)
        sock.connect(place)
        sock.settimeout(left())
    except BaseException:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def in_words(peer: Callable[[], str]) -> Iterator[None]:
    """Raise what goes wrong while `peer` is connected to as Trouble."""
    try:
        yield
    except Trouble:
        raise
    except ssl.SSLCertVerificationError as error:
        raise Trouble(f'the certificate of {peer()} is not valid: '
                      f'{error.verify_message}', alert=True) from error
    except TimeoutError as error:
        raise Trouble(f'no connection to {peer()} in time') from error
    except ssl.SSLEOFError as error:
        raise Trouble(f'{peer()} closed the connection during the '
                      'TLS handshake') from error
    except ssl.SSLError as error:
        raise Trouble(f'no TLS with {peer()}: {error.reason}',
                      alert=True) from error
    except OSError as error:
        raise Trouble(f'no connection to {peer()}: '
                      f'{error.strerror}') from error
