"""What an answer is read as: strict JSON, text, and when to come back."""

import json
import time

import pytest

from stampman.services.transport import Answer, Request, Transport

from calling import PLENTY, REAL, call
from servers import Recorder

NOW = 1_800_000_000.0       # seconds since the epoch: the next line's time
DATE = 'Fri, 15 Jan 2027 08:00:00 GMT'
IN_TWO_MINUTES = 'Fri, 15 Jan 2027 08:02:00 GMT'


def answer(body=b'', **headers):
    return Answer(200, {name.replace('_', '-'): value
                        for name, value in headers.items()}, body)


@pytest.mark.parametrize('body, value', [
    (b'{"id": "a", "n": [1, -2.5, true, null]}',
     {'id': 'a', 'n': [1, -2.5, True, None]}),
    (b'[]', []),
    (b'"\\ud83d\\ude00 \xc3\xa4"', '\U0001f600 ä'),
    (b'[' * 32 + b']' * 32, json.loads('[' * 32 + ']' * 32)),
    (b'"' + b'[{' * 100 + b'\\"[' * 100 + b'"', '[{' * 100 + '"[' * 100),
    (b'[' + b'[],' * 500 + b'[]]', [[]] * 501),
])
def test_json_is_read_as_what_it_says(body, value):
    assert answer(body).json == value


@pytest.mark.parametrize('body', [
    b'', b'null', b'<html>502 Bad Gateway</html>', b'{"id": "a"', b'{} {}',
    b'{"id": "a", "id": "b"}', b'[{"deep": {"id": 1, "id": 1}}]',
    b'NaN', b'{"n": Infinity}', b'[-Infinity]', b'{"n": 1e400}',
    b'{"n": ' + b'9' * 5000 + b'}', b'9' * 101,
    b'[' * 33 + b']' * 33, b'[' * 10_000, b'[' * 10_000 + b']' * 10_000,
    b'{"a":' * 10_000 + b'1' + b'}' * 10_000,
    b'["' + b'\\"' * 40 + b'"' + b',[' * 40,
    b'{"id": "\xff"}', b'\xef\xbb\xbf{}', b'{"id": "\\ud800"}',
    b'{"id": "a\nb"}', '{}'.encode('utf-16'),
])
def test_what_is_not_strict_json_is_none_and_never_an_exception(body):
    assert answer(body).json is None


def test_text_is_the_body_as_far_as_it_can_be_read():
    assert answer(b'caf\xc3\xa9 \xff').text == 'café \ufffd'


def test_headers_are_found_in_any_case():
    assert answer(X_Message_Id='a').headers['x-message-ID'] == 'a'


@pytest.mark.parametrize('asked, seconds', [
    ('120', 120), (' 120 ', 120), ('0', 1), ('007', 7), ('3600', 3600),
    ('3601', 3600), ('1000000000000', 3600), ('9' * 5000, 3600),
    ('30, 30', 30),
    (IN_TWO_MINUTES, 120),
    (f'{IN_TWO_MINUTES}, {IN_TWO_MINUTES}', 120),
    ('Thu, 01 Jan 2026 00:00:00 GMT', 1),
    ('Tue, 01 Jan 2999 00:00:00 GMT', 3600),
    (None, None), ('', None), ('-5', None), ('+5', None), ('1.5', None),
    ('1e9', None), ('soon', None), ('5 seconds', None), ('٣', None),
    ('³', None), ('30, 60', None), (f'{DATE}, {IN_TWO_MINUTES}', None),
    ('Fri, 99 Jan 2027 08:02:00 GMT', None),
    ('Fri, 15 Foo 2027 08:02:00 GMT', None),
    ('Fri, 15 Jan 2027 08:02:00 +0100', None),
])
def test_retry_after_is_seconds_from_1_to_3600_or_none(asked, seconds):
    headers = {'Date': DATE} | ({} if asked is None
                                else {'Retry-After': asked})
    assert answer(**headers).retry_after == seconds


@pytest.mark.parametrize('date', [{}, {'Date': 'yesterday'}])
def test_a_date_without_the_answers_own_is_held_against_our_clock(date):
    headers = {'Retry-After': IN_TWO_MINUTES, **date}
    at = Answer(503, headers, b'', received_at=NOW)
    assert at.retry_after == 120
    assert Answer(503, headers, b'').retry_after is None


def test_the_clock_of_a_provider_may_be_wrong_by_a_day():
    tomorrow = {'Date': 'Sat, 16 Jan 2027 08:00:00 GMT',
                'Retry-After': 'Sat, 16 Jan 2027 08:02:00 GMT'}
    assert Answer(503, tomorrow, b'', received_at=NOW).retry_after == 120


def test_the_answer_of_a_call_knows_when_it_came():
    with Recorder() as provider:
        provider.answer(503, b'', {'Retry-After': '7'})
        before = time.time()
        answered = call(provider.url)
        assert before <= answered.received_at <= time.time()
        assert answered.retry_after == 7


@pytest.mark.parametrize('status, body', [
    (200, b'<html>hello</html>'), (200, b''), (200, b'null'), (200, b'[]'),
    (200, b'{"id": 5}'), (204, b''), (304, b''), (500, b'<b>oops</b>'),
    (299, b'{'), (600, b'')])
def test_whatever_a_provider_says_over_http_is_an_answer(status, body):
    with Recorder() as provider:
        provider.answer(status, body)
        answered = call(provider.url)
    assert (answered.status, answered.body, answered.complete) == (
        status, body, True)


@pytest.mark.parametrize('size, kept, complete', [
    (65_535, 65_535, True), (65_536, 65_536, True), (65_537, 65_536, False)])
def test_64_kb_of_a_body_are_kept(size, kept, complete):
    with Recorder() as provider:
        provider.answer(200, b'x' * size)
        answered = call(provider.url)
    assert (len(answered.body), answered.complete) == (kept, complete)


@pytest.mark.parametrize('size, kept, complete', [
    (0, 0, True), (65_537, 65_537, True), (100_000, 100_000, True),
    (100_001, 100_000, False), (2_000_000, 100_000, False)])
def test_a_request_may_ask_for_more_of_a_body(size, kept, complete):
    with Recorder() as provider:
        provider.answer(200, b'x' * size)
        answered = Transport(REAL).call(Request(
            'GET', provider.url, {}, max_answer=100_000),
            REAL.monotonic() + PLENTY)
    assert (len(answered.body), answered.complete) == (kept, complete)
