"""Text that ends up in an email can name, alter or hide no header."""

import base64
from datetime import datetime, timedelta, timezone
from email import message_from_bytes, policy
from email.headerregistry import Address
from email.message import EmailMessage

import email_validator
import pytest
from hypothesis import example, given, settings, strategies as st

from stampman.helpers import syntax

CONTROLS = [*map(chr, range(0x20)), *map(chr, range(0x7f, 0xa0)),
            '\u2028', '\u2029', '\ud800', '\udfff']


def refused(function, value):
    try:
        function(value)
    except ValueError:
        return True
    return False


def word(raw, encoding='b', charset='utf-8'):
    if encoding in 'bB':
        content = base64.b64encode(raw).decode()
    else:
        content = ''.join(f'={byte:02X}' for byte in raw)
    return f'=?{charset}?{encoding}?{content}?='


@pytest.mark.parametrize('control', CONTROLS, ids=lambda c: f'{ord(c):04X}')
def test_no_control_character_passes_plain_or_encoded(control):
    for text in (control, f'a{control}b', f'{control}Bcc: x@example.org'):
        assert refused(syntax.header_safe, text)
    if control.isprintable() or control < '\ud800' or control > '\udfff':
        for encoding in 'bBqQ':
            assert refused(syntax.header_safe,
                           'x ' + word(control.encode(), encoding))


@pytest.mark.parametrize('text', [
    # The subject that made a real Bcc (CVE-2024-6923).
    'A \N{PILE OF POO} s=?UTF-8?Q?=0A?=Bcc: x@example.org',
    '=?utf-8?q?==0A?=', '=?utf-8?Q?x=0d=0aBcc:_y?=',
    '=?utf-7?q?+AAo-?=', '=?utf-16?b?' + base64.b64encode(
        'a\nb'.encode('utf-16')).decode() + '?=', '=?cp037?q?=25?=',
    '=?utf-8*en?q?=0A?=', '=?utf-8?b?Cg?=', '=?utf-8?b?C_g==?=',
    '=?a?=?utf-8?q?=0A?=', '=?utf-8?q?ok?==?utf-8?q?=0A?=',
    '=?utf-8?q?=3D=3Futf-8=3Fq=3F=3D0A=3F=3D?=',
    # No meaning: what a MIME library makes of it nobody knows.
    '=?utf-8?b?A?=', '=?utf-8?q?=FF?=', '=?no-such?q?a?=', '=??q?a?=',
    '=?base64?q?a?=', '=?unicode_escape?q?=5Cn?=', '=?utf-8?q?\xe9?='])
def test_no_encoded_word_hides_a_control_character(text):
    assert refused(syntax.header_safe, text)


@pytest.mark.parametrize('text', [
    '', ' ', 'Hello', 'Grüße, 世界 🎉', 'a "quoted" <thing>; \\ yes',
    '\u202e bidi and zero\u200bwidth are kept \u2066', 'What? =? ?=',
    '=?utf-8?q?J=C3=BCrgen?=', '=?ISO-8859-1?B?SvxyZ2Vu?=', '=?x?y?z?=',
    '1 =? 2', '?='])
def test_ordinary_text_passes_as_it_is(text):
    assert syntax.header_safe(text) == text


@pytest.mark.parametrize('value', [None, 5, b'x', ['x'], {}])
def test_what_is_no_text_is_refused(value):
    assert refused(syntax.header_safe, value)


PIECES = st.sampled_from([
    '=?', '?=', '?', '=', '_', 'utf-8', '=?utf-8?q?', '=?utf-8?b?', '=0A',
    '=0D=0A', 'Cg==', '\r\n', '\n', ' ', '\t', 'Bcc:', ' x@example.org',
    '\x85', '\u2028', '"', '<', '>', ',', ';', '=?iso-8859-1?Q?=E9?=',
    'x' * 90, 'é', '🎉'])
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=8)), max_size=12).map(
    ''.join)


