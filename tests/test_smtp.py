"""SMTP before a third party's server: what arrives is what went in."""

import json
from email import message_from_bytes, policy
from pathlib import Path

import pytest

from stampman.helpers.delivery import Kind
from stampman.helpers.mail import submission

from certificates import Authority
from readers import OUR_HEADER, read_message
from servers import RawServer
from smtp_calling import (
    ATTEMPT, LOGIN, MESSAGE, an_email, closing, send, service)
from smtp_servers import EHLO, MailServer, Script

EMAILS = json.loads(
    (Path(__file__).parent / 'emails.json').read_text('utf-8'))
OUR_IDS = {'stampman_id': MESSAGE, 'stampman_attempt': ATTEMPT}
CREDENTIALS = tuple(LOGIN.values())


@pytest.fixture(scope='module')
def server():
    with MailServer() as mails:
        yield mails


@pytest.fixture(scope='module')
def smtp(server):
    with closing(service(server.port)) as one:
        yield one


@pytest.fixture(scope='module')
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp('ca'))


def read(mail):
    """Return a mail in plain values; who is not named there is in Bcc."""
    raw = read_message(mail.content)
    headers = raw['headers']
    metadata = json.loads(headers.pop('X-Stampman-Metadata'))
    assert headers.pop(OUR_HEADER) == f'{MESSAGE}/{ATTEMPT}'
    headers.pop('X-Stampman-Tag', None)
    raw['from'] = known(*raw['from'])
    for field in ('to', 'cc', 'reply_to'):
        raw[field] = [known(*pair) for pair in raw[field]]
    named = [email for email, _ in raw['to'] + raw['cc']]
    assert set(named) <= set(mail.recipients)
    return {**raw, 'metadata': metadata,
            'text': as_lines(raw['text']), 'html': as_lines(raw['html']),
            'bcc': [email for email in mail.recipients
                    if email not in named]}


def as_lines(text):
    """SMTP ends the last line of a message, whoever began it."""
    return text and text.replace('\r\n', '\n').removesuffix('\n')


def known(email, name):
    """The library puts a space between two encoded words of a name, and
    leaves an address in UTF-8 as bytes."""
    raw = email.encode('utf-8', 'surrogateescape')
    return raw.decode(), ''.join(name.split())


def plain(email):
    return {
        'from': known(email.from_email, email.from_name),
        **{field: [known(a.email, a.name) for a in getattr(email, name)]
           for field, name in (('to', 'recipients'), ('cc', 'cc'),
                               ('reply_to', 'reply_to'))},
        'bcc': [a.email for a in email.bcc],
        'subject': email.subject, 'text': as_lines(email.content),
        'html': as_lines(email.html), 'headers': dict(email.headers),
        'files': [(a.filename, a.content_type, a.content)
                  for a in email.attachments if not a.content_id],
        'inline': [(a.content_id, a.content_type, a.content)
                   for a in email.attachments if a.content_id],
        'metadata': {**email.metadata, **OUR_IDS}}


def tags_in(content):
    message = message_from_bytes(content, policy=policy.default)
    return [str(tag) for tag in message.get_all('X-Stampman-Tag', [])]


@pytest.mark.parametrize(
    'case', [pytest.param(case, id=case['name']) for case in EMAILS])
def test_an_awkward_email_arrives_whole_or_is_said_to_be_unsupported(
        case, server, smtp):
    email = submission(case['email']).email()
    before = len(server.mails)
    outcome = send(smtp, email)
    for field in ('track_opens', 'track_clicks'):
        if getattr(email, field) is not None:
            assert outcome.kind is Kind.unsupported
            assert outcome.reason.startswith(field)
            assert len(server.mails) == before
            return
    assert outcome.kind is Kind.accepted, outcome.reason
    mail, = server.mails[before:]
    assert outcome.provider_message_id == f'Q{len(server.mails)}'
    assert mail.sender == email.from_email
    assert mail.recipients == [a.email for a in email.everyone]
    assert b'\nBcc:' not in mail.content.partition(b'\r\n\r\n')[0]
    expected, got = plain(email), read(mail)
    for said in (expected, got):
        said['files'] = [
            (name, kind, content.replace(b'\r\n', b'\n'))
            if kind.startswith('message/') else (name, kind, content)
            for name, kind, content in said['files']]
    assert got == expected
    assert tags_in(mail.content) == list(email.tags)


