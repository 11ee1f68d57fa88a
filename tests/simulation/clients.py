"""Who asks us: clients, a person, and the providers' events."""

import functools
from datetime import datetime, timezone
from typing import NamedTuple

from stampman.helpers.delivery import Kind, Outcome, State
from stampman.helpers.exceptions import (
    Conflict, KeyBusy, KeyReused, NotFound, RequestError, StoreUnavailable)
from stampman.helpers.mail import submission

from simulation.plans import Call
from simulation.scheduling import Killed
from simulation.service import fared
from simulation.world import DOMAIN, World

PATIENCE = 60.0     # seconds after which a client gives an answer up
LOOKS = 5           # of a person who waits for the state to act on
# A person's act: the states in which there is something to do.
APPLIES = {
    'cancel': (State.queued, State.deferred, State.sending),
    'retry': (State.rejected, State.failed, State.cancelled),
    'erase': (State.accepted, State.rejected, State.failed, State.cancelled),
    'accepted': (State.uncertain,), 'not_sent': (State.uncertain,),
    'send_again': (State.uncertain,)}


class Answer(NamedTuple):
    """What a client was told of one of its letters."""

    call: int
    letter: int
    message_id: str
    state: State
    time: float


class Clients:
    """All who ask, and what they were told."""

    def __init__(self, world: World):
        self.world = world
        self.answers = []
        self.said = {}          # message: what a person may have done to it
        self.unanswered = 0

    def begin(self) -> None:
        """Let all of the plan happen at its time."""
        plan = self.world.plan
        for call in plan.calls:
            self._client(call)
        for act in plan.acts:
            self.world.scheduler.spawn(
                'person', None, lambda act=act: self._act(act), act.at)

    def send_canaries(self) -> None:
        after = 0.0
        for number, letter in enumerate(self.world.plan.canaries):
            after += 0.2 if letter.is_bad else 8.0
            self._client(Call(1000 + number, after, (letter,)), after)

    # -- a client ------------------------------------------------------------

    def _client(self, call, after=None):
        self.world.scheduler.spawn(
            f'client-{call.number}', None, lambda: self._call(call),
            call.at if after is None else after)

    def _call(self, call):
        scheduler = self.world.scheduler
        for _ in range(call.tries):
            box = []
            process = self.world.some_process()
            if process is not None:
                process.spawn(f'request-{call.number}', functools.partial(
                    self._serve, process, call, box))
            given_up_at = scheduler.time + PATIENCE
            while process is not None and process.alive and not box \
                    and scheduler.time < given_up_at:
                scheduler.wait(1.5)
            if box and box[0] == 'done':
                return
            if call.key is None and (box or process is not None):
                self.unanswered += not box
                return      # to repeat it might make two of it
            scheduler.wait(scheduler.random.uniform(0.5, 20.0))
        self.unanswered += 1

    def _serve(self, process, call, box):
        """What the HTTP door does with a request."""
        world, gateway = self.world, process.gateway
        arrived = process.clock.monotonic()
        try:
            taken = self._submit(gateway, call, arrived)
        except StoreUnavailable:
            world.history.counts['answered 503'] += 1
            box.append('503')
            return
        except KeyBusy:
            world.history.counts['key is busy'] += 1
            box.append('409')
            return
        except KeyReused:
            world.history.counts['key with another body'] += 1
            box.append('done')
            return
        except Exception as error:
            world.broke(process, error)
            raise Killed from error
        process.point('answer', ' '.join(
            one.message.id for one in taken.values()))
        for position, one in taken.items():
            self._told(call, position, one)
        box.append('done')

    def _submit(self, gateway, call, arrived):
        now = gateway.clock.now()
        first = self.world.fields.setdefault(call.key or call.number, {})
        found = {position: submission(first.setdefault(
            letter.number, _fields(letter, now)))
            for position, letter in enumerate(call.letters)}
        if len(found) > 1:
            taken = gateway.send_batch(DOMAIN, found, call.key)
            return {position: one for position, one in taken.items()
                    if not isinstance(one, RequestError)}
        try:
            return {0: gateway.send(DOMAIN, found[0], arrived, call.key,
                                    call.at_once)}
        except (KeyBusy, KeyReused):
            raise
        except RequestError:        # a date that has passed meanwhile
            return {}

    def _told(self, call, position, taken):
        world = self.world
        world.history.counts['answers'] += 1
        world.history.counts['replayed answers'] += taken.replayed
        self.answers.append(Answer(
            call.number, call.letters[position].number, taken.message.id,
            taken.message.state, world.scheduler.time))

    # -- a person ------------------------------------------------------------

    def _act(self, act):
        """Look at the message until its state allows the act; do it."""
        for _ in range(LOOKS):
            message_id = next((id for id, letter in sorted(
                self.world.submitted.items()) if letter == act.letter), None)
            process = self.world.some_process()
            box = []
            if process is not None and message_id is not None:
                process.spawn('person', functools.partial(
                    self._do, process, act.what, message_id, box))
                self.world.scheduler.wait(5.0)
            if box:
                return
            self.world.scheduler.wait(
                self.world.scheduler.random.choice((1.0, 10.0, 60.0)))

    def _do(self, process, what, message_id, box):
        gateway, history = process.gateway, self.world.history
        try:
            message = gateway.message(DOMAIN, message_id)
            if message.state not in APPLIES[what]:
                return
            if what in ('accepted', 'not_sent', 'send_again'):
                self._remember(message_id, what)
                gateway.resolve(DOMAIN, message_id, what)
            elif what == 'retry':
                gateway.retry(DOMAIN, message_id)
            elif what == 'erase':
                gateway.erase(DOMAIN, message_id)
            else:
                gateway.cancel(DOMAIN, message_id)
        except (Conflict, StoreUnavailable, NotFound):
            return
        self._remember(message_id, what)
        box.append('done')
        history.counts[f'a person: {what}'] += 1

    def _remember(self, message_id, what):
        """Before it is done too: the end of its commit may get lost."""
        self.said.setdefault(message_id, set()).add(what)

    # -- a provider's events -------------------------------------------------

    def event_of(self, entry) -> None:
        """Bring a provider's word on what it took, some time later."""
        world = self.world
        chance = world.scheduler.random
        if chance.random() < world.plan.proofs:
            world.scheduler.spawn(
                'event', None, lambda: self._bring(entry),
                chance.choice((0.1, 3.0, 30.0, 90.0)) * chance.random())

    def _bring(self, entry):
        """A provider repeats an event that is not taken."""
        for _ in range(6):
            box = []
            process = self.world.some_process()
            if process is not None:
                process.spawn('event', functools.partial(
                    self._prove, process, entry, box))
                self.world.scheduler.wait(10.0)
            if box:
                return
            self.world.scheduler.wait(20.0)

    def _prove(self, process, entry, box):
        provider = self.world.providers[entry.service]
        results = provider.knows(entry.attempt_id)
        outcome = fared(entry.service, entry.attempt_id, results) \
            if results else Outcome(kind=Kind.deferred)
        try:
            message = process.gateway.message(DOMAIN, entry.message_id)
            process.gateway.prove(message, entry.attempt_id, outcome)
        except StoreUnavailable:
            return
        except NotFound:
            box.append('unknown')
            return
        self.world.history.counts['proofs'] += 1
        box.append('done')


def _fields(letter, now):
    fields = {
        'from_email': f'shop@{DOMAIN}', 'recipients': list(letter.addresses),
        'subject': str(letter.number), 'content': 'Hello'}
    if letter.policy:
        fields['on_uncertain'] = letter.policy
    if letter.send_in:
        fields['send_at'] = _time(now + letter.send_in)
    if letter.expires_in:
        fields['expires_at'] = _time(
            now + (letter.send_in or 0.0) + letter.expires_in)
    return fields


def _time(seconds):
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()
