"""Permissions of files that bind whoever runs the tests, root too."""

import ctypes
import os
import sys

_VERSION = 0x20080522       # of the structures, by capset(2)
_OVERRIDES = (1, 2)         # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


class _Header(ctypes.Structure):
    _fields_ = [('version', ctypes.c_uint32), ('pid', ctypes.c_int)]


class _Sets(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32)
                for name in ('effective', 'permitted', 'inheritable')]


def obey_permissions() -> None:
    """Give up, in all of this process, what lets root pass over them.

    Elsewhere than on Linux root keeps it. Raises OSError where it fails.
    """
    if not sys.platform.startswith('linux'):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = _Header(_VERSION, 0), (_Sets * 2)()
    _done(libc.capget(ctypes.byref(header), sets))
    for capability in _OVERRIDES:
        for name in ('effective', 'permitted', 'inheritable'):
            kept = getattr(sets[0], name) & ~(1 << capability)
            setattr(sets[0], name, kept)
    _done(libc.capset(ctypes.byref(header), sets))


def _done(result):
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
