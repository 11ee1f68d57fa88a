"""What a provider can carry: at each limit it does, over it nobody is asked.

Every field of `Capabilities` is walked for every provider.
"""

import dataclasses
import json

import pytest

from stampman.helpers.delivery import Kind
from stampman.helpers.mail import Email
from stampman.services import providers, service_class
from stampman.services.base import Capabilities

import smtp_calling
from servers import Recorder
from smtp_servers import MailServer
from test_services import ATTEMPT, DATA, HTTP, MESSAGE, context, service

OUR_IDS = {'stampman_id': MESSAGE, 'stampman_attempt': ATTEMPT}
BASE = {'from_email': 'shop@example.com', 'recipients': ['ann@example.org'],
        'subject': 'Order', 'content': 'x'}
LONG = 60.0         # seconds; 40 megabytes on a busy machine
FIELDS = {field.name: field.default
          for field in dataclasses.fields(Capabilities)}


class OverHttp:
    """A provider over HTTP, and a server that takes all it is asked to."""

    def __init__(self, name):
        self.name = name
        self.capabilities = service_class(name).capabilities

    def send(self, email, servers, envelope):
        """Send; return the outcome, and the body of each call made."""
        server = servers[0]
        server.answer(*DATA[self.name]['accepts']['answer'])
        before, connections = len(server.requests), server.connections
        outcome = service(self.name, server.url, timeout=LONG).send_email(
            email, context(LONG)._replace(envelope=envelope))
        bodies = [one.body for one in server.requests[before:]]
        assert bodies or server.connections == connections
        return outcome, bodies


class OverSmtp:
    """SMTP, by the headers of one vendor, and a third party's server."""

    def __init__(self, vendor):
        self.name = f'smtp {vendor}'
        self.vendor = vendor
        self.capabilities = smtp_calling.service(
            1, vendor=vendor).capabilities

    def send(self, email, servers, envelope):
        server = servers[1]
        before, connections = len(server.mails), server.connections
        smtp = smtp_calling.service(server.port, vendor=self.vendor)
        with smtp_calling.closing(smtp):
            outcome = smtp_calling.send(smtp, email, LONG, envelope)
        bodies = [' '.join(one.recipients).encode() + one.content
                  for one in server.mails[before:]]
        assert bodies or server.connections == connections
        return outcome, bodies


VENDORS = service_class('smtp').Settings.model_json_schema()[
    'properties']['vendor']['anyOf'][0]['enum']
CARRIERS = [OverHttp(name) for name in HTTP] + [
    OverSmtp(vendor) for vendor in (None, *VENDORS)]
EVERY = [pytest.param(carrier, id=carrier.name) for carrier in CARRIERS]


@pytest.fixture(scope='module')
def servers():
    with Recorder() as recorder, MailServer() as mail_server:
        yield recorder, mail_server


def an_email(**fields):
    """An email as the store gives it back: no limit of the door holds."""
    return Email(**{**BASE, **fields})


def sent(carrier, email, servers, envelope=None):
    """Send; return the outcome, and the request, or None if none was made."""
    outcome, bodies = carrier.send(email, servers, envelope)
    if outcome.kind is Kind.unsupported:
        assert not bodies
        return outcome, None
    request, = bodies
    return outcome, request


def with_limit(field):
    """The carriers that have a limit of that name, with it."""
    found = [(one, getattr(one.capabilities, field)) for one in CARRIERS]
    return [pytest.param(carrier, most, id=carrier.name)
            for carrier, most in found if most]


def attached(content_type, **more):
    return {'attachments': [{'filename': 'a.bin', 'content': b'x',
                             'content_type': content_type, **more}]}


