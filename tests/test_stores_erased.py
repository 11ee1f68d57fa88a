"""The contract of a store: a message that is erased names nobody."""

import itertools

import pytest

from stampman.helpers.delivery import (
    Claim, Kind, RecipientOutcome, State, together)
from stampman.helpers.exceptions import Conflict, NotFound
from stampman.store.base import UNSETTLED, Filter

from backends import (
    NOW, POOL, add_claimed, attempt, email, ended, held, message, migrated,
    on_files, sqlite_store, store)

__all__ = ['migrated', 'store']     # the fixtures

ANN, BO, CY = 'Ann.Secret@example.org', 'bo.secret@x.org', 'cy@secret.org'
SECRETS = ('Ann.Secret', 'ann.secret', 'bo.secret', 'secret.org',
           'classified', 'dossier', 'attached-and-private')
PRIVATE = {
    'to': [f'Ann <{ANN}>', BO, CY], 'subject': 'classified subject',
    'content': 'the dossier ' * 500, 'html': '<p>dossier</p>',
    'metadata': {'key': 'classified'}, 'attachments': [{
        'filename': 'classified.txt',
        'content': 'YXR0YWNoZWQtYW5kLXByaXZhdGUK' * 3000}]}


def fared(**kinds):
    names = {'ann': ANN, 'bo': BO, 'cy': CY}
    return together([RecipientOutcome(
        email=names[name], kind=Kind(kind), reason=f'{kind} by theirs',
        provider_message_id=f'id-of-{name}' if kind == 'accepted' else None)
        for name, kind in kinds.items()])


def with_outcome(begun, outcome, at=NOW + 1):
    return begun.model_copy(update={'ended_at': at, 'outcome': outcome})


def private(store, **fields):
    """Store one that is claimed, with content and names that are private."""
    one = message(state='sending', recipients=[ANN, BO, CY], **fields)
    claim = Claim(one.id, 'request', 1, NOW + 30)
    store.add(one, email(**PRIVATE), claim)
    return one, claim


def reached_apart(store):
    """Store one that two attempts brought to its end; return it."""
    one, claim = private(store)
    first = attempt()
    claim = store.begin(claim, first, NOW + 60)
    store.end(with_outcome(first, fared(
        ann='accepted', bo='deferred', cy='rejected')), one.id)
    second = attempt(envelope=(BO,))
    claim = store.begin(claim, second, NOW + 60)
    store.end(ended(second, 'accepted', provider_message_id='id-of-bo'),
              one.id)
    return store.message(POOL, one.id)


# -- what goes and what stays ------------------------------------------------

def test_content_and_addresses_go_and_the_story_stays(store):
    before = reached_apart(store)
    erased = store.erase(POOL, before.id, NOW + 9)
    assert erased == store.message(POOL, before.id)
    with pytest.raises(NotFound):
        store.email(before.id)
    assert [one.email for one in erased.recipients] == [
        'erased-1', 'erased-2', 'erased-3']
    assert [(one.email, str(one.kind), one.reason, one.provider_message_id)
            for one in erased.attempts[0].outcome.recipients] == [
        ('erased-1', 'accepted', 'accepted by theirs', 'id-of-ann'),
        ('erased-2', 'deferred', 'deferred by theirs', None),
        ('erased-3', 'rejected', 'rejected by theirs', None)]
    assert erased.attempts[1].envelope == ('erased-2',)
    assert erased.erased_at == NOW + 9

    def story(told):
        return told.model_copy(update={
            'erased_at': None,
            'recipients': [one.model_copy(update={'email': ''})
                           for one in told.recipients],
            'attempts': [one.model_copy(update={
                'envelope': None, 'outcome': one.outcome.model_copy(
                    update={'recipients': ()})}) for one in told.attempts]})
    assert story(erased) == story(before)
    assert [one.provider_message_id for one in erased.recipients] == [
        'id-of-ann', 'id-of-bo', None]


def test_nobody_finds_it_by_an_address(store):
    one = reached_apart(store)
    assert store.page(POOL, Filter(recipient=ANN))[0]
    store.erase(POOL, one.id, NOW)
    for address in (ANN, ANN.lower(), BO, CY):
        assert store.page(POOL, Filter(recipient=address)) == ((), False)
    page, _ = store.page(POOL)
    assert [found.id for found in page] == [one.id]
    assert page[0].erased_at == NOW


def test_only_what_is_settled_is_erased(store):
    claimed, claim = private(store)
    states = {claimed.id: State.sending}
    for state in (State.queued, State.deferred, State.uncertain):
        states[held(store, 'uncertain', state=state).id] = state
    assert set(states.values()) == UNSETTLED
    for id, state in states.items():
        before = store.message(POOL, id)
        with pytest.raises(Conflict, match=str(state)):
            store.erase(POOL, id, NOW)
        assert store.message(POOL, id) == before and store.email(id)


def test_a_pool_erases_its_own_messages_alone(store):
    one = reached_apart(store)
    with pytest.raises(NotFound):
        store.erase('example.net', one.id, NOW)
    assert store.message(POOL, one.id) == one


def test_a_message_is_erased_once(store):
    one = reached_apart(store)
    first = store.erase(POOL, one.id, NOW + 1)
    assert store.erase(POOL, one.id, NOW + 2) == first


def test_one_whose_content_has_gone_by_age_still_loses_its_addresses(store):
    one = reached_apart(store)
    store.forget_bodies(NOW + 100, 50)
    assert [who.email for who in store.erase(POOL, one.id, NOW).recipients
            ] == ['erased-1', 'erased-2', 'erased-3']


