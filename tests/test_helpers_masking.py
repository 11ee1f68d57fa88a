"""Addresses and secrets do not reach what people and logs get to read."""

import pytest
from hypothesis import given, strategies as st

from stampman.helpers.masking import (
    mask_addresses, one_line, redact, spellings)

LOCAL = st.text('abcXYZ019.+_-é', min_size=2, max_size=90)


@pytest.mark.parametrize('text, masked', [
    ('', ''), ('no address @ all', 'no address @ all'),
    ('<jane.doe@example.com>: unknown', '<j***@example.com>: unknown'),
    ('to=jane@x.co,kim@y.co;', 't***@x.co,k***@y.co;'),
    ('jane%40example.com', 'j***%40example.com'),
    ('x%40jane.doe@example.com', 'x***@example.com'),
    ('mailto:jane@x.co', 'mailto:j***@x.co'),
    ('ü@x.co and ' + 'y' * 99 + '@x.co', 'ü***@x.co and y***@x.co')])
def test_an_address_keeps_its_first_letter_and_its_domain(text, masked):
    assert mask_addresses(text) == masked


@given(st.text(), LOCAL, st.sampled_from(['@', '%40']), st.text())
def test_no_local_part_gets_through(before, local, at, after):
    masked = mask_addresses(f'{before} {local}{at}example.com {after}')
    assert f'{local}{at}example.com' not in masked


@pytest.mark.parametrize('text', [
    'a' * 2_000_000, '@' * 1_000_000, 'a@' * 500_000, '%40' * 500_000])
def test_a_long_text_takes_a_time_in_proportion(text):
    # Read in the square of its length, each would take hours.
    assert len(mask_addresses(text)) <= 2 * len(text)


def test_secrets_are_replaced_the_longest_first():
    assert redact('key-123456 and key-123456-long', [
        'key-123456', 'key-123456-long']) == '[secret] and [secret]'


@pytest.mark.parametrize('spelling', [
    'p%C3%A4ss/w%22rd', 'p%c3%a4ss%2fw%22rd', 'p%C3%A4ss%2Fw%22rd',
    'p\\u00e4ss/w\\"rd', 'päss/w\\"rd', 'päss\\/w"rd'])
def test_a_secret_is_found_in_each_of_its_spellings(spelling):
    assert redact(f'key {spelling}.', ['päss/w"rd']) == 'key [secret].'


def test_what_is_too_short_for_a_secret_does_not_blot_out_words():
    assert redact('a word', ['a', '', 'word']) == 'a word'
    assert spellings(['a', '', 'word']) == ()
    assert set(spellings(['short', 'longer', 'a b"c'])) == {
        'longer', 'a b"c', 'a%20b%22c', 'a b\\"c'}


@given(st.text())
def test_one_line_is_one_line(text):
    line = one_line(text)
    assert len(line.splitlines()) <= 1
    assert line == line.strip()
    assert not any(ord(character) < 32 for character in line)
