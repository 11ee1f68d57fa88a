"""What a client submits becomes an Email, or every mistake is named."""

import json
import time

import pytest
from hypothesis import example, given, strategies as st

from stampman.helpers.exceptions import InvalidFields
from stampman.helpers.mail import Address, Email, Limits, submission

ALLOWED = {'from_email': 'a@example.com', 'recipients': 'b@example.org',
           'content': 'Hello'}
NO_ADDRESS = 'is not an email address'
AN_ADDRESS = 'must be an address: a string, or an object of email and name'
NULL = 'must not be null: leave it out'
ABSENT = object()


def submitted(**fields):
    return submission({name: value for name, value in
                       {**ALLOWED, **fields}.items() if value is not ABSENT})


def errors_of(**fields):
    """Return what is wrong, by field; one mistake is one error."""
    with pytest.raises(InvalidFields) as raised:
        submitted(**fields)
    found = dict(raised.value.errors)
    assert len(found) == len(raised.value.errors), raised.value.errors
    return found


def test_the_least_that_can_be_sent():
    email = submitted().email()
    assert email == Email(
        from_email='a@example.com', content='Hello',
        recipients=(Address(email='b@example.org'),))
    assert type(email) is Email


def test_everything_that_can_be_said_arrives_as_it_was_said():
    given_fields = {
        'from_email': 'a@example.com', 'from_name': 'Ä, "B" <c>',
        'recipients': [{'email': 'b@example.org', 'name': ' B '}],
        'cc': [{'email': 'c@example.org', 'name': ''}],
        'bcc': [{'email': 'd@example.org', 'name': 'D'}],
        'reply_to': [{'email': 'e@example.org', 'name': 'E'}],
        'subject': '  Zwölf =?utf-8?q?=41?= 🎉 ', 'content': 'text\r\n\t',
        'html': '<p>html</p>', 'headers': {'X-Order': ' 7 ', 'x-y': ''},
        'attachments': [
            {'filename': '../ä".pdf', 'content_type': 'application/pdf',
             'content': 'AAEC', 'content_id': 'logo'},
            {'filename': 'b', 'content_type': 'text/plain', 'content': ''}],
        'tags': ['one', 'zwei'], 'metadata': {'order': '7', 'é': ''},
        'track_opens': True, 'track_clicks': False,
        'expires_at': '2026-01-31T12:00:00Z', 'on_uncertain': 'hold'}
    found = submission(given_fields)
    assert json.loads(found.model_dump_json(exclude_none=True)) == given_fields
    assert found.attachments[0].content == b'\x00\x01\x02'
    assert found.expires_at.timestamp() == 1769860800
    assert found.inline == found.attachments[:1]
    assert found.attached == found.attachments[1:]
    assert [a.email[0] for a in found.everyone] == ['b', 'c', 'd']


@pytest.mark.parametrize('fields', [
    {'from': 'A B <a@example.com>'},
    {'from_email': 'A B <a@example.com>'},
    {'from': {'email': 'a@example.com', 'name': 'A B'}},
    {'from_email': {'email': 'a@example.com', 'name': 'A B'}},
    {'from': 'a@example.com', 'from_name': 'A B'},
    {'from_email': 'a@EXAMPLE.com', 'from_name': 'A B'}])
def test_the_sender_may_be_written_in_every_form(fields):
    sender = submission(
        {'to': 'b@example.org', 'text': 'Hello', **fields}).sender
    assert sender == Address(email='a@example.com', name='A B')


@pytest.mark.parametrize('value', [
    'B <b@example.org>', ['B <b@example.org>'],
    {'email': 'b@example.org', 'name': 'B'},
    [{'email': 'b@example.org', 'name': 'B'}]])
@pytest.mark.parametrize('field', ['recipients', 'cc', 'bcc', 'reply_to'])
def test_recipients_may_be_written_in_every_form(field, value):
    others = {'recipients': 'another@example.org'}
    assert getattr(submitted(**{**others, field: value}), field) == (
        Address(email='b@example.org', name='B'),)


