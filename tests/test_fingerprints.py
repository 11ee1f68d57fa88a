"""Fingerprints: what tells a submission from any other under one key."""

from datetime import UTC, datetime

import pytest

from stampman.helpers.mail import submission
from stampman.intake import idempotency_key

from backends import NOW

MAIL = {'from': 'Shop <shop@example.com>', 'to': 'a@example.org',
        'subject': 'Hello', 'text': 'Hi'}


def at(seconds):
    """Return a time as a client writes it, so many seconds from NOW."""
    return datetime.fromtimestamp(NOW + seconds, UTC).isoformat()


def mail(**fields):
    return submission({**MAIL, **fields})


SAME = {
    'aliases': {'from_email': 'shop@example.com', 'from_name': 'Shop',
                'recipients': ['a@example.org'], 'subject': 'Hello',
                'content': 'Hi'},
    'objects': {'from': {'email': 'shop@example.com', 'name': 'Shop'},
                'to': [{'email': 'a@example.org'}], 'subject': 'Hello',
                'text': 'Hi'},
    'another order': dict(reversed(MAIL.items())),
    'what is so anyway': {**MAIL, 'cc': [], 'tags': [], 'headers': {}}}


@pytest.mark.parametrize('fields', SAME.values(), ids=SAME)
def test_the_same_in_other_words_has_the_same_fingerprint(fields):
    assert submission(fields).fingerprint == mail().fingerprint


@pytest.mark.parametrize('changed', [
    {'to': 'b@example.org'}, {'subject': 'hello'}, {'text': 'Hi '},
    {'html': 'Hi'}, {'cc': 'b@example.org'}, {'reply_to': 'b@x.org'},
    {'headers': {'X-A': 'b'}}, {'tags': ['a']}, {'metadata': {'a': 'b'}},
    {'track_opens': True}, {'track_opens': False}, {'track_clicks': True},
    {'send_at': at(1)}, {'expires_at': at(1)}, {'on_uncertain': 'hold'},
    {'from': 'shop@example.com'},
    {'attachments': [{'filename': 'a', 'content': 'AA=='}]}])
def test_whatever_is_changed_has_another_fingerprint(changed):
    assert mail(**changed).fingerprint != mail().fingerprint


def test_attachments_are_told_apart_by_their_bytes():
    one, two = (mail(attachments=[{'filename': 'a', 'content': content}])
                for content in ('AA==', 'AQ=='))
    assert one.fingerprint != two.fingerprint


def test_neither_key_nor_content_can_be_read_from_what_is_kept():
    key = idempotency_key('order-17', mail())
    assert key == idempotency_key('order-17', mail())
    assert [len(part) for part in key] == [64, 64]
    assert 'order' not in str(key) and mail().fingerprint not in key
    assert key.digest != idempotency_key('order-18', mail()).digest


def test_a_batch_is_another_body_than_its_only_mail():
    keys = {idempotency_key('k', one).fingerprint for one in (
        mail(), {0: mail()}, {1: mail()}, {0: mail(), 1: mail()},
        {0: mail(), 1: mail(subject='x')})}
    assert len(keys) == 5
