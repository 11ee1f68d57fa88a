"""What must hold at the end: the ledger, the store, and what clients were
told, held against each other."""

from collections import Counter, defaultdict

from stampman.helpers.delivery import MAX_CRASHES, MAX_UNCERTAIN

from simulation.ledger import Violation
from simulation.plans import SERVICES

SETTLED = ('accepted', 'rejected', 'failed', 'cancelled')
ENDED = ('rejected', 'failed', 'cancelled')
WORDS = {'accepted', 'not_sent', 'send_again'}      # of a person


def check(world, clients) -> list[Violation]:
    """Return every invariant that does not hold."""
    messages = {one['id']: one for one in world.journal.messages()}
    found = [*_answers(world, messages, clients), *_heard(world, messages)]
    found += _keys(world, messages, clients)
    for one in messages.values():
        said = clients.said.get(one['id'], set())
        for invariant, detail in (
                *_truth(world, one, said), *_agreement(one, said),
                *_progress(world, one, said)):
            found.append(Violation(
                invariant, f'{detail} ({_told(world, one)})'))
    return found


def _told(world, one):
    return f'letter {world.submitted.get(one["id"])}, {one["id"]}, ' \
        f'{one["state"]}: {one["reason"]}'


def _heard(world, messages):
    """I1: an acceptance that a process has heard is written down."""
    kinds = {attempt['id']: attempt['kind'] for one in messages.values()
             for attempt in one['attempts']}
    for attempt in world.heard:
        if kinds.get(attempt) != 'accepted':
            yield Violation('I1', f'{attempt} was heard to be accepted, and '
                            f'is {kinds.get(attempt)}')


# -- how a message stands ----------------------------------------------------

def open_uncertain(one) -> list[dict]:
    """Return the attempts by which a provider may have taken it."""
    return [attempt for attempt in one['attempts']
            if attempt['kind'] == 'uncertain' and not attempt['resolved']]


def is_held(world, one) -> bool:
    """Whether it may wait, visibly, for evidence or a person."""
    uncertain = open_uncertain(one)
    recent = {attempt['replays'] or attempt['id'] for attempt
              in one['attempts'][one['restarted_after']:]
              if attempt in uncertain}
    return one['state'] == 'uncertain' and (
        one['crashes'] >= MAX_CRASHES
        or bool(recent) and one['on_uncertain'] == 'hold'
        or len(recent) >= MAX_UNCERTAIN
        or bool(uncertain) and (
            world.scheduler.wall() >= one['expires_at'] or not _left(one)
            or not any(_can_carry(world, one, name) for name in SERVICES)))


def _left(one):
    return [email for email, status, _ in one['recipients']
            if not _kinds(one, email) & {'accepted', 'rejected'}
            and status != 'rejected']


def _can_carry(world, one, service):
    alone = len(_left(one)) < len(one['recipients'])
    return not (alone and service not in world.plan.envelopes) and not any(
        attempt['service'] == service and attempt['kind'] == 'unsupported'
        for attempt in one['attempts'])


def unsettled(world) -> list[str]:
    """Return the messages that something must still happen to."""
    return [_told(world, one) for one in world.journal.messages()
            if one['state'] not in SETTLED and not is_held(world, one)]


def _kinds(one, email):
    """Return how a recipient fared in the attempts that were for it."""
    kinds = set()
    for attempt in one['attempts']:
        if not attempt['kind']:
            continue
        own = {entry['email']: entry['kind'] for entry
               in (attempt['outcome'] or {}).get('recipients', ())}
        if own:
            kind = own.get(email)
        elif attempt['envelope'] and email not in attempt['envelope']:
            kind = None
        else:
            kind = attempt['kind']
        if kind == 'uncertain' and attempt['resolved']:
            kind = 'accepted' if attempt['resolved'] == 'accepted' else None
        kinds.add(kind)
    return kinds - {None}


# -- the invariants ----------------------------------------------------------

def _answers(world, messages, clients):
    """I1: what was acknowledged is there, and as it was told."""
    for answer in clients.answers:
        one = messages.get(answer.message_id)
        if one is None:
            yield Violation('I1', f'letter {answer.letter} was answered with '
                            f'{answer.message_id}, which is not stored')
        elif world.submitted[answer.message_id] != answer.letter:
            yield Violation('I4', f'letter {answer.letter} was answered with '
                            f'{answer.message_id}, which is another')
        elif answer.state == 'accepted' and one['state'] != 'accepted':
            yield Violation('I1', f'{answer.message_id} was told accepted, '
                            f'and is {one["state"]}')


