"""Awkward emails through every provider: what arrives is what went in."""

import base64
import binascii
import json
import re
from pathlib import Path

import pytest

from stampman.helpers.delivery import Kind
from stampman.helpers.mail import Email, submission
from stampman.helpers.syntax import header_name
from stampman.services import service_class

from readers import OUR_HEADER, READERS, read_form, read_form_by_email
from servers import Recorder
from test_services import (
    ATTEMPT, HTTP, MESSAGE, an_email, context, let_accept, service)

EMAILS = json.loads(
    (Path(__file__).parent / 'emails.json').read_text('utf-8'))
OUR_IDS = {'stampman_id': MESSAGE, 'stampman_attempt': ATTEMPT}
PNG = b'\x89PNG\r\n\x1a\n'


@pytest.fixture(scope='module')
def server():
    with Recorder() as recorder:
        yield recorder


def delivered(provider, email, server):
    """Send; return the outcome, and the request if there was one."""
    let_accept(server, provider)
    before = len(server.requests)
    outcome = service(provider, server.url).send_email(email, context())
    sent = server.requests[before:]
    assert len(sent) == (outcome.kind is not Kind.unsupported)
    return outcome, sent[0] if sent else None


def plain(email):
    """Return what an email says, as a reader of a request sees it."""
    return {
        'from': (email.from_email, email.from_name),
        'to': [(a.email, a.name) for a in email.recipients],
        'cc': [(a.email, a.name) for a in email.cc],
        'bcc': [(a.email, a.name) for a in email.bcc],
        'reply_to': [(a.email, a.name) for a in email.reply_to],
        'subject': email.subject, 'text': email.content, 'html': email.html,
        'headers': {**email.headers, OUR_HEADER: f'{MESSAGE}/{ATTEMPT}'},
        'files': [(a.filename, a.content_type, a.content)
                  for a in email.attachments if not a.content_id],
        'inline': [(a.content_id, a.content_type, a.content)
                   for a in email.attachments if a.content_id],
        'tags': list(email.tags), 'metadata': {**email.metadata, **OUR_IDS},
        'opens': email.track_opens, 'clicks': email.track_clicks}


def as_sendgrid_has_it(said):
    """Display names reach SendGrid without `;` and `,`."""
    def known(pair):
        return pair[0], re.sub('[,;]', '', pair[1])

    return {**said, 'from': known(said['from']),
            **{field: list(map(known, said[field]))
               for field in ('to', 'cc', 'bcc', 'reply_to')}}


def as_in_mime(said):
    """White space at a fold and the kind of a line's end may differ."""
    def lines(text):
        return text and text.replace('\r\n', '\n')

    return {**said, 'text': lines(said['text']), 'html': lines(said['html']),
            'bcc': [(email, '') for email, _ in said['bcc']],
            'files': [(name, kind, content.replace(b'\r\n', b'\n')
                       if kind.startswith('message/') else content)
                      for name, kind, content in said['files']]}


CHANGES = {'amazon_ses': lambda said, sent: (
               as_in_mime(said) if 'Raw' in sent.json['Content'] else said),
           'mandrill': lambda said, _: said,
           'sendgrid': lambda said, _: as_sendgrid_has_it(said),
           'mailgun': lambda said, sent: (
               as_in_mime(said) if sent.path.endswith('.mime') else said)}


@pytest.mark.parametrize('provider', HTTP)
@pytest.mark.parametrize(
    'case', [pytest.param(case, id=case['name']) for case in EMAILS])
def test_an_awkward_email_arrives_whole_or_is_said_to_be_unsupported(
        provider, case, server):
    email = submission(case['email']).email()
    outcome, sent = delivered(provider, email, server)
    if unsupported := case.get('unsupported', {}).get(provider):
        assert outcome.kind is Kind.unsupported
        assert unsupported in outcome.reason
        return
    assert outcome.kind is Kind.accepted, outcome.reason
    read = READERS[provider](sent)
    for said in (read, expected := plain(email)):
        changed = CHANGES[provider](said, sent)
        said.update(changed)
    assert read == expected


