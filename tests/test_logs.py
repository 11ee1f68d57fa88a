"""Every line parses, says whose it is, and shows nothing it must not."""

import contextlib
import io
import json
import logging
import threading

import pytest
from hypothesis import given, settings, strategies as st

from stampman import logs
from stampman.helpers.exceptions import ConfigError, StoreUnavailable

POOL_KEY = 'pool-key-canary-1f6c'
PROVIDER_KEY = 'SG.provider/key+canary=='
SECRETS = (POOL_KEY, PROVIDER_KEY)
RECIPIENT = 'recipient.canary@example.com'
OTP = 'OTP-CANARY-918273'
CANARIES = (*SECRETS, 'recipient.canary', OTP, 'SG.provider%2Fkey')

log = logging.getLogger('stampman.test')


class Written(io.StringIO):
    """A stream whose lines are read back as strict JSON."""

    def lines(self):
        return [json.loads(line, parse_constant=pytest.fail)
                for line in self.getvalue().split('\n')[:-1]]

    def line(self):
        [line] = self.lines()
        return line


@pytest.fixture
def restored():
    """Put the process's logging back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logs.set_secrets(())


@pytest.fixture
def written(restored):
    stream = Written()
    logs.setup(stream, SECRETS, logging.DEBUG)
    return stream


@contextlib.contextmanager
def alone():
    """Without pytest's own handlers, which raise where ours must not."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    root.handlers[:] = [handler for handler in handlers
                        if isinstance(handler, logs.RootHandler)]
    yield
    root.handlers[:] = handlers


class Terminal(Written):
    def isatty(self):
        return True


class Email:
    """As a foreign object whose repr would show all of it."""

    def __repr__(self):
        return f'Email({OTP})'


class Unprintable:
    def __str__(self):
        raise RuntimeError(OTP)

    __repr__ = __str__


def crash(message=f'cannot send {OTP} to {RECIPIENT}', kind=ValueError):
    body = OTP                          # a local, as tracers like to show
    raise kind(message or body)


def test_a_line_says_when_how_grave_what_and_where(written):
    record = logging.makeLogRecord({
        'name': 'stampman.worker', 'levelno': 30, 'levelname': 'WARNING',
        'msg': 'lease lost after %d ms', 'args': (12,),
        'created': 1767323045.678})
    logging.getLogger('stampman.worker').handle(record)
    assert written.line() == {
        'ts': '2026-01-02T03:04:05.678Z', 'level': 'warning',
        'event': 'lease lost after 12 ms', 'logger': 'stampman.worker'}


def test_extra_fields_stand_beside_the_event(written):
    log.info('attempt ended', extra={
        'kind': 'deferred', 'stage': 'written', 'ms': 4.5, 'status': 503,
        'tags': ['a', {'deep': True}], 'nothing': None})
    line = written.line()
    assert line['kind'] == 'deferred' and line['ms'] == 4.5
    assert line['status'] == 503 and line['nothing'] is None
    assert line['tags'] == ['a', {'deep': True}]


def test_extra_fields_cannot_replace_what_the_line_itself_says(written):
    log.info('real', extra={'ts': 'x', 'level': 'x', 'event': 'x',
                            'logger': 'x'})
    line = written.line()
    assert (line['event'], line['level'], line['logger']) == (
        'real', 'info', 'stampman.test')
    assert line['ts'] != 'x'


def test_bound_ids_nest_and_end_with_their_block(written):
    with logs.bind(request_id='r1', pool='example.com'):
        with logs.bind(message_id='m1', pool='example.org'):
            log.info('inner')
        log.info('outer')
    log.info('none')
    inner, outer, none = written.lines()
    assert (inner['request_id'], inner['message_id'], inner['pool']) == (
        'r1', 'm1', 'example.org')
    assert outer['pool'] == 'example.com' and 'message_id' not in outer
    assert not {'request_id', 'pool'} & set(none)


def test_bound_ids_end_when_the_block_fails(written):
    with pytest.raises(ValueError), logs.bind(message_id='m1'):
        crash()
    assert logs.bound() == {}


def test_threads_do_not_share_ids(written):
    barrier = threading.Barrier(2)

    def work(name):
        with logs.bind(message_id=name):
            barrier.wait(5)     # both are bound now
            log.info(name)

    with logs.bind(request_id='of the main thread'):
        threads = [threading.Thread(target=work, args=(name,))
                   for name in ('m1', 'm2')]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5)
    assert {(line['event'], line['message_id'], line.get('request_id'))
            for line in written.lines()} == {
                ('m1', 'm1', None), ('m2', 'm2', None)}


