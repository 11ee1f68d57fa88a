"""Anymail's SendGrid backend in a plain loop, on a connection held open.

`python -m bench.peers.anymail PROVIDER_URL 1000` prints the seconds of CPU
that the loop took.
"""

import sys
import time
import warnings

import django
from django.conf import settings
from django.core.mail import EmailMultiAlternatives, get_connection

from bench import mail

WARM_UP = 50        # messages


def send(connection):
    email = EmailMultiAlternatives(
        mail.SUBJECT, mail.TEXT, mail.SENDER, [mail.RECIPIENT],
        connection=connection)
    email.attach_alternative(mail.HTML, 'text/html')
    email.send()


def main(provider: str, messages: int) -> None:
    settings.configure(
        EMAIL_BACKEND='anymail.backends.sendgrid.EmailBackend',
        ANYMAIL={'SENDGRID_API_KEY': mail.PROVIDER_KEY,
                 'SENDGRID_API_URL': f'{provider}/v3/'})
    django.setup()
    warnings.simplefilter('ignore')     # its support for SendGrid ends
    with get_connection() as connection:
        for _ in range(WARM_UP):
            send(connection)
        before = time.process_time()
        for _ in range(messages):
            send(connection)
        print(time.process_time() - before)


if __name__ == '__main__':
    main(sys.argv[1], int(sys.argv[2]))
