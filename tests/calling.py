"""How the tests of the transport make a call, and time it."""

import time

from stampman.helpers.delivery import Clock
from stampman.services.transport import Request, Transport

REAL = Clock(time.time, time.monotonic)
SOON = 0.4          # seconds a call gets that is meant to run out of them
BOUNDED = 2.5       # seconds it may take on a busy machine; never a hang
PLENTY = 20.0       # seconds for a call that is meant to end by itself
KEY = 'key-8bd1f0'
CONTENT = b'{"text": "canary-4711"}'
LARGE = b'x' * 8_000_000        # more than any socket buffers


def post(url, body=CONTENT):
    """Return a request as a provider's module builds it."""
    return Request('POST', f'{url}/send?token=query-7c2e', {
        'Authorization': f'Bearer {KEY}',
        'Content-Type': 'application/json'}, body)


def call(url, seconds=PLENTY, body=CONTENT, transport=None, **options):
    """Call once; return the answer or fault."""
    transport = transport or Transport(REAL, **options)
    return transport.call(post(url, body), time.monotonic() + seconds)


def call_in_time(url, seconds=SOON, **options):
    """Call once, and hold the call to its deadline; return how it ended."""
    began = time.monotonic()
    result = call(url, seconds, **options)
    assert time.monotonic() - began < seconds + BOUNDED
    return result
