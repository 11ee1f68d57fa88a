"""How the tests of SMTP make a service, and send by it."""

import time

from stampman.helpers.delivery import Clock
from stampman.helpers.mail import submission
from stampman.services import service_class
from stampman.services.base import SendContext

NOW = 1_800_000_000.0       # 2027-01-15 08:00:00 UTC
CLOCK = Clock(lambda: NOW, time.monotonic)
MESSAGE = '0190a1b2-0000-7000-8000-000000000001'
ATTEMPT = '0190a1b2-0000-7000-8000-000000000002'
LOGIN = {'username': 'shop-login', 'password': 'pass-6d0f2c'}


def service(port, clock=CLOCK, means={}, **settings):
    """Return a service that speaks to `port` of loopback."""
    cls = service_class('smtp')
    settings = {'host': '127.0.0.1', 'port': port, 'tls': 'none', **settings}
    return cls('smtp', cls.Settings(**settings), 'example.com', clock,
               **means)


def an_email(**fields):
    return submission({'from_email': 'shop@example.com',
                       'recipients': 'ann@example.org', 'subject': 'Order',
                       'content': 'Hello', **fields}).email()


def context(seconds=5.0, envelope=None):
    return SendContext(
        MESSAGE, ATTEMPT, time.monotonic() + seconds, envelope)


def send(smtp, email=None, seconds=5.0, envelope=None):
    """Send once; return the outcome."""
    return smtp.send_email(email or an_email(), context(seconds, envelope))


def closing(smtp):
    """Return a context at whose end the service keeps no connection."""
    class Closing:
        def __enter__(self):
            return smtp

        def __exit__(self, *_):
            smtp.connections.close()
    return Closing()