@given(TEXTS, TEXTS, TEXTS)
@example('=?utf-8?q?hello?= ' * 20, 'x' * 200, 'é' * 80)
@example('A 💩 s=?UTF-8?Q?=41?=Bcc: x@example.org', '', '=?utf-8?q?a?=')
def test_what_passes_adds_no_header(subject, name, value):
    texts = [text for text in (subject, name, value)
             if not refused(syntax.header_safe, text)]
    if len(texts) < 3:
        return
    email = EmailMessage(policy=policy.SMTP)
    email['Subject'] = subject
    email['From'] = Address(name, addr_spec='a@example.com')
    email['X-Value'] = value
    email.set_content('text')
    written = message_from_bytes(email.as_bytes(), policy=policy.default)
    assert sorted(written.keys()) == sorted(email.keys())
    assert written.get_content().strip() == 'text'


@pytest.mark.parametrize('text, email', [
    ('jane@example.com', 'jane@example.com'),
    ('Jane.Doe+tag@EXAMPLE.com', 'Jane.Doe+tag@example.com'),
    ("o'neil!#$%&*/^_`{|}~@example.com", "o'neil!#$%&*/^_`{|}~@example.com"),
    ('a@bücher.example', 'a@xn--bcher-kva.example'),
    ('a@BÜCHER.example', 'a@xn--bcher-kva.example'),
    ('a@faß.de', 'a@xn--fa-hia.de'),
    ('a@bücher\u3002example', 'a@xn--bcher-kva.example'),
    ('a@xn--bcher-kva.example', 'a@xn--bcher-kva.example'),
    ('jürgen@example.com', 'jürgen@example.com'),
    ('ju\u0308rgen@example.com', 'jürgen@example.com'),
    ('a@x.test', 'a@x.test'), ('a@x.invalid', 'a@x.invalid')])
def test_an_address_is_kept_with_its_domain_as_a_label(text, email):
    assert syntax.address(text) == email


@pytest.mark.parametrize('text', [
    '', '@', 'a', 'a@', '@example.com', 'a@b', 'a@localhost', 'a@@b.co',
    'a@b@c.co', 'a@b.co>', '<a@b.co>', 'Jane <a@b.co>', 'a@b.co,c@d.co',
    'a@b.co c@d.co', 'a@b.co;', ' a@b.co', 'a@b.co ', 'a b@c.co',
    'a@[127.0.0.1]', 'a@[IPv6:::1]', 'a@127.0.0.1', '"a b"@c.co',
    '"a"@c.co', 'a(comment)@b.co', '.a@b.co', 'a.@b.co', 'a..b@c.co',
    'a@b..co', 'a@.b.co', 'a@b.co.', 'a@-b.co', 'a@b-.co', 'a@b_c.co',
    'a@💩.example', 'a@xn--zz.co', 'x' * 65 + '@b.co', 'a@' + 'b' * 64
    + '.co', 'a@' + 'b.' * 130 + 'co', 'x' * 10_000_000 + '@b.co',
    'a@b.co\n', 'a\x00@b.co', 'a@b.co\u200b', '\u202ea@b.co',
    '=?utf-8?q?a?=@b.co'], ids=lambda text: ascii(text[:20]))
def test_what_is_not_exactly_one_address_is_none(text):
    assert refused(syntax.address, text)


def parts(alphabet, longest):
    return st.lists(st.text(alphabet, min_size=1, max_size=longest),
                    min_size=1, max_size=4).map('.'.join)


_near_plain = st.tuples(
    parts('abz09_+-', 30) | parts("aZ0.-='/{ ", 6) | st.sampled_from(
        ['info', 'INFO', 'Abuse', 'a' * 64, 'a' * 65]),
    st.sampled_from('@@@@@.'),
    parts('abz09-', 12) | parts('axn-', 6) | parts('aZ9-_@ü', 4)
    | st.sampled_from(['b' * 63, 'b' * 64, f'{"b" * 59}.c', 'b.9', 'x-']),
    st.just('.com') | st.sampled_from(
        ['', '.c', '.COM', '.c-m', '.c9', '.9', '.', '\n', '.com\n', '.de>']),
).map(''.join)