@pytest.mark.parametrize('content', [
    '.', '..', '.\n.\n', 'a\n.\nQUIT\n..b\n', '\n.\n\n', '.' * 999])
def test_lines_that_begin_with_a_dot_arrive_as_they_are(
        content, server, smtp):
    assert send(smtp, an_email(content=content)).kind is Kind.accepted
    assert read(server.mails[-1])['text'] == as_lines(content)


@pytest.mark.parametrize('content', [
    'a\n.\r\nMAIL FROM:<x@example.com>\r\n', 'a\r.\rb', 'a\r\n.\rb\n.\n'])
def test_no_line_end_of_any_kind_smuggles_a_second_message(
        content, server, smtp):
    before = len(server.mails)
    assert send(smtp, an_email(content=content)).kind is Kind.accepted
    assert len(server.mails) == before + 1
    assert b'\n' not in server.mails[-1].content.replace(b'\r\n', b'')
    assert b'\r' not in server.mails[-1].content.replace(b'\r\n', b'')


def test_a_message_goes_to_some_recipients_alone_under_the_same_header(
        server, smtp):
    email = an_email(recipients=['ann@example.org', 'bob@example.org'],
                     bcc='eve@example.org')
    send(smtp, email)
    send(smtp, email, envelope=('bob@example.org', 'eve@example.org'))
    assert server.mails[-1].recipients == [
        'bob@example.org', 'eve@example.org']
    assert server.mails[-1].content == server.mails[-2].content


@pytest.mark.parametrize('implicit', [False, True])
def test_a_secure_login_comes_after_tls_and_the_mail_after_both(
        implicit, authority):
    tls = authority.server('127.0.0.1')
    with MailServer(tls, implicit, login=CREDENTIALS) as server:
        with closing(service(
                server.port, means={'ca_file': authority.file}, **LOGIN,
                tls='tls' if implicit else 'starttls')) as smtp:
            assert smtp.probe() == (True, '127.0.0.1 would take mail from '
                                    'example.com', False)
            large = an_email(attachments=[
                {'filename': 'a.bin', 'content': 'QUJD' * 1_000_000}])
            assert send(smtp, large, seconds=20).kind is Kind.accepted
            assert send(smtp).kind is Kind.accepted
            assert server.connections == 2      # one was the probe's
    for mail in server.mails:
        assert mail.is_secure and mail.login == 'PLAIN'
    assert read(server.mails[0])['files'] == [
        ('a.bin', 'application/octet-stream', b'ABC' * 1_000_000)]


@pytest.mark.parametrize('implicit', [False, True])
def test_a_wrong_password_is_refused_and_not_shown(implicit, authority):
    tls = authority.server('127.0.0.1')
    with MailServer(tls, implicit, login=CREDENTIALS) as server:
        smtp = service(server.port, means={'ca_file': authority.file},
                       tls='tls' if implicit else 'starttls',
                       username='shop-login', password='wrong-4711')
        outcome, probe = send(smtp), smtp.probe()
    assert (outcome.kind, outcome.code, outcome.alert) == (
        Kind.refused, '5.7.8', True)
    assert outcome.reason.startswith('AUTH: 535: the login is refused')
    assert (probe.ok, probe.detail) == (False, outcome.reason)
    assert 'wrong-4711' not in outcome.reason
    assert not server.mails


@pytest.mark.parametrize('tls', ['tls', 'starttls'])
@pytest.mark.parametrize('flaw', [
    'another host', 'expired', 'by itself', 'unknown authority'])
def test_a_certificate_that_is_not_valid_gets_no_login_and_no_mail(
        tls, flaw, authority):
    context = {
        'another host': lambda: authority.server('mx.example.net'),
        'expired': lambda: authority.server('127.0.0.1', expired=True),
        'by itself': authority.signed_by_itself,
        'unknown authority': lambda: authority.server('127.0.0.1')}[flaw]()
    means = {} if flaw == 'unknown authority' else {
        'ca_file': authority.file}
    with MailServer(context, tls == 'tls', login=CREDENTIALS) as server:
        smtp = service(server.port, means=means, tls=tls, **LOGIN)
        outcome = send(smtp)
        assert not smtp.probe().ok
    assert outcome.kind is Kind.deferred and outcome.alert
    assert 'the certificate of 127.0.0.1 is not valid' in outcome.reason
    assert not server.mails


