"""Who holds a message, and for how long: told by what the store was asked,
on a clock that no jump moves."""

from simulation.ledger import History

RELEASES = {'end': 1, 'finish': 0, 'change': 1}    # whose argument says what


class Leases:
    """The leases that the store has given."""

    def __init__(self, scheduler, journal, history: History):
        self._scheduler = scheduler
        self._journal = journal
        self._history = history
        self._until = {}        # message: virtual time

    def after(self, name: str, args: tuple, found, began: float) -> None:
        """See what was held and is another's now, and note what is given.

        `began`: when the store was asked. No lease begins before that.
        """
        if name == 'add_all':
            self._until |= {
                one.message.id: began + one.claim.lease_until - (
                    one.attempt.started_at if one.attempt
                    else one.message.created_at)
                for one in args[0] if one.claim}
        elif name == 'begin':
            claim, attempt, lease_until = args[:3]
            self._until[claim.message_id] = (
                began + lease_until - attempt.started_at)
        elif name == 'claim_due':
            for one in found:
                self._claimed(one.message.id, args, began)
        elif name in RELEASES:
            released = args[RELEASES[name]]
            released = getattr(released, 'message_id', released)
            if not self._journal.is_held(released):
                self._until.pop(released, None)

    def _claimed(self, message_id, args, began):
        if message_id in self._until:
            self._history.counts['rescues'] += 1
            left = self._until[message_id] - self._scheduler.time
            if left > 0.01:
                self._history.violated(
                    'I8', f'{message_id} is rescued {left:.1f} s before its '
                    'lease has run out')
        _, now, lease_until = args[:3]
        self._until[message_id] = began + lease_until - now

    def end_all(self) -> None:
        """Nobody holds anything over a reboot."""
        self._until.clear()
