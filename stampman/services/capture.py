"""Capture: a service that takes every email and sends none.

For a machine without an account anywhere. The store keeps the message, and
the browser shows it; nothing leaves Stampman, and every answer says so by
`simulated`.
"""

from stampman.helpers.delivery import Kind, Outcome
from stampman.services.base import (
    AbstractEmailService, Capabilities, ProbeResult)


class CaptureEmailService(AbstractEmailService):
    """Takes whatever can be an email."""

    provider = 'capture'
    capabilities = Capabilities(smtputf8=True, envelope=True)

    def send_email(self, email, context):
        return Outcome(
            kind=Kind.accepted, simulated=True,
            provider_message_id=f'capture-{context.attempt_id}')

    def probe(self):
        return ProbeResult(True, 'emails are kept and shown, never sent')
