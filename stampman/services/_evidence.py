"""Evidence: how a provider may tell what became of an uncertain attempt."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from stampman.helpers.delivery import MAX_CRASHES, Attempt, Message

SHORTEST_PAUSE, LONGEST_PAUSE = 1.0, 900.0  # seconds between two looks


class Evidence(NamedTuple):
    """What a service can tell of an attempt that got no answer.

    `replay`: for so many seconds after its start the provider, sent the same
    again under `SendContext.idempotency_key`, answers for the first time and
    takes nothing twice. `look_up`: it can be asked by our ids. `events`: it
    reports to us by itself.
    """

    replay: float = 0.0
    look_up: bool = False
    events: bool = False

    @property
    def is_given(self) -> bool:
        return bool(self.replay or self.look_up or self.events)

    def can_be_asked(self, attempt: Attempt, message: Message,
                     at: float) -> bool:
        """Say whether asking at a time may tell of `attempt`."""
        return self.look_up or self.can_replay(attempt, message, at)

    def can_replay(self, attempt: Attempt, message: Message,
                   at: float) -> bool:
        """Say whether `attempt` may be replayed at a time. That may send
        what was not taken: not after the message's time, and not what takes
        the process down with it."""
        return (message.crashes < MAX_CRASHES and at < message.expires_at
                and 0 <= at - attempt.started_at < self.replay)


def waited_for(message: Message, services: Iterable, now: float,
               wait: float) -> float | None:
    """Return until when evidence is waited for, before anybody else is
    asked; None where it is not. `wait` is in seconds."""
    until = max((attempt.ended_at + wait for attempt, service
                 in _open(message, services)
                 if service.evidence.is_given and attempt in message.recent
                 and attempt.ended_at <= now), default=now)
    return until if until > now else None


def to_ask(message: Message, services: Iterable, now: float,
           wait: float) -> list[tuple[Attempt, object]]:
    """Return the attempts whose providers may be asked now."""
    return [(attempt, service) for attempt, service
            in _open(message, services)
            if service.evidence.can_be_asked(attempt, message, now)
            and not now < attempt.ended_at + wait <= now + wait]


def next_look(message: Message, services: Iterable, now: float,
              wait: float) -> float | None:
    """Return when asking may tell something next; None: never.

    The older an attempt is, the longer are the pauses.
    """
    times = []
    for attempt, service in _open(message, services):
        age = now - attempt.ended_at
        at = attempt.ended_at + wait if 0 <= age < wait else \
            now + min(LONGEST_PAUSE, max(wait, age, SHORTEST_PAUSE))
        at = min(at, message.expires_at)
        if now < at and service.evidence.can_be_asked(attempt, message, at):
            times.append(at)
    return min(times, default=None)


def _open(message, services) -> Iterator[tuple[Attempt, object]]:
    """What is uncertain, one attempt for each and its replays."""
    by_name = {service.name: service for service in services}
    first = {attempt.root: attempt for attempt in reversed(message.attempts)
             if attempt.is_uncertain}
    for attempt in reversed(first.values()):
        service = by_name.get(attempt.service)
        if service and service.provider == attempt.provider:
            yield attempt, service