def test_two_readers_agree_on_the_names_of_files(server):
    """Werkzeug reads forms as browsers write them, email as RFC 2045."""
    for case in EMAILS:
        email = submission(case['email']).email()
        if 'mailgun' in case.get('unsupported', {}) or not email.recipients:
            continue
        _, sent = delivered('mailgun', email, server)
        names = [(name, file, content) for name, file, content
                 in read_form_by_email(sent) if file is not None]
        # The standard library takes even a quoted name for encoded words.
        assert [one for one in names if one[1] != 'x.txt'] == [
            ('attachment', a.filename, a.content) for a in email.attached
            if not a.filename.startswith('=?')
        ] + [('inline', a.content_id, a.content) for a in email.inline]


FIELDS = {
    'from_email': 'walk-from@example.com', 'from_name': 'WalkFromName',
    'recipients': [{'email': 'walk-to@example.org', 'name': 'WalkTo'}],
    'cc': [{'email': 'walk-cc@example.org', 'name': 'WalkCc'}],
    'bcc': [{'email': 'walk-bcc@example.org', 'name': 'WalkBcc'}],
    'reply_to': [{'email': 'walk-reply@example.org', 'name': 'WalkReply'}],
    'subject': 'WalkSubject', 'content': 'WalkText', 'html': 'WalkHtml',
    'headers': {'X-Walk-Name': 'WalkValue'},
    'attachments': [
        {'filename': 'WalkFile.bin', 'content_type': 'walk/type',
         'content': b'WalkContent'},
        {'filename': 'WalkInline.png', 'content_type': 'image/walk',
         'content': b'WalkPixels', 'content_id': 'WalkId'}],
    'tags': ['WalkTag'], 'metadata': {'WalkKey': 'WalkMeta'},
    'track_opens': True, 'track_clicks': True,
}
# What a provider has no place for, and its sheet says so.
NO_PLACE = {'mailgun': {'WalkInline.png'}, 'mandrill': {'WalkInline.png'}}


def strings(value):
    """Return every string in a value of the fields, as it is."""
    if isinstance(value, dict):
        return [text for pair in value.items()
                for text in strings(pair[1])] + [
            key for key in value if key.lower().startswith(('x-w', 'walk'))]
    if isinstance(value, list):
        return [text for one in value for text in strings(one)]
    if isinstance(value, bytes):
        return [value.decode()]
    return [value] if isinstance(value, str) else []


def haystack(request):
    """Return a request's body, and what is base64 in it in the clear."""
    return in_the_clear(request.body.decode('utf-8', 'replace'))


def in_the_clear(text):
    found = [text]
    for encoded in re.findall('[A-Za-z0-9+/]{8,}=*', text):
        try:
            found.append(in_the_clear(base64.b64decode(encoded).decode()))
        except (binascii.Error, UnicodeDecodeError):
            continue
    return '\n'.join(found)


def test_the_walk_covers_every_field_there_is():
    assert set(FIELDS) == set(Email.model_fields)


@pytest.mark.parametrize('provider', HTTP)
@pytest.mark.parametrize('field', FIELDS)
def test_every_field_appears_in_the_request_or_is_said_to_be_unsupported(
        provider, field, server):
    base = {'from_email': 'shop@example.com', 'recipients': [
        {'email': 'ann@example.org'}], 'subject': 'Order', 'content': 'Hi'}
    changed = Email(**{**base, field: FIELDS[field]})
    outcome, sent = delivered(provider, changed, server)
    if outcome.kind is Kind.unsupported:
        assert field in outcome.reason
        return
    missing = {text for text in strings(FIELDS[field])
               if text not in haystack(sent)}
    assert missing <= NO_PLACE.get(provider, set())
    _, without = delivered(provider, Email(**base), server)
    assert sent.body != without.body


@pytest.mark.parametrize('provider', HTTP)
@pytest.mark.parametrize('field', ['track_opens', 'track_clicks'])
def test_a_switch_that_is_off_is_not_one_that_is_not_set(
        provider, field, server):
    bodies = set()
    for value in (None, True, False):
        outcome, sent = delivered(
            provider, an_email(**{field: value} if value is not None else {}),
            server)
        if outcome.kind is Kind.unsupported:
            assert field in outcome.reason
            return
        bodies.add(sent.body)
    assert len(bodies) == 3


