"""Syncs that fail: the kernel refuses them to one thread, as a disk would.

A filter of system calls (seccomp) does it, without rights and for good, in
the thread that asks for it alone. Linux on x86-64 and ARM64.
"""

import ctypes
import errno
import platform

# fsync and fdatasync, by the machine.
_SYNCS = {'x86_64': (74, 75), 'aarch64': (82, 83)}
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2       # of prctl
_NUMBER, _FIRST_ARGUMENT = 0, 16        # where they stand, in bytes
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _FAIL = 0x7fff0000, 0x00050000 | errno.EIO


class _Instruction(ctypes.Structure):
    _fields_ = [('code', ctypes.c_ushort), ('if_so', ctypes.c_ubyte),
                ('if_not', ctypes.c_ubyte), ('word', ctypes.c_uint32)]


class _Program(ctypes.Structure):
    _fields_ = [('length', ctypes.c_ushort),
                ('instructions', ctypes.POINTER(_Instruction))]


def fail_syncs(of: int | None = None) -> None:
    """Have all syncs that this thread asks for fail from now on, with EIO;
    only those of one file descriptor, if it is given."""
    fsync, fdatasync = _SYNCS[platform.machine()]
    only = [] if of is None else [
        (_LOAD, 0, 0, _FIRST_ARGUMENT), (_IF_EQUAL, 0, 1, of)]
    lines = [
        (_LOAD, 0, 0, _NUMBER), (_IF_EQUAL, 1, 0, fsync),
        (_IF_EQUAL, 0, 1 + len(only), fdatasync),
        *only, (_RETURN, 0, 0, _FAIL), (_RETURN, 0, 0, _ALLOW)]
    instructions = (_Instruction * len(lines))(
        *(_Instruction(*line) for line in lines))
    _prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    _prctl(_SECCOMP, _FILTER, ctypes.byref(
        _Program(len(lines), instructions)), 0, 0)


def _prctl(*arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(*arguments):
        raise OSError(ctypes.get_errno(), 'prctl')