def test_one_mailbox_gets_one_copy():
    found = submitted(
        recipients=['B <b@example.org>', 'B@EXAMPLE.ORG', 'c@example.org'],
        cc=['C@example.org', 'd@example.org', 'd@example.org'],
        bcc=['b@example.org', 'D@Example.org', 'e@example.org'],
        reply_to=['b@example.org', 'B@example.org'])
    assert [a.email for a in found.recipients] == [
        'b@example.org', 'c@example.org']
    assert [a.email for a in found.cc] == ['d@example.org']
    assert [a.email for a in found.bcc] == ['e@example.org']
    assert [a.email for a in found.reply_to] == ['b@example.org']


@pytest.mark.parametrize('field', ['recipients', 'cc', 'bcc'])
def test_any_one_of_to_cc_and_bcc_is_enough(field):
    found = submitted(**{'recipients': ABSENT, field: 'x@example.org'})
    assert [a.email for a in found.everyone] == ['x@example.org']


def test_html_alone_is_enough():
    assert submitted(content=ABSENT, html='<p>').html == '<p>'


WRONG = [
    # The sender.
    ({'from_email': ABSENT}, {'from_email': 'is required'}),
    ({'from_email': None}, {'from_email': NULL}),
    ({'from_email': 5}, {'from_email': 'must be a string'}),
    ({'from_email': ['a@b.co']}, {'from_email': 'must be a string'}),
    ({'from_email': 'x'}, {'from_email': NO_ADDRESS}),
    ({'from_email': 'a@b.co, c@d.co'}, {'from_email': NO_ADDRESS}),
    ({'from_email': 'A\n <a@b.co>'}, {'from_email': 'U+000A'}),
    ({'from_email': {'name': 'A'}}, {'from_email.email': 'is required'}),
    ({'from_email': {'email': 'x', 'name': '\x85', 'nom': ''}},
     {'from_email.email': NO_ADDRESS, 'from_email.name': 'U+0085',
      'from_email.nom': 'is not a field'}),
    ({'from_email': {'email': 'x', 'name': '\x85'}},
     {'from_email.email': NO_ADDRESS, 'from_email.name': 'U+0085'}),
    ({'from_email': 'A <a@b.co>', 'from_name': 'B'},
     {'from_name': 'is given in "from_email" already'}),
    ({'from_email': ABSENT, 'from': 'x'}, {'from': NO_ADDRESS}),
    ({'from_email': ABSENT, 'from': {'email': None, 'name': None}},
     {'from.email': 'must be a string', 'from.name': 'must be a string'}),
    ({'from': 'a@b.co'}, {'from': 'is the same field as "from_email"'}),
    ({'from_name': '\u2028'}, {'from_name': 'U+2028'}),
    # Recipients.
    ({'recipients': ABSENT}, {'recipients': 'at least one of'}),
    ({'recipients': []}, {'recipients': 'at least one of'}),
    ({'recipients': ABSENT, 'to': []}, {'to': 'at least one of'}),
    ({'recipients': None}, {'recipients': NULL}),
    ({'recipients': 5}, {'recipients': 'must be a list'}),
    ({'to': 'b@c.co'}, {'to': 'is the same field as "recipients"'}),
    ({'recipients': ['b@c.co', 'x', 5, None, ['b@c.co'], {}]},
     {'recipients[1]': NO_ADDRESS, 'recipients[2]': AN_ADDRESS,
      'recipients[3]': AN_ADDRESS, 'recipients[4]': AN_ADDRESS,
      'recipients[5].email': 'is required'}),
    ({'recipients': ABSENT, 'to': ['x']}, {'to[0]': NO_ADDRESS}),
    ({'cc': 'x', 'bcc': {'email': 'x', 'tel': ''}},
     {'cc': NO_ADDRESS, 'bcc.email': NO_ADDRESS, 'bcc.tel': 'is not a fie'}),
    ({'reply_to': ['N <x>', {'email': 'a@b.co', 'name': None}]},
     {'reply_to[0]': NO_ADDRESS, 'reply_to[1].name': 'must be a string'}),
    ({'bcc': 'a@b.co\r\nBcc: x@y.co'}, {'bcc': 'U+000D'}),
    # Texts.
    ({'subject': 'a\r\nBcc: x@y.co'}, {'subject': 'U+000D'}),
    ({'subject': '=?utf-8?q?=0A?='}, {'subject': 'must not hide control'}),
    ({'subject': 5}, {'subject': 'must be a string'}),
    ({'subject': '\ud800'}, {'subject': ''}),
    ({'content': ABSENT}, {'content': 'at least one of content and html'}),
    ({'content': ''}, {'content': 'must not be empty'}),
    ({'content': None}, {'content': NULL}),
    ({'content': 'a\x00', 'html': '\x00'},
     {'content': 'U+0000', 'html': 'U+0000'}),
    ({'content': ABSENT, 'text': []}, {'text': 'must be a string'}),
    # Headers, metadata, tags.
    ({'headers': []}, {'headers': 'must be an object'}),
    ({'headers': {'X-A\r\nBcc': 'x', 'X-B': 'a\nb', 'X-C': 5, 'To': 'x'}},
     {'headers.X-A\\r\\nBcc': 'is not a header name', 'headers.X-B': 'U+000A',
      'headers.X-C': 'must be a string', 'headers.To': 'cannot be set here'}),
    ({'headers': {'X-A': '1', 'x-a': '2'}}, {'headers': 'same header twice'}),
    ({'metadata': {'stampman_id': 'x', '': 'x', 'n': 5, 'c': '\x7f'}},
     {'metadata.stampman_id': 'must not begin', 'metadata.': 'not be empty',
      'metadata.n': 'must be a string', 'metadata.c': 'U+007F'}),
    ({'tags': 'x'}, {'tags': 'must be a list'}),
    ({'tags': ['', 5, '\t']}, {'tags[0]': 'must not be empty',
                               'tags[1]': 'must be a string',
                               'tags[2]': 'U+0009'}),
    # Attachments.
    ({'attachments': {}}, {'attachments': 'must be a list'}),
    ({'attachments': [5, {}, {'filename': '', 'content': 'Q Q=',
                              'content_type': 'multipart/x',
                              'content_id': None, 'size': 1}]},
     {'attachments[0]': 'must be an object',
      'attachments[1].filename': 'is required',
      'attachments[1].content': 'is required',
      'attachments[2].filename': 'must not be empty',
      'attachments[2].content': 'must be a string of base64',
      'attachments[2].content_type': 'must not be a multipart type',
      'attachments[2].content_id': NULL,
      'attachments[2].size': 'is not a field'}),
    ({'attachments': [{'filename': 'a\n', 'content': '',
                       'content_type': 'a/b\r\nX: y', 'content_id': 'a\n'}]},
     {'attachments[0].filename': 'U+000A',
      'attachments[0].content_type': 'U+000D',
      'attachments[0].content_id': 'U+000A'}),
    ({'attachments': [{'filename': 'a', 'content': '', 'content_id': 'x'},
                      {'filename': 'b', 'content': '', 'content_id': '<x>'}]},
     {'attachments': 'same content_id twice'}),
    # The rest.
    ({'track_opens': 1, 'track_clicks': 'true'},
     {'track_opens': 'must be true or false',
      'track_clicks': 'must be true or false'}),
    ({'on_uncertain': 'retry'}, {'on_uncertain': "'hold' or 'failover'"}),
    ({'expires_at': '2026-01-31'}, {'expires_at': 'must be a time like'}),
    ({'send_at': '2026-01-31T12:00:00'}, {'send_at': 'must be a time like'}),
    ({'colour': 'red', 'a\nb': 1, '': 2},
     {'colour': 'is not a field', 'a\\nb': 'is not a field',
      '': 'is not a field'}),
    ({name: None for name in Email.model_fields},
     {name: NULL for name in Email.model_fields}),
    ({'subject': [[[[]]]], 'cc': [[[[]]]], 'tags': {'a': {'b': {}}}},
     {'subject': 'must be a string', 'cc[0]': AN_ADDRESS,
      'tags': 'must be a list'}),
    # All of them at once.
    ({'from_email': 'x', 'recipients': 'x', 'subject': 5, 'html': 5, 'x': 5},
     {'from_email': NO_ADDRESS, 'recipients': NO_ADDRESS, 'html': 'must be',
      'subject': 'must be a string', 'x': 'is not a field'}),
]