def _keys(world, messages, clients):
    """I4: one message for each key, and the same for all who asked."""
    stored = Counter(world.submitted[id] for id in messages)
    told = defaultdict(set)
    for answer in clients.answers:
        told[answer.letter].add(answer.message_id)
    by_key = defaultdict(set)
    for call in world.plan.calls:
        if call.key:
            by_key[call.key].add(tuple(
                letter.number for letter in call.letters))
    for number, count in stored.items():
        if count > 1:
            yield Violation('I4', f'letter {number} is stored {count} times')
    for number, ids in told.items():
        if len(ids) > 1:
            yield Violation('I4', f'letter {number} was told as {ids}')
    for key, bodies in by_key.items():
        kept = [body for body in bodies if any(map(stored.get, body))]
        if len(kept) > 1:
            yield Violation('I4', f'{key} holds two bodies: {kept}')


def _truth(world, one, said):
    """I2, I3, I7: what was taken, against what is said of it."""
    held = one['on_uncertain'] == 'hold'
    erased = one['erased_at'] is not None
    recipients = {} if erased else {
        email: status for email, status, _ in one['recipients']}
    by_address = Counter(
        entry.address for entry in world.ledger.by_message[one['id']])
    for address, count in by_address.items():
        if count > 1 and held and 'send_again' not in said \
                and 'not_sent' not in said:
            yield 'I2', f'{address} got {count}, under hold'
        if count > 1 and not one['possible_duplicate'] \
                and not said & WORDS:
            yield 'I7', f'{address} got {count}, and it is not marked'
        status = recipients.get(address)
        if status in ENDED and not said & WORDS:
            yield 'I3', f'{address} is {status}, and was taken'
    for address, status in recipients.items():
        if status == 'accepted' and not by_address[address] \
                and 'accepted' not in said:
            yield 'I3', f'{address} is accepted, and nobody took it'
    if erased and one['state'] in ENDED and by_address \
            and not said & WORDS:
        yield 'I3', f'it was erased as {one["state"]}, and was taken'


def _agreement(one, said):
    """I9: recipients, attempts and the message tell one story."""
    state = one['state']
    uncertain = open_uncertain(one)
    if state in ENDED and uncertain:
        yield 'I3', f'it is {state}, while {uncertain[0]["id"]} is uncertain'
    if any(attempt['kind'] is None for attempt in one['attempts']) \
            and state not in ('sending', 'accepted'):
        yield 'I9', 'an attempt is open, and nobody holds the message'
    if one['erased_at'] is not None:
        return
    for email, status, _ in one['recipients']:
        kinds = _kinds(one, email)
        if 'accepted' in kinds and status != 'accepted':
            yield 'I9', f'{email} is {status}, and an attempt took it'
        if status == 'accepted' and 'accepted' not in kinds \
                and 'accepted' not in said:
            yield 'I9', f'{email} is accepted, and no attempt says so'
        if status in ENDED and 'uncertain' in kinds:
            yield 'I9', f'{email} is {status}, and an attempt is uncertain'
    statuses = {status for _, status, _ in one['recipients']}
    if (state == 'accepted') != ('accepted' in statuses) \
            and not uncertain and state in SETTLED:
        yield 'I9', f'it is {state}, and its recipients are {statuses}'


def _progress(world, one, said):
    """I1, I7: all ends, and what can be sent is sent."""
    if one['state'] == 'uncertain' and not open_uncertain(one) \
            and one['crashes'] < MAX_CRASHES:
        yield 'I1', 'it is held, and nothing is uncertain'
    since = one['attempts'][one['restarted_after']:]
    # To ask about what began before a person's word is not to try again.
    recent = {attempt['replays'] or attempt['id'] for attempt in since
              if attempt['kind'] == 'uncertain' and not attempt['resolved']
              } & {attempt['id'] for attempt in since}
    if len(recent) > MAX_UNCERTAIN:
        yield 'I7', f'it was tried on after {len(recent)} uncertain attempts'
    if world.poison_kills.get(one['id'], 0) > MAX_CRASHES \
            and not said & WORDS | said & {'retry'}:
        yield 'I1', f'it killed {world.poison_kills[one["id"]]} processes'
    if one['state'] in ('failed', 'rejected') and _could_be_sent(
            world, one, said):
        yield 'I7', f'it could have been sent, and is {one["state"]}'


def _could_be_sent(world, one, said):
    letter = world.plan.letters[world.submitted[one['id']]]
    return (not letter.is_bad and not letter.poison and not said
            and letter.expires_in is None
            and 'good' in letter.names and not any(
                attempt['kind'] in ('rejected', 'unsupported')
                or (attempt['outcome'] or {}).get('recipients')
                and not world.plan.envelopes
                for attempt in one['attempts']))