@given(_near_plain)
@example('a@xn--bcher-kva.example').via('a label of IDNA')
@example('a@ab--c.com').via('a label of the kind that IDNA reserves')
@example(f'{"a" * 64}@{"b" * 59}.com').via('the longest that is plain')
@example(f'{"a" * 64}@{"b" * 60}.com').via('longer than that')
@example(f'a@{".".join(["b" * 63] * 4)}.com').via('a domain too long')
@settings(max_examples=600, deadline=None)
def test_an_address_is_what_email_validator_says(text):
    # Plain ones are taken without asking it: that must not be seen.
    try:
        valid = email_validator.validate_email(
            text, check_deliverability=False, strict=True)
    except email_validator.EmailNotValidError:
        assert refused(syntax.address, text)
    else:
        assert syntax.address(text) == (
            f'{valid.local_part}@{valid.ascii_domain}')


@pytest.mark.parametrize('text, name, email', [
    ('a@b.co', None, 'a@b.co'), ('<a@b.co>', '', 'a@b.co'),
    ('Jane <a@b.co>', 'Jane', 'a@b.co'), ('Jane<a@b.co>', 'Jane', 'a@b.co'),
    (' Jane  Doe  <a@b.co> ', 'Jane  Doe', 'a@b.co'),
    ('"Doe, Jane" <a@b.co>', 'Doe, Jane', 'a@b.co'),
    (r'"J \"The\" \\D" <a@b.co>', r'J "The" \D', 'a@b.co'),
    ('"" <a@b.co>', '', 'a@b.co'), ('Jürgen (x) <a@b.co>', 'Jürgen (x)',
                                    'a@b.co')])
def test_a_named_address_is_taken_apart(text, name, email):
    expected = {'email': email}
    assert syntax.split_address(text) == (
        expected if name is None else {**expected, 'name': name})


@pytest.mark.parametrize('text', [
    'a@b.co, Jane <c@d.co>', 'Jane <a@b.co>, <c@d.co>', 'Doe, J <a@b.co>',
    'x <y> <a@b.co>', '"a" b <a@b.co>', 'a@b.co <a@b.co>', 'J\n <a@b.co>',
    'group: a <a@b.co>', '=?utf-8?q?=0A?= <a@b.co>', 'back\\slash <a@b.co>'])
def test_a_name_that_could_be_a_second_address_is_refused(text):
    assert refused(syntax.split_address, text)


@pytest.mark.parametrize('name', [
    'X-A\r\nBcc', 'X A', 'X:A', '', 'Ünicode', 'X\x00', 'X-' + 'a' * 200,
    'Bcc', 'bCC', 'From', 'To', 'Cc', 'Reply-To', 'Sender', 'Subject',
    'Date', 'Message-ID', 'Received', 'Return-Path', 'MIME-Version',
    'DKIM-Signature', 'ARC-Seal', 'Content-Type', 'Content-Whatever',
    'Resent-Bcc', 'X-Stampman-Id', 'X-SMTPAPI', 'X-SG-EID', 'X-MC-Tags',
    'X-Mailgun-Drop-Message', 'X-SES-CONFIGURATION-SET', 'X-PM-Tag',
    'X-MSYS-API', 'X-MJ-CustomID', 'X-Mailin-custom', 'Apparently-To'])
def test_these_header_names_are_refused(name):
    assert refused(syntax.header_name, name)


@pytest.mark.parametrize('name', [
    'X-Order', 'List-Unsubscribe', 'In-Reply-To', 'References', 'x_y',
    'Importance', 'Auto-Submitted', 'X-Contents', 'X-Mailgunner'])
def test_these_header_names_stay_as_they_are(name):
    assert syntax.header_name(name) == name


