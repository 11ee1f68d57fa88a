"""The one message that is sent everywhere, as each side takes it: 5 KB."""

import json

DOMAIN = 'example.com'
POOL_KEY = 'pool-key-of-the-bench'
ADMIN_KEY = 'admin-key-of-the-bench'
PROVIDER_KEY = 'SG.key-of-the-bench'
SENDER, RECIPIENT = f'shop@{DOMAIN}', 'someone@example.org'
SUBJECT = 'Your receipt'
TEXT = 'Hello there, this is your receipt. ' * 43
HTML = f'<p>{"Hello there, <b>this</b> is your receipt. " * 80}</p>'

EMAIL = {'from_email': SENDER, 'recipients': [RECIPIENT],
         'subject': SUBJECT, 'content': TEXT, 'html': HTML}
# The same, as SendGrid's API takes it.
SENDGRID = {
    'personalizations': [{'to': [{'email': RECIPIENT}]}],
    'from': {'email': SENDER}, 'subject': SUBJECT,
    'content': [{'type': 'text/plain', 'value': TEXT},
                {'type': 'text/html', 'value': HTML}]}


def config(provider: str) -> dict:
    """Return the config of a Stampman whose one provider is at a URL."""
    return {
        'pools': [{'domain': DOMAIN, 'api_key': POOL_KEY, 'services': {
            'sendgrid': {'api_key': PROVIDER_KEY, 'base_url': provider}}}],
        'admins': [{'name': 'bench', 'api_key': ADMIN_KEY}]}


def request(url: str, body: object, **headers: str) -> bytes:
    """Return a whole POST of JSON to an `http://host:port/path`."""
    host, _, path = url.removeprefix('http://').partition('/')
    content = json.dumps(body).encode()
    lines = [f'POST /{path} HTTP/1.1', f'Host: {host}',
             f'Authorization: Bearer {POOL_KEY}',
             'Content-Type: application/json',
             f'Content-Length: {len(content)}',
             *(f'{name.replace("_", "-")}: {value}'
               for name, value in headers.items())]
    return '\r\n'.join([*lines, '', '']).encode() + content