@pytest.mark.parametrize('call', [
    lambda: log.error(f'to {RECIPIENT} with {POOL_KEY}'),
    lambda: log.error('to %s with %s', RECIPIENT, PROVIDER_KEY),
    lambda: log.error('%(to)s', {'to': RECIPIENT}),
    lambda: log.error('x', extra={'to': [RECIPIENT, {RECIPIENT: POOL_KEY}]}),
    lambda: log.error('x', extra={'subject': OTP, 'api_key': 'unknown' + OTP,
                                  'deep': {'html': OTP, 'Body': OTP}}),
    lambda: log.error('GET /messages/?recipient=%s&otp=%s', RECIPIENT, OTP),
    lambda: log.error('GET https://x.example/?%s', OTP),
    lambda: log.error('/suppressions/recipient.canary%2540example.com'),
    lambda: log.error('Authorization SG.provider%2Fkey%2Bcanary%3D%3D'),
    lambda: log.error('failed: %s', ValueError(f'{OTP} {RECIPIENT}')),
    lambda: log.error('failed: %r', [KeyError(OTP)]),
    lambda: log.error(ValueError(OTP)),
    lambda: log.error('%s %r', Email(), {'x': Email()}),
    lambda: log.error('x', extra={'mail': Email(), 'bytes': OTP.encode()}),
    lambda: log.error('%s', Unprintable(), extra={'x': Unprintable()}),
    lambda: log.error('too few %s %s', OTP),
    lambda: log.error(OTP * 5000),
    lambda: log.error('x', stack_info=True),
    lambda: logging.getLogger('urllib3.connectionpool').debug(OTP),
    lambda: logging.getLogger('sqlalchemy.engine.Engine').info(OTP),
    lambda: logging.getLogger('http.client').debug(OTP),
])
def test_no_canary_reaches_a_line(written, call):
    with alone():
        call()
    for canary in CANARIES:
        assert canary not in written.getvalue()
    written.lines()


def test_addresses_and_secrets_are_masked_not_dropped(written):
    log.info('to %s by %s', RECIPIENT, POOL_KEY)
    assert written.line()['event'] == 'to r***@example.com by [secret]'


def test_foreign_objects_are_shown_by_their_class(written):
    log.info('%s failed: %s', Email(), ConnectionRefusedError(111, OTP))
    assert written.line()['event'] == (
        '<Email> failed: ConnectionRefusedError (111)')


def test_our_own_errors_may_speak(written):
    log.critical('%s', ConfigError('not valid:', errors=[
        ('pools[0].domain', f'is {RECIPIENT}')]))
    assert written.line()['event'] == (
        'not valid:\npools[0].domain: is r***@example.com')


def test_secrets_of_a_reload_replace_the_old_ones(written):
    for secrets in (), ['rotated-key']:
        logs.set_secrets(secrets)
        log.info('rotated-key', extra={'rotated-key': 1})
    before, after = written.lines()
    assert before['event'] == 'rotated-key' and before['rotated-key'] == 1
    assert after['event'] == '[secret]' and after['[secret]'] == 1


def test_an_exception_is_its_class_and_where_it_came_from(written):
    try:
        try:
            crash()
        except ValueError as error:
            raise StoreUnavailable('the disk is full') from error
    except StoreUnavailable:
        log.exception('not stored')
    error = written.line()['error']
    assert error['class'].endswith('.StoreUnavailable')
    assert error['code'] == 'store_unavailable'
    assert error['message'] == 'the disk is full'
    assert error['cause']['class'] == 'ValueError'
    assert 'message' not in error['cause']
    place, function = error['cause']['traceback'][-1].rsplit(' ', 1)
    assert place.rsplit(':')[0] == __file__ and function == 'crash'
    for canary in CANARIES:
        assert canary not in written.getvalue()


def test_our_own_messages_are_masked_too(written):
    try:
        crash(f'bad {RECIPIENT} {POOL_KEY}', ConfigError)
    except ConfigError:
        log.exception('x')
    assert written.line()['error']['message'] == (
        'bad r***@example.com [secret]')


def test_a_deep_recursion_keeps_its_innermost_frames(written):
    def fall():
        fall()
    try:
        fall()
    except RecursionError:
        log.exception('x')
    frames = written.line()['error']['traceback']
    assert len(frames) == logs.MAX_FRAMES
    assert all(frame.endswith(' fall') for frame in frames)


def test_exceptions_that_cause_each_other_end(written):
    first, second = ValueError(), TypeError()
    first.__cause__, second.__cause__ = second, first
    log.error('x', exc_info=first)
    assert written.line()['error']['cause'] == {
        'class': 'TypeError', 'traceback': []}