# The login of RFC 2195 and its challenge.
TIM = {'username': 'tim', 'password': 'tanstaaftanstaaf'}
CHALLENGE = ('334 PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+')


@pytest.mark.parametrize('offered, said, replies', [
    ('CRAM-MD5 LOGIN PLAIN', ['AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm'],
     ['235 Welcome']),
    ('CRAM-MD5 LOGIN', ['AUTH LOGIN', 'dGlt', 'dGFuc3RhYWZ0YW5zdGFhZg=='],
     ['334 VXNlcm5hbWU6', '334 UGFzc3dvcmQ6', '235 Welcome']),
    ('XOAUTH2 CRAM-MD5', [
        'AUTH CRAM-MD5', 'dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw'],
     [CHALLENGE, '235 Welcome'])])
def test_a_login_is_what_the_rfcs_say(offered, said, replies):
    script = Script(EHLO=f'250-mx.example.net\r\n250 AUTH {offered}',
                    AUTH=replies[0], other=replies[1:])
    with RawServer(script) as server:
        with closing(service(server.port, **TIM)) as smtp:
            outcome = send(smtp)
    assert outcome.kind is Kind.accepted, outcome.reason
    assert script.heard[1:1 + len(said)] == said
    assert script.heard[1 + len(said)].startswith('MAIL')


@pytest.mark.parametrize('missing, fields, reason', [
    ('SMTPUTF8', {'recipients': 'jörg@example.org'},
     'recipients: an address needs SMTPUTF8'),
    ('SMTPUTF8', {'bcc': 'jörg@example.org'},
     'bcc: an address needs SMTPUTF8'),
    ('8BITMIME', {'attachments': [
        {'filename': 'a.eml', 'content_type': 'message/rfc822',
         'content': 'U3ViamVjdDogw7wNCg0Kw7wNCg=='}]},
     'attachments: 8-bit text needs 8BITMIME'),
    ('8BITMIME', {'cc': 'jörg@example.org'}, 'cc: 8-bit text needs'),
    ('SIZE 35000000', {}, 'the whole email: at most 400 bytes are carried')])
def test_what_the_server_does_not_offer_is_unsupported_before_mail(
        missing, fields, reason):
    script = Script(EHLO=EHLO.replace(
        missing, 'SIZE 400' if missing.startswith('SIZE') else 'X-NOT'))
    with RawServer(script) as server:
        with closing(service(server.port)) as smtp:
            outcome = send(smtp, an_email(**fields))
            assert outcome.kind is Kind.unsupported
            assert outcome.reason.startswith(reason)
            send(smtp, an_email(**fields))
    # One connection for both.
    assert script.heard == ['EHLO example.com', 'QUIT']


def test_mail_says_what_the_message_needs():
    script = Script()
    with RawServer(script) as server:
        with closing(service(server.port)) as smtp:
            send(smtp, an_email(recipients='jörg@example.org'))
    size = len(script.messages[0])
    assert script.heard[1:3] == [
        f'MAIL FROM:<shop@example.com> SIZE={size} BODY=8BITMIME SMTPUTF8',
        'RCPT TO:<jörg@example.org>']
    assert 'To: jörg@example.org'.encode() in script.messages[0]


def test_a_server_without_ehlo_is_greeted_the_old_way_where_that_is_enough():
    script = Script(EHLO='502 5.5.1 Unknown')
    with RawServer(script) as server:
        with closing(service(server.port)) as smtp:
            assert send(smtp).kind is Kind.accepted
        assert send(service(server.port, **LOGIN)).kind is Kind.deferred
    assert script.heard[:3] == ['EHLO example.com', 'helo example.com',
                                'MAIL FROM:<shop@example.com>']
    assert script.heard[-1] == 'EHLO example.com'
