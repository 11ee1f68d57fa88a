"""Who holds a message, and for how long: told by what the store was asked,
on a clock that no jump moves."""

from simulation.ledger import History


class Leases:
    """The leases that the store has given."""

    def __init__(self, scheduler, journal, history: History):
        self._scheduler = scheduler
        self._journal = journal
        self._history = history
        self._until = {}        # message: virtual time

    def before(self, name: str) -> frozenset[str]:
        """Return what is held before the store is asked."""
        return frozenset(id for id, in self._journal.rows(
            "SELECT id FROM messages WHERE state = 'sending'")
        ) if name == 'claim_due' else frozenset()

    def after(self, name: str, args: tuple, found, held: frozenset) -> None:
        """See what was held and is another's now, and note what is given.

        A lease begins when it is committed.
        """
        now = self._scheduler.time
        if name == 'add_all':
            self._until |= {
                one.message.id: now + one.claim.lease_until - (
                    one.attempt.started_at if one.attempt
                    else one.message.created_at)
                for one in args[0] if one.claim}
        elif name == 'begin':
            claim, attempt, lease_until = args[:3]
            self._until[claim.message_id] = (
                now + lease_until - attempt.started_at)
        elif name == 'claim_due':
            for one in found:
                self._claimed(one.message.id, args, held)

    def _claimed(self, message_id, args, held):
        now = self._scheduler.time
        if message_id in held:
            self._history.counts['rescues'] += 1
            if (left := self._until.get(message_id, now) - now) > 0.01:
                self._history.violated(
                    'I8', f'{message_id} is rescued {left:.1f} s before its '
                    'lease has run out')
        _, began, lease_until = args[:3]
        self._until[message_id] = now + lease_until - began

    def end_all(self) -> None:
        """Nobody holds anything over a reboot."""
        self._until.clear()
