"""The provider's file, as a developer who adds one would write it, and the
wire in the place of a network.

All that decides what an answer or a broken call means is shipped code.
"""

import json

from stampman.helpers.delivery import Kind, Outcome, RecipientOutcome, together
from stampman.services.base import (
    DOMAIN_ONLY, Capabilities, Evidence, HttpEmailService, ProbeResult, Rule)
from stampman.services.transport import (
    Fault, Request, Stage, means_of)
from stampman.services._wire import Call

EVIDENCE = {'replay': Evidence(replay=86400.0),
            'look_up': Evidence(look_up=True),
            'events': Evidence(events=True)}
CONNECT_LIMIT = 3.0     # seconds


class SimulatedService(HttpEmailService):
    """One account at a simulated provider."""

    provider = 'simulated'
    rules = (Rule(Kind.rejected, (400,), 'rejected'),
             Rule(Kind.refused, (403,), 'domain', DOMAIN_ONLY))

    def __init__(self, name, settings, domain, process, provider):
        super().__init__(name, settings, domain, process.clock)
        plan = process.world.plan
        self.capabilities = Capabilities(envelope=name in plan.envelopes)
        self.evidence = EVIDENCE.get(
            dict(plan.evidence).get(name), Evidence())
        self.transport = Wire(process, provider)
        self._process, self._provider = process, provider

    def credential(self):
        return self.name

    def build(self, email, context):
        return Request('POST', f'https://{self.name}.example/send', {},
                       json.dumps({
                           'letter': int(email.subject),
                           'message': context.message_id,
                           'attempt': context.attempt_id,
                           'key': context.idempotency_key,
                           'to': [one.email for one in
                                  context.recipients_of(email)]}).encode())

    def accepted(self, answer):
        return (answer.json or {}).get('id')

    def interpret(self, answer, email, context):
        results = (answer.json or {}).get('results')
        if results is None:
            return super().interpret(answer, email, context)
        return fared(self.name, context.attempt_id, results,
                     http_status=answer.status)

    def look_up(self, context):
        self._process.point('look-up', context.message_id)
        results = self._provider.knows(context.attempt_id)
        return results and fared(self.name, context.attempt_id, results)

    def probe(self):
        self._process.point('probe', self.name)
        return ProbeResult(self._provider.is_serving(), 'as simulated')

    def build_probes(self):
        return ()

    def interpret_probe(self, *answers):
        return ProbeResult(None, 'is not asked over the wire')


def fared(service: str, attempt_id: str, results: dict,
          **more) -> Outcome:
    """Return what a provider's word on each recipient comes to."""
    return together([
        RecipientOutcome(
            email=address, kind=Kind(kind),
            reason='' if kind == 'accepted' else f'it is {kind}',
            provider_message_id=f'{service}-{attempt_id}'
            if kind == 'accepted' else None)
        for address, kind in sorted(results.items())], **more)


class Wire:
    """In the place of `Transport`: the same calls, and the same ends."""

    def __init__(self, process, provider):
        self._process = process
        self._provider = provider
        self._means = means_of(process.clock)

    def call(self, request, deadline):
        process, world = self._process, self._process.world
        asked = json.loads(request.body)
        letter = world.plan.letters[asked['letter']]
        exchange = self._provider.exchange(letter)
        call = Call(self._means, deadline)      # it holds the deadline
        about = f'{self._provider.name} {asked["message"]}'
        try:
            self._connect(call, exchange, about)
            call.left()
        except TimeoutError:
            return Fault(Stage.nothing, 'no time is left')
        except ConnectionRefusedError:
            return Fault(Stage.nothing, 'it refuses the connection')
        world.first_byte(process, self._provider.name, asked)
        if letter.poison and not world.is_calm:
            world.poisoned(process, letter, asked['message'])
        process.point('written', about)
        if exchange.script == 'reset_in_write':
            return Fault(Stage.nothing, 'reset before all was written')
        return self._answer(call, exchange, asked, about)

    def _connect(self, call, exchange, about):
        self._process.point('connect', about)
        if exchange.script == 'refuse':
            raise ConnectionRefusedError
        if exchange.script == 'connect_hangs':
            self._process.wait(min(CONNECT_LIMIT, call.left()))
            raise TimeoutError

    def _answer(self, call, exchange, asked, about):
        """What was written reaches the provider, whatever becomes of us."""
        process, world = self._process, self._process.world
        scheduler = world.scheduler
        written_at, came = scheduler.time, []
        scheduler.call(exchange.decides, lambda: came.append(
            self._provider.decide(exchange.script, asked)))
        wanted = written_at + exchange.decides
        try:
            process.wait(min(call.left(), exchange.decides))
            if came:
                process.point('taken', about)
            wanted += exchange.answers
            process.wait(max(0.0, min(
                call.left(), wanted - scheduler.time)))
            process.point('answered', about)
            call.left()
        except TimeoutError:
            return Fault(Stage.written, 'no answer in time')
        if not came or exchange.answer_lost or scheduler.time < wanted:
            return Fault(Stage.written, 'the connection broke')
        if came[0].status == 202:
            world.hear(process, asked)
        return came[0]