def with_metadata(size):
    """Metadata that is `size` bytes of JSON with our own ids, in values that
    are short enough for a line of a header."""
    empty = {f'k{n:02}': '' for n in range(50)}
    room = size - len(json.dumps({**empty, **OUR_IDS},
                                 separators=(',', ':')))
    values = {key: 'v' * (room // len(empty)) for key in empty}
    values['k00'] += 'v' * (room % len(empty))
    return {'metadata': values}


# For each limit that is a number, an email of so many, and what is named.
COUNTED = {
    'max_recipients': ('recipients', lambda count: {
        'recipients': [f'a{n}@example.org' for n in range(count)]}),
    'max_tags': ('tags', lambda count: {
        'tags': [f't{n}' for n in range(count)]}),
    'max_tag_length': ('tags', lambda count: {
        'tags': ['short', 't' * count]}),
    'max_metadata': ('metadata', with_metadata),
}
# For each that is a yes or no: by which of the two it is a limit, an email
# within it, those that are not, and what is named.
SWITCHED = {
    'ascii_tags': (True, {'tags': ['order']}, [
        ('tags', {'tags': ['order', 'größe']})]),
    'smtputf8': (False, {'recipients': ['ann@xn--bcher-kva.example']}, [
        ('from_email', {'from_email': 'größe@example.com'}),
        ('recipients', {'recipients': ['jürgen@example.org']}),
        ('cc', {'cc': ['jürgen@example.org']}),
        ('bcc', {'bcc': ['jürgen@example.org']}),
        ('reply_to', {'reply_to': ['jürgen@example.org']})]),
    'tracking': (False, {}, [
        ('track_opens', {'track_opens': False}),
        ('track_clicks', {'track_clicks': True})]),
    'inline_images_only': (True, attached('IMAGE/png', content_id='logo'), [
        ('attachments[0].content_id',
         attached('application/pdf', content_id='logo'))]),
    'needs_to': (True, {}, [
        ('recipients', {'recipients': [], 'bcc': ['ann@example.org']})]),
    'needs_subject': (True, {}, [('subject', {'subject': ''})]),
    'needs_plain_types': (True, attached('text/plain'), [
        ('attachments[0].content_type',
         attached('text/plain; charset=utf-8'))]),
    'needs_full_files': (True, attached('text/plain'), [
        ('attachments[0].content', attached('text/plain', content=b''))]),
}
# What an email does not say: the size of a request, whom it is for now, and
# what is only told to people.
OTHERS = {'max_request', 'max_message', 'envelope', 'tag_words',
          'metadata_words', 'notes'}
SWITCHES = [(field, name, fields) for field, (_, _, over) in SWITCHED.items()
            for name, fields in over]


def test_the_walk_covers_every_limit_there_is():
    assert {*COUNTED, *SWITCHED} | OTHERS == set(FIELDS)


@pytest.mark.parametrize('field, carrier, most', [
    pytest.param(field, *case.values, id=f'{field}: {case.id}')
    for field in COUNTED for case in with_limit(field)])
def test_as_many_as_a_provider_takes_are_carried_and_one_more_is_not(
        field, carrier, most, servers):
    named, fields = COUNTED[field]
    outcome, request = sent(carrier, an_email(**fields(most)), servers)
    assert request, outcome.reason
    outcome, request = sent(carrier, an_email(**fields(most + 1)), servers)
    assert outcome.kind is Kind.unsupported and not request
    assert outcome.reason.startswith(f'{named}: at most {most} ')
    assert outcome.reason.endswith(f' are carried, not {most + 1}')


@pytest.mark.parametrize('carrier', EVERY)
@pytest.mark.parametrize('field, named, fields', [
    pytest.param(*switch, id=f'{switch[0]} {switch[1]}')
    for switch in SWITCHES])
def test_what_a_provider_cannot_carry_is_named_before_any_call(
        field, named, fields, carrier, servers):
    limiting, within, _ = SWITCHED[field]
    is_limit = getattr(carrier.capabilities, field) is limiting
    outcome, request = sent(carrier, an_email(**fields), servers)
    if not request:
        assert outcome.reason.startswith(f'{named}: ')
    if is_limit:
        assert not request
        outcome, request = sent(carrier, an_email(**within), servers)
        assert request, outcome.reason


@pytest.mark.parametrize('carrier', EVERY)
def test_some_recipients_alone_get_it_only_where_the_envelope_is_ours(
        carrier, servers):
    email = an_email(cc=['bo@example.org'])
    outcome, request = sent(carrier, email, servers, ('bo@example.org',))
    if carrier.capabilities.envelope:
        assert b'bo@example.org' in request, outcome.reason
    else:
        assert outcome.kind is Kind.unsupported
        assert outcome.reason.startswith('recipients: ')


@pytest.mark.parametrize('carrier, most', with_limit('max_request'))
def test_a_request_has_the_providers_size_to_the_byte(
        carrier, most, servers):
    """In the request each character of a plain text is one byte."""
    _, request = sent(carrier, an_email(), servers)
    room = most - len(request) + 1
    _, request = sent(carrier, an_email(content='x' * room), servers)
    assert request and len(request) == most
    outcome, request = sent(
        carrier, an_email(content='x' * (room + 1)), servers)
    assert outcome.kind is Kind.unsupported and not request
    assert outcome.reason == (f'the whole email: at most {most} bytes are '
                              f'carried, not {most + 1}')


@pytest.mark.parametrize('carrier, most', with_limit('max_message'))
def test_a_message_has_the_providers_size(carrier, most, servers):
    """Of one that the provider writes only the texts are counted."""
    _, request = sent(carrier, an_email(content='x' * most), servers)
    assert request
    outcome, request = sent(
        carrier, an_email(content='x' * (most + 1)), servers)
    assert outcome.kind is Kind.unsupported and not request
    assert outcome.reason == (f'the whole email: at most {most} bytes are '
                              f'carried, not {most + 1}')


def test_capture_carries_everything():
    limits = [fields for _, _, fields in SWITCHES] + [
        fields(100_000 if field == 'max_metadata' else 2000)
        for field, (_, fields) in COUNTED.items()]
    capture = service('capture')
    for fields in limits:
        email = an_email(**fields)
        assert capture.objection(email, context()) == ''
        assert capture.send_email(email, context()).kind is Kind.accepted
    alone = context()._replace(envelope=('ann@example.org',))
    assert capture.objection(an_email(), alone) == ''


@pytest.mark.parametrize('field', FIELDS)
def test_people_are_told_of_every_limit(field):
    default = FIELDS[field]
    other = {bool: not default, str: 'a word', tuple: ('A note.',)}.get(
        type(default), 4711)
    base, told = (one.described() for one in (
        Capabilities(), Capabilities(**{field: other})))
    assert list(told) == list(base)
    assert len([topic for topic in told if told[topic] != base[topic]]) == 1


@pytest.mark.parametrize('provider', providers())
def test_what_people_are_told_is_text_about_the_same_topics(provider):
    told = service_class(provider).capabilities.described()
    assert list(told) == list(Capabilities().described())
    assert all(isinstance(text, str) for text in told.values())