@pytest.mark.parametrize('provider', HTTP)
def test_more_recipients_than_a_provider_takes_are_unsupported(
        provider, server):
    most = service_class(provider).capabilities.max_recipients
    email = Email(from_email='shop@example.com', subject='Order', content='x',
                  recipients=[f'a{n}@example.org' for n in range(most)])
    outcome, sent = delivered(provider, email, server)
    assert outcome.kind is Kind.accepted
    assert len(READERS[provider](sent)['to']) == most
    outcome, _ = delivered(provider, email.model_copy(update={
        'bcc': an_email(bcc='one.more@example.org').bcc}), server)
    assert outcome.kind is Kind.unsupported
    assert outcome.reason == (f'recipients: at most {most} recipients are '
                              f'carried, not {most + 1}')


@pytest.mark.parametrize('provider', HTTP)
def test_a_request_over_the_providers_size_is_unsupported(provider, server):
    capabilities = service_class(provider).capabilities
    most = capabilities.max_request or capabilities.max_message
    outcome, _ = delivered(provider, Email(
        from_email='shop@example.com', recipients=['ann@example.org'],
        subject='Order', content='x', attachments=[
            {'filename': 'a', 'content': bytes(most)}]), server)
    assert outcome.kind is Kind.unsupported
    assert f'at most {most} bytes are carried' in outcome.reason


def test_what_only_building_finds_is_unsupported_and_not_sent(server):
    """A forwarded message must not be encoded, and so not have long lines."""
    email = Email(from_email='shop@example.com', bcc=['ann@example.org'],
                  content='x', attachments=[
                      {'filename': 'f.eml', 'content': b'x' * 1000,
                       'content_type': 'message/rfc822'}])
    outcome, _ = delivered('mailgun', email, server)
    assert outcome.kind is Kind.unsupported
    assert outcome.reason.startswith('attachments: a message with lines')


@pytest.mark.parametrize('length, kind', [(16_384 - 196, 'accepted'),
                                          (16_384 - 195, 'unsupported')])
def test_options_of_mailgun_have_at_most_16_kilobytes(length, kind, server):
    outcome, sent = delivered(
        'mailgun', an_email(headers={'X-A': 'v' * length}), server)
    assert outcome.kind == kind
    if sent:
        fields, _ = read_form(sent)
        assert sum(len(name + value) for name, value in fields
                   if name.startswith(('o:', 'h:', 'v:'))) == 16_384


@pytest.mark.parametrize('length, kind', [(255, 'accepted'),
                                          (256, 'unsupported')])
def test_a_category_of_sendgrid_has_at_most_255_characters(
        length, kind, server):
    outcome, _ = delivered('sendgrid', an_email(tags=['t' * length]), server)
    assert outcome.kind == kind


@pytest.mark.parametrize('length, kind', [(9879, 'accepted'),
                                          (9880, 'unsupported')])
def test_metadata_of_sendgrid_has_at_most_10000_bytes_with_our_ids(
        length, kind, server):
    outcome, sent = delivered(
        'sendgrid', an_email(metadata={'key': 'v' * length}), server)
    assert outcome.kind == kind
    if sent:
        assert len(json.dumps(json.loads(sent.body)['custom_args'],
                              separators=(',', ':'))) == 10_000


def test_a_reply_to_of_sendgrid_has_at_most_1000_addresses(server):
    for count, kind in ((1000, Kind.accepted), (1001, Kind.unsupported)):
        email = Email(from_email='shop@example.com', content='Hello',
                      recipients=['ann@example.org'], subject='Order',
                      reply_to=[f'a{n}@example.com' for n in range(count)])
        outcome, _ = delivered('sendgrid', email, server)
        assert outcome.kind is kind
    assert outcome.reason == (
        'reply_to: at most 1000 addresses are carried, not 1001')


@pytest.mark.parametrize('name', [
    'x-sg-id', 'X-SG-EID', 'received', 'dkim-signature', 'Content-Type',
    'Content-Transfer-Encoding', 'To', 'From', 'Subject', 'Reply-To', 'CC',
    'BCC'])
def test_a_header_that_sendgrid_refuses_is_refused_at_our_door(name):
    with pytest.raises(ValueError):
        header_name(name)