@pytest.mark.parametrize('fields, expected', WRONG)
def test_each_mistake_is_named_once_as_the_client_called_it(fields, expected):
    found = errors_of(**fields)
    assert set(found) == set(expected)
    for field, message in expected.items():
        assert message in found[field]


LIMITS = Limits(recipients=3, attachments=2, headers=2)
FILE = {'filename': 'a', 'content': ''}


@pytest.mark.parametrize('fields, field', [
    ({'recipients': ['b@c.co'] * 4}, 'recipients'),
    ({'recipients': ['b@c.co'] * 3, 'bcc': 'd@c.co'}, 'recipients'),
    ({'recipients': {'email': 'b@c.co'}, 'cc': ['x', 'y', 'z']},
     'recipients'),
    ({'recipients': ABSENT, 'cc': ['x'] * 4}, 'cc'),
    ({'recipients': ABSENT, 'to': ['x'] * 4, 'cc': ['x'] * 4}, 'to'),
    ({'reply_to': ['x'] * 4}, 'reply_to'),
    ({'attachments': [FILE] * 3}, 'attachments'),
    ({'headers': {'X-A': '', 'X-B': '', 'X-C': ''}}, 'headers')])
def test_what_is_over_a_limit_is_one_error(fields, field):
    data = {name: value for name, value in {**ALLOWED, **fields}.items()
            if value is not ABSENT}
    with pytest.raises(InvalidFields) as raised:
        submission(data, LIMITS)
    (found, message), = raised.value.errors
    assert found == field and message.startswith('at most ')