@pytest.mark.parametrize('function, good, bad', [
    (syntax.content_type,
     ['text/plain', 'application/vnd.x+json', 'text/calendar; method=REQUEST',
      'text/plain; charset="utf-8"; format=flowed', 'message/rfc822'],
     ['', 'text', 'text/', '/x', 'text/plain;', 'text/plain; a',
      'multipart/mixed; boundary=x', 'Multipart/Alternative', 'a/b c',
      'text/plain; a="\u00fc"', 'text/pl\u00e4in', 'a/b; c="d', 'a/b/c']),
    (syntax.content_id,
     ['logo', 'logo@example.com', 'a.b-c_1'],
     ['', '<>', 'a b', 'a"b', '<a', 'a>b', 'ä', 'a\n']),
    (syntax.metadata_key,
     ['order', 'a b', 'ключ', 'Xstampman_'],
     ['', '  ', 'stampman_id', 'STAMPMAN_x']),
    (syntax.body_text,
     ['a\r\nb\tc\x85', '\u202e', ' '],
     ['\x00', 'a\ud800'])])
def test_the_rules_of_small_texts(function, good, bad):
    assert [function(text) for text in good] == good
    assert [text for text in bad if not refused(function, text)] == []


def test_a_content_id_loses_its_brackets():
    assert syntax.content_id('<logo@x>') == 'logo@x'


@given(st.binary(max_size=200))
def test_base64_gives_back_the_bytes(raw):
    assert syntax.base64_bytes(base64.b64encode(raw).decode()) == raw


@pytest.mark.parametrize('text', [
    'QQ', 'QQ=', 'QQ===', 'Q Q=', 'QQ==\n', 'QQ==QQ==', '*QQ=', '====',
    'QQ-_', 'QQ=Q', 'ÄQ==', None, 5, ['QQ==']])
def test_what_is_not_exactly_base64_is_refused(text):
    assert refused(syntax.base64_bytes, text)


@pytest.mark.parametrize('text, seconds', [
    ('1970-01-01T00:00:10Z', 10), ('1970-01-01t00:00:10z', 10),
    ('1970-01-01 01:00:10+01:00', 10), ('1970-01-01T00:00:10.5Z', 10.5),
    ('1970-01-01T00:00:10.123456789-00:00', 10.123456)])
def test_a_time_has_its_offset(text, seconds):
    assert syntax.rfc3339(text).timestamp() == pytest.approx(seconds)


@given(st.datetimes(timezones=st.sampled_from(
    [timezone.utc, timezone(timedelta(hours=-11, minutes=-30))])))
def test_every_time_written_by_the_rules_is_read(when):
    assert syntax.rfc3339(when.isoformat()) == when
    assert isinstance(syntax.rfc3339(when), datetime)


@pytest.mark.parametrize('text', [
    '', 'now', 0, None, '2026-01-31', '2026-01-31T12:00:00',
    '2026-01-31T12:00Z', '20260131T120000Z', '2026-02-30T12:00:00Z',
    '2026-01-31T25:00:00Z', '2026-01-31T12:00:60Z', '2026-W01-1T00:00:00Z',
    '0000-01-01T00:00:00Z', '2026-01-31T12:00:00+99:99',
    ' 2026-01-31T12:00:00Z', '２026-01-31T12:00:00Z'])
def test_what_is_not_a_whole_time_is_refused_in_one_way(text):
    with pytest.raises(ValueError, match='must be a time like "2026'):
        syntax.rfc3339(text)


@pytest.mark.parametrize('text', [
    '=?a?q?' * 200_000, '=?utf-8?q?' * 100_000 + '?=', ' ' * 1_000_000 + '>',
    '=?utf-8?b?' + 'A' * 1_000_000 + '?=', '<' * 1_000_000 + '>',
    '"' + '\\"' * 500_000 + ' <a@b.co>', '=?punycode?q?' + 'a-b' * 300_000
    + '?='], ids=lambda text: text[:12])
def test_a_long_text_takes_a_time_in_proportion(text):
    # Read in the square of its length, each would take hours.
    for function in (syntax.header_safe, syntax.split_address,
                     syntax.content_type, syntax.content_id):
        refused(function, text)
