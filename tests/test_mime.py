"""An email as a message: read back by the standard library, it is the same."""

import json
import re
from email import message_from_bytes, policy
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from stampman.helpers.mail import Address, Attachment, Email, submission
from stampman.services import _mime
from stampman.services.base import CannotCarry

from readers import read_message

NOW = 1_800_000_000.0       # 2027-01-15 08:00:00 UTC
EMAILS = json.loads(
    (Path(__file__).parent / 'emails.json').read_text('utf-8'))
# Everything that passes at the door; what hides in encoded words does not.
HEADER_TEXT = st.text(
    st.characters(exclude_categories=('Cc', 'Cs', 'Zl', 'Zp')), max_size=120)


def an_email(**fields):
    return Email(**{'from_email': 'shop@example.com',
                    'recipients': ['ann@example.org'], 'content': 'Hello',
                    **fields})


def rendered(email, **headers):
    return _mime.render(email, NOW, 'id-1@example.com', headers)


def parsed(email):
    return message_from_bytes(rendered(email), policy=policy.default)


def shape(part):
    """Return the types of a message, nested as its parts are."""
    kind = part.get_content_type()
    if not part.is_multipart() or part.get_content_maintype() == 'message':
        return kind
    return [kind.partition('/')[2], *map(shape, part.iter_parts())]


def one_space(text):
    return ' '.join(text.split())


def no_space(text):
    """The library puts a space between two encoded words of a name."""
    return ''.join(text.split())


def test_a_small_message_is_readable_to_the_last_byte():
    assert rendered(an_email(
        from_name='The Shop', subject='Your order', content='Hello\nAnn\n',
        cc=[Address(email='b@example.org', name='Ash, "Bo"')],
        bcc=['hidden@example.org'], reply_to=['help@example.com'],
        headers={'X-Order': '4711'}), **{'X-Ours': '1'}) == (
        b'From: The Shop <shop@example.com>\r\n'
        b'To: ann@example.org\r\n'
        b'Cc: "Ash, \\"Bo\\"" <b@example.org>\r\n'
        b'Reply-To: help@example.com\r\n'
        b'Subject: Your order\r\n'
        b'Date: Fri, 15 Jan 2027 08:00:00 +0000\r\n'
        b'Message-ID: <id-1@example.com>\r\n'
        b'X-Order: 4711\r\n'
        b'X-Ours: 1\r\n'
        b'MIME-Version: 1.0\r\n'
        b'Content-Type: text/plain; charset="us-ascii"\r\n'
        b'Content-Transfer-Encoding: 7bit\r\n'
        b'\r\n'
        b'Hello\r\nAnn\r\n')


@pytest.mark.parametrize('html, files, expected', [
    (None, '', 'text/plain'),
    ('<p>', '', ['alternative', 'text/plain', 'text/html']),
    (None, 'a', ['mixed', 'text/plain', 'image/png']),
    (None, 'i', ['mixed', 'text/plain', 'image/png']),
    ('<p>', 'i', ['alternative', 'text/plain',
                  ['related', 'text/html', 'image/png']]),
    ('<p>', 'aia', ['mixed', ['alternative', 'text/plain', [
        'related', 'text/html', 'image/png']], 'image/png', 'image/png']),
])
def test_the_parts_nest_as_readers_expect(html, files, expected):
    fields = {'html': html} if html else {}
    message = parsed(an_email(**fields, attachments=[
        {'filename': f'{number}.png', 'content_type': 'image/png',
         'content': b'x', **({'content_id': str(number)}
                             if kind == 'i' else {})}
        for number, kind in enumerate(files)]))
    assert shape(message) == expected


@pytest.mark.parametrize(
    'case', [pytest.param(case, id=case['name']) for case in EMAILS])
def test_no_line_is_too_long_and_none_ends_wrong(case):
    email = submission(case['email']).email()
    if 'mailgun' in case.get('unsupported', {}) and not all(
            a.is_ascii for a in email.everyone):
        with pytest.raises(CannotCarry):
            rendered(email)
        return
    message = rendered(email)
    assert b'\n' not in message.replace(b'\r\n', b'')
    assert b'\r' not in message.replace(b'\r\n', b'')
    assert max(map(len, message.split(b'\r\n'))) <= 998
    assert message.isascii()
    assert b'hidden@' not in message
    header = message.partition(b'\r\n\r\n')[0].split(b'\r\n')
    assert all(line.strip() for line in header)
    long = [line for line in header if len(line) > 76 and b' ' in
            line.strip().partition(b': ')[2]]
    assert not long
    assert not [line for line in header if len(line) > 76 and b'=?' in line]


@pytest.mark.parametrize('text', [
    'word ' * 300, 'x' * 20_000, '<p>' + 'Grüße aus München. ' * 20 + '</p>',
    'ü' * 2000, 'a\rb\nc\r\nd ' * 200])
def test_a_body_without_line_breaks_gets_none_that_is_bare(text):
    message = rendered(an_email().model_copy(update={'content': text}))
    assert b'\n' not in message.replace(b'\r\n', b'')
    assert max(map(len, message.split(b'\r\n'))) <= 998
    told = message_from_bytes(message, policy=policy.SMTP)
    read = told.get_body(['plain']).get_content().replace('\r\n', '\n')
    assert read.rstrip('\n') == re.sub('\r\n?', '\n', text)