def test_what_is_at_a_limit_is_allowed():
    found = submission({
        **ALLOWED, 'recipients': ['b@c.co', 'd@c.co'], 'cc': 'e@c.co',
        'attachments': [FILE] * 2, 'headers': {'X-A': '', 'X-B': ''}}, LIMITS)
    assert len(found.everyone) == 3


def test_a_thousand_recipients_are_read_and_a_hundred_thousand_counted():
    many = [f'Näme {n} <user{n}@bücher{n % 9}.example>' for n in range(1000)]
    began = time.process_time()
    assert len(submitted(recipients=many).recipients) == 1000
    assert list(errors_of(recipients=many * 100)) == ['recipients']
    assert time.process_time() - began < 2      # measured: 0.2


def test_an_email_is_never_altered():
    email = submitted().email()
    with pytest.raises(ValueError, match='frozen'):
        email.subject = 'another'


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.text(max_size=6) | st.sampled_from(['email', 'name', 'filename']),
        inner, max_size=3), max_leaves=8)
NAMES = st.sampled_from([*Email.model_fields, 'to', 'from', 'text',
                         'send_at', 'expires_at', 'on_uncertain'])


@given(st.dictionaries(NAMES | st.text(max_size=4), JSON))
@example({'headers': {'\ud800': '\ud800'}, '\ud800': 1})
def test_whatever_is_submitted_the_answer_is_an_email_or_its_errors(data):
    try:
        found = submission(data)
    except InvalidFields as error:
        assert error.errors
        for field, message in error.errors:
            assert message and f'{field}{message}'.encode()
    else:
        assert found.everyone and (found.content or found.html)


@given(st.text(), st.text(), st.text(min_size=1), st.text(min_size=1))
def test_text_that_is_accepted_is_kept_to_the_character(
        name, subject, html, value):
    try:
        found = submitted(from_name=name, subject=subject, html=html,
                          headers={'X-A': value}, tags=[value],
                          metadata={'a': value})
    except InvalidFields:
        return
    assert (found.from_name, found.subject, found.html) == (
        name, subject, html)
    assert found.headers['X-A'] == found.tags[0] == value
    assert found.metadata['a'] == value