def test_what_is_erased_is_not_set_going_again(store):
    one, claim = private(store)
    store.finish(claim, State.failed, round=1)
    erased = store.erase(POOL, one.id, NOW)
    with pytest.raises(Conflict):
        store.change(POOL, one.id, [State.failed], State.queued,
                     restart=True, next_attempt_at=NOW)
    assert store.message(POOL, one.id) == erased


def test_others_keep_everything(store):
    one, other = reached_apart(store), reached_apart(store)
    store.erase(POOL, one.id, NOW)
    assert store.message(POOL, other.id) == other
    assert store.email(other.id) == email(**PRIVATE)


# -- what comes late ---------------------------------------------------------

def failed_early(store, envelope=None):
    """Store one that failed while an attempt had no end; erase it."""
    one, claim = private(store)
    begun = attempt(envelope=envelope)
    claim = store.begin(claim, begun, NOW + 60)
    store.finish(claim, State.failed, round=1)
    store.erase(POOL, one.id, NOW + 2)
    return one, begun


def addresses(told):
    """Return all that a message tells of whom it was for."""
    return {*(one.email for one in told.recipients),
            *itertools.chain.from_iterable(
                (*(one.envelope or ()), *(
                    whom.email for whom in one.outcome.recipients))
                for one in told.attempts)}


@pytest.mark.parametrize('envelope, outcome, state', [
    (None, fared(ann='accepted', bo='rejected', cy='deferred'), 'accepted'),
    (None, fared(ann='rejected', bo='deferred', cy='deferred'), 'failed'),
    ((ANN, BO), fared(ann='accepted', bo='rejected'), 'accepted'),
    ((ANN, BO), fared(ann='accepted', bo='accepted'), 'accepted')])
def test_a_late_end_brings_no_address_back(store, envelope, outcome, state):
    one, begun = failed_early(store, envelope)
    late = with_outcome(begun, outcome)
    store.end(late, one.id)
    told = store.message(POOL, one.id)
    assert told.state == state
    assert {name.partition('-')[0] for name in addresses(told)} == {'erased'}
    assert told.attempts[0].outcome.kind is outcome.kind
    store.end(late, one.id)         # as after an unclear commit
    assert store.message(POOL, one.id) == told


def test_a_late_end_says_of_nobody_what_is_not_known(store):
    one, begun = failed_early(store)
    store.end(with_outcome(begun, fared(
        ann='accepted', bo='rejected', cy='rejected')), one.id)
    assert [str(who.status) for who in store.message(
        POOL, one.id).recipients] == ['failed'] * 3


def test_a_late_end_that_is_the_same_for_all_is_theirs(store):
    one, begun = failed_early(store)
    store.end(ended(begun, 'accepted', provider_message_id='id'), one.id)
    told = store.message(POOL, one.id)
    assert [(who.email, str(who.status), who.provider_message_id)
            for who in told.recipients] == [
        (f'erased-{number}', 'accepted', 'id') for number in (1, 2, 3)]


# -- the file ----------------------------------------------------------------

def left_in(directory):
    """Return what of the secrets any file of the database holds."""
    content = b''.join(path.read_bytes()
                       for path in directory.glob('messages.db*'))
    return {word for word in SECRETS if word.encode() in content}


def surrounded(store):
    """Store the private message among others.

    They are few: of what lay on a page that was split, SQLite may leave a
    copy beside, until VACUUM.
    """
    for name in 'abc':
        add_claimed(store, recipients=[f'{name}@other.org'],
                    created_at=NOW - 1)
    one = reached_apart(store)
    for name in 'xyz':
        add_claimed(store, recipients=[f'{name}@later.org'],
                    created_at=NOW + 1)
    return one


@on_files
def test_the_file_does_not_hold_any_of_it_any_more(store, tmp_path):
    one = surrounded(store)
    assert left_in(tmp_path) == set(SECRETS)
    store.erase(POOL, one.id, NOW)
    store.close()
    assert left_in(tmp_path) == set()


@on_files
def test_nor_while_it_is_used_once_the_traces_are_dropped(store, tmp_path):
    one = surrounded(store)
    store.erase(POOL, one.id, NOW)
    assert store.drop_traces()
    assert left_in(tmp_path) == set()
    assert store.message(POOL, one.id).erased_at == NOW


@on_files
def test_who_reads_is_not_waited_for(store, tmp_path):
    """In WAL a reader keeps the log; a later call takes it away."""
    one = surrounded(store)
    beside = sqlite_store(tmp_path, journal_mode=(
        store._database.journal_mode))
    with beside._database.read() as connection:
        connection.exec_driver_sql('SELECT count(*) FROM messages').scalar()
        if store._database.journal_mode == 'wal':
            store.erase(POOL, one.id, NOW)
            assert not store.drop_traces()
    beside.close()
    store.erase(POOL, one.id, NOW)
    assert store.drop_traces()
    assert left_in(tmp_path) == set()


@pytest.mark.parametrize('give_up', ['forget_messages', 'forget_bodies'])
@on_files
def test_nor_what_retention_has_given_up(store, tmp_path, give_up):
    surrounded(store)
    after = ''
    while after := getattr(store, give_up)(NOW + 100, 50, after):
        pass
    store.close()
    left = left_in(tmp_path)
    assert not left & {'classified', 'dossier', 'attached-and-private'}
    if give_up == 'forget_messages':
        assert not left