@pytest.mark.parametrize('make', [Written, Terminal])
def test_nothing_logged_can_forge_a_line(restored, make):
    stream = make()
    logs.setup(stream, SECRETS)
    log.info('a\r\n{"level": "forged"}\x1b[31m\x85\u2028\u202e\x00\x7f',
             extra={'agent': 'x\n\x1b[0m', 'a\nb': 'c'})
    text = stream.getvalue()
    assert text.count('\n') == 1 and text.endswith('\n')
    assert text[:-1].isprintable()


_scalars = (st.none() | st.booleans() | st.integers() | st.floats()
            | st.text() | st.binary() | st.builds(Unprintable)
            | st.builds(pow, st.just(10), st.just(5000))
            | st.builds(ValueError, st.text())
            | st.text(alphabet='\ud800\udfff\n@%?\x1b'))
_objects = st.recursive(
    _scalars, lambda inner: st.lists(inner) | st.tuples(inner)
    | st.dictionaries(st.text() | st.integers(), inner), max_leaves=6)
_names = st.text(min_size=1).filter(
    lambda name: name not in vars(logging.makeLogRecord({})))


@given(message=_objects, args=st.lists(_objects, max_size=3).map(tuple)
       | st.dictionaries(st.text(), _objects),
       extra=st.dictionaries(_names, _objects, max_size=3),
       id=st.text(), style=st.sampled_from([Written, Terminal]))
@settings(max_examples=150, deadline=None)
def test_whatever_is_logged_is_one_line_that_parses(
        message, args, extra, id, style):
    stream = style()
    handler = logs.RootHandler(stream)
    handler.setFormatter(logs.JsonFormatter() if style is Written
                         else logs.TextFormatter())
    record = logging.makeLogRecord({
        **extra, 'msg': message, 'args': args, 'levelname': 'INFO',
        'name': 'any', 'exc_info': (ValueError, ValueError(id), None)})
    with logs.bind(request_id=id):
        handler.handle(record)
    assert stream.getvalue().endswith('\n')
    assert stream.getvalue()[:-1].isprintable()
    if style is Written:
        line = stream.line()
        assert line['logger'] == 'any' and isinstance(line['event'], str)
        assert line['error']['class'] == 'ValueError'


class Broken(dict):
    def items(self):
        raise RuntimeError(OTP)


def test_what_json_cannot_say_is_said_otherwise(written):
    log.info('x', extra={'nan': float('nan'), 'inf': float('-inf'),
                         'big': 1 << 64, 'broken': Broken(a=1)})
    line = written.line()
    assert (line['nan'], line['inf'], line['big'], line['broken']) == (
        'nan', '-inf', '<int>', '[cannot be shown: RuntimeError]')


def test_arguments_that_do_not_fit_are_named(written):
    with alone():
        log.info('%s and %s', 1)
        log.info('%d', 'one')
    assert [line['event'] for line in written.lines()] == [
        '%s and %s [the arguments do not fit]',
        '%d [the arguments do not fit]']


def test_warnings_of_pinned_loggers_still_come(written):
    logging.getLogger('urllib3.connectionpool').warning('retrying')
    logging.getLogger('urllib3x').debug('somebody else')
    assert len(written.lines()) == 2


def test_a_terminal_gets_text_with_the_same_masking(restored):
    stream = Terminal()
    logs.setup(stream, SECRETS)
    with logs.bind(message_id='m1'):
        try:
            crash()
        except ValueError:
            log.exception('to %s', RECIPIENT, extra={'kind': 'a b'})
    text = stream.getvalue()
    assert '  ERROR  to r***@example.com  logger=stampman.test  ' in text
    assert 'message_id=m1' in text and 'kind="a b"' in text
    assert 'ValueError' in text and not any(
        canary in text for canary in CANARIES)


def test_an_ascii_stream_gets_every_line(restored):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, 'ascii', write_through=True)
    logs.setup(stream, format='text')
    log.info('Grüße')
    assert 'Gr\\xfc\\xdfe' in raw.getvalue().decode()


def test_a_closed_stream_neither_raises_nor_tells(restored, capsys):
    stream = Written()
    logs.setup(stream)
    stream.close()
    log.error('to %s', OTP)
    assert capsys.readouterr().err == (
        'a log line could not be written: ValueError\n')


def test_setup_again_moves_to_the_new_stream(written):
    second = Written()
    logs.setup(second)
    log.info('once')
    assert second.line()['event'] == 'once' and not written.getvalue()
