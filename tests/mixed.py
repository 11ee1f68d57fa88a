"""Recipients that fare differently, as scripted."""

from stampman.helpers.delivery import (
    Kind, Recipient, RecipientOutcome, together)
from stampman.services.base import Capabilities

from fakes import ScriptedService

ANN, BO, CY = 'Ann@example.org', 'bo@example.org', 'cy@example.org'
THREE = tuple(Recipient(email=email, kind='to', status='sending')
              for email in (ANN, BO, CY))


class Mixed(ScriptedService):
    """A service that can also send to some recipients alone."""

    capabilities = Capabilities(envelope=True)


def fared(**kinds):
    """Return an outcome: ann='accepted', bo='deferred', …"""
    names = {'ann': ANN, 'bo': BO, 'cy': CY}
    return together([
        RecipientOutcome(
            email=names[name], kind=Kind(kind),
            reason='' if kind == 'accepted' else f'{name} is {kind}',
            provider_message_id=f'id-of-{name}' if kind == 'accepted'
            else None)
        for name, kind in kinds.items()])


def statuses(message):
    return [str(one.status) for one in message.recipients]
