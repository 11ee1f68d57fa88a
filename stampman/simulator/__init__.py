"""Fake providers on loopback, with a ledger of what they took and faults.

They are written from what the providers document, not from Stampman's own
services, and are stricter than the providers themselves: what a provider
would ignore is an error here.
"""

from stampman.simulator.faults import WrongFault
from stampman.simulator.server import KEYS, PARTS, Simulator

__all__ = ['KEYS', 'PARTS', 'Simulator', 'WrongFault']
