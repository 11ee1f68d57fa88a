"""Requests as the providers document them, written by hand, and a client.

Nothing here comes from the services or the simulator.
"""

import base64
import http.client
import json
from typing import NamedTuple

SENDGRID_KEY = 'SG.simulated'
MAILGUN_KEY = 'simulated-mailgun'
MANDRILL_KEY = 'simulated-mandrill'
ACCESS_KEY, SECRET_KEY = 'AKIASIMULATED', 'simulated-secret'

SENDGRID_PATH = '/sendgrid/v3/mail/send'
MAILGUN_PATH = '/mailgun/v3/example.com/messages'
SES_PATH = '/ses/v2/email/outbound-emails'
MANDRILL_PATH = '/mandrill/api/1.4/messages/send'

SENDGRID_MAIL = {
    'personalizations': [{
        'to': [{'email': 'ann@example.net', 'name': 'Ann'}],
        'cc': [{'email': 'bob@example.net'}],
        'bcc': [{'email': 'carl@example.net'}]}],
    'from': {'email': 'shop@example.com', 'name': 'Shop'},
    'subject': 'Your order',
    'content': [{'type': 'text/plain', 'value': 'It is sent.'},
                {'type': 'text/html', 'value': '<p>It is sent.</p>'}],
    'custom_args': {'stampman_id': 'message-1',
                    'stampman_attempt': 'attempt-1'}}
MANDRILL_MAIL = {
    'from_email': 'shop@example.com', 'from_name': 'Shop',
    'to': [{'email': 'ann@example.net', 'name': 'Ann', 'type': 'to'},
           {'email': 'carl@example.net', 'type': 'bcc'}],
    'preserve_recipients': True, 'subject': 'Your order',
    'text': 'It is sent.', 'html': '<p>It is sent.</p>',
    'metadata': {'stampman_id': 'message-1',
                 'stampman_attempt': 'attempt-1'}}
SES_MAIL = {
    'FromEmailAddress': 'Shop <shop@example.com>',
    'Destination': {'ToAddresses': ['Ann <ann@example.net>'],
                    'BccAddresses': ['carl@example.net']},
    'Content': {'Simple': {
        'Subject': {'Data': 'Your order', 'Charset': 'UTF-8'},
        'Body': {'Text': {'Data': 'It is sent.', 'Charset': 'UTF-8'},
                 'Html': {'Data': '<p>It is sent.</p>'}}}},
    'EmailTags': [{'Name': 'stampman_id', 'Value': 'message-1'},
                  {'Name': 'stampman_attempt', 'Value': 'attempt-1'}]}
MAILGUN_FORM = (
    ('from', '"Shop" <shop@example.com>'), ('to', 'Ann <ann@example.net>'),
    ('cc', 'bob@example.net'), ('bcc', 'carl@example.net'),
    ('subject', 'Your order'), ('text', 'It is sent.'),
    ('html', '<p>It is sent.</p>'), ('v:stampman_id', 'message-1'),
    ('v:stampman_attempt', 'attempt-1'))
MIME = (b'From: Shop <shop@example.com>\r\nTo: Ann <ann@example.net>\r\n'
        b'Subject: =?utf-8?q?Your_order?=\r\nMIME-Version: 1.0\r\n'
        b'X-Stampman-Id: message-1/attempt-1\r\n'
        b'Content-Type: text/plain; charset=utf-8\r\n\r\nIt is sent.\r\n')


class Got(NamedTuple):
    """An answer, read to its end; `headers` in lower case."""

    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


def call(simulator, method, path, body=b'', headers=(), patience=5):
    """Send one request over a connection of its own."""
    connection = http.client.HTTPConnection(
        '127.0.0.1', simulator.port, timeout=patience)
    try:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        return Got(answer.status, {name.lower(): value for name, value
                                   in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def call_json(simulator, path, value, **headers):
    """POST `value` as JSON."""
    return call(simulator, 'POST', path, json.dumps(value).encode(), {
        'Content-Type': 'application/json', **headers})


def sendgrid(simulator, key=SENDGRID_KEY, without=(), **changes):
    """Send the good mail to SendGrid, with changes."""
    mail = {name: value for name, value in {
        **SENDGRID_MAIL, **changes}.items() if name not in without}
    return call_json(simulator, SENDGRID_PATH, mail,
                     Authorization=f'Bearer {key}')


def mandrill(simulator, key=MANDRILL_KEY, without=(), call=(), **changes):
    """Send the good message to Mandrill; `call` changes what stands beside
    it."""
    message = {name: value for name, value in {
        **MANDRILL_MAIL, **changes}.items() if name not in without}
    return call_json(simulator, MANDRILL_PATH, {
        'key': key, 'message': message, **dict(call)})


def mailgun(simulator, fields=MAILGUN_FORM, files=(), key=MAILGUN_KEY,
            path=MAILGUN_PATH):
    """Send a form to Mailgun; `files` are (field, file name, bytes)."""
    parts = [(f'form-data; name="{name}"', text.encode())
             for name, text in fields]
    parts += [(f'form-data; name="{name}"' + (
        f'; filename="{file}"' if file else ''), raw)
        for name, file, raw in files]
    body = b''.join(
        b'--limit\r\nContent-Disposition: ' + head.encode() + b'\r\n\r\n'
        + raw + b'\r\n' for head, raw in parts) + b'--limit--\r\n'
    return call(simulator, 'POST', path, body, {
        **basic(key),
        'Content-Type': 'multipart/form-data; boundary=limit'})


def basic(key=MAILGUN_KEY):
    """Return the header of HTTP Basic for the user `api`."""
    pair = base64.b64encode(f'api:{key}'.encode()).decode()
    return {'Authorization': f'Basic {pair}'}


def changed(fields, **changes):
    """Return a form's fields with changes; None takes one out."""
    return [(name, changes.get(name, text)) for name, text in fields
            if changes.get(name, text) is not None]