@given(subject=HEADER_TEXT, name=HEADER_TEXT, value=HEADER_TEXT,
       sender=HEADER_TEXT)
def test_any_text_in_a_header_is_read_as_it_was_written(
        subject, name, value, sender):
    fields = {'subject': subject, 'from_name': sender, 'cc': (
        Address.model_construct(email='cy@example.org', name=name),),
        'headers': {'X-Any': value}}
    message = parsed(an_email().model_copy(update=fields))
    assert one_space(str(message['Subject'] or '')) == one_space(subject)
    assert one_space(str(message['X-Any'])) == one_space(value)
    assert no_space(message['From'].addresses[0].display_name) == (
        no_space(sender))
    assert no_space(message['Cc'].addresses[0].display_name) == (
        no_space(name))
    assert message['Cc'].addresses[0].addr_spec == 'cy@example.org'
    assert message.keys()[-3:] == ['MIME-Version', 'Content-Type',
                                   'Content-Transfer-Encoding']


@given(text=st.text(st.characters(exclude_characters='\0\r',
                                  exclude_categories=('Cs',)), min_size=1),
       html=st.text(st.characters(exclude_characters='\0\r',
                                  exclude_categories=('Cs',)), min_size=1))
def test_any_body_is_read_as_it_was_written(text, html):
    read = read_message(rendered(an_email(content=text, html=html)))
    assert read['text'].replace('\r\n', '\n') == text
    assert read['html'].replace('\r\n', '\n') == html


@given(name=HEADER_TEXT.filter(bool), content=st.binary(max_size=200))
def test_any_file_is_read_as_it_was_written(name, content):
    email = an_email().model_copy(update={'attachments': an_email(
        attachments=[{'filename': 'x', 'content': content}]).attachments})
    file = email.attachments[0].model_copy(update={'filename': name})
    email = email.model_copy(update={'attachments': (file,)})
    assert read_message(rendered(email))['files'] == [
        (name, 'application/octet-stream', content)]


def test_a_long_word_in_a_header_is_not_touched():
    link = f'<https://example.com/{"u" * 800}>'
    message = rendered(an_email(headers={'List-Unsubscribe': link}))
    assert f'List-Unsubscribe: {link}\r\n'.encode() in message


def test_a_word_that_fits_on_no_line_is_encoded():
    message = rendered(an_email(headers={'X-Long': 'x' * 2000}))
    assert max(map(len, message.split(b'\r\n'))) <= 76
    assert read_message(message)['headers'] == {'X-Long': 'x' * 2000}


@pytest.mark.parametrize('value', [
    'x' * 70 + ' ' * 20, ' ' * 2000 + 'x', 'x ' * 900, ' ' * 60 + 'x' * 60])
def test_no_line_of_a_header_is_of_mere_spaces(value):
    message = rendered(an_email(headers={'X-Spaces': value}))
    header = message.partition(b'\r\n\r\n')[0].split(b'\r\n')
    assert all(line.strip() and len(line) <= 998 for line in header)
    assert one_space(read_message(message)['headers']['X-Spaces']) == (
        one_space(value))


def test_a_forwarded_message_is_not_encoded():
    inner = 'From: a@example.com\nSubject: Grüße\n\nHällo\n'.encode()
    message = rendered(an_email(attachments=[
        {'filename': 'f.eml', 'content_type': 'message/rfc822',
         'content': inner}]))
    assert inner.replace(b'\n', b'\r\n') in message
    assert b'Content-Transfer-Encoding: 8bit' in message


@pytest.mark.parametrize('changes', [
    {'subject': 'Hi\r\nBcc: x@example.com'},
    {'subject': 'Hi\nX-A: b'},
    {'subject': 'Hi\r\n\r\nbody'},
    {'from_name': 'A\r\nX-Evil: 1'},
    {'headers': {'X-A': 'b\r\nX-Evil: 1'}},
    {'headers': {'X-A: b\r\nX-Evil': '1'}},
    {'headers': {'X A': '1'}},
    {'from_email': 'a@example.com>, <b@example.com'},
    {'from_email': 'a@example.com\r\nBcc: <b@example.com'},
    {'from_email': 'ä@example.com'},
], ids=repr)
def test_what_would_be_read_otherwise_is_not_rendered(changes):
    """The door refuses all this; a message is not built on trust in it."""
    with pytest.raises(CannotCarry):
        rendered(an_email().model_copy(update=changes))


@pytest.mark.parametrize('file', [
    {'content_type': 'message/rfc822', 'content': b'x' * 999},
    {'content_type': 'message/rfc822', 'content': b'a\0b'},
    {'content_type': 'text/plain; name="ä"', 'content': b'x'},
], ids=repr)
def test_a_file_that_a_message_cannot_hold_is_told(file):
    with pytest.raises(CannotCarry, match='^attachments: '):
        rendered(an_email().model_copy(update={'attachments': (
            Attachment.model_construct(
                filename='a', content_id=None, **file),)}))
