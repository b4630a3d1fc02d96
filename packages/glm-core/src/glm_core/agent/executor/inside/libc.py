"""System calls that Python's standard library lacks."""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

SYS_MOUNT_SETATTR = 442  # the same number on every architecture
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}


def prctl(option: int, *arguments: int) -> None:
    """Calls prctl(2). Raises: OSError."""
    values = [ctypes.c_ulong(value) for value in (*arguments, *[0] * (4 - len(arguments)))]
    _check(_libc.prctl(option, *values), f"prctl {option}")


def prctl_pointer(option: int, mode: int, pointer: ctypes.Structure) -> None:
    """Calls prctl(2) with a structure as third argument. Raises: OSError."""
    _check(_libc.prctl(option, ctypes.c_ulong(mode), ctypes.byref(pointer)), f"prctl {option}")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """Calls mount(2). Raises: OSError."""
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode()
    )
    _check(result, f"mount {kind or 'bind'} on {target}")


def detach(target: str) -> None:
    """Unmounts a tree as soon as nothing uses it. Raises: OSError."""
    _check(_libc.umount2(target.encode(), 2), f"umount {target}")


def pivot_root(new: str, old: str) -> None:
    """Calls pivot_root(2). Raises: OSError."""
    number = SYS_PIVOT_ROOT[os.uname().machine]
    _check(_libc.syscall(ctypes.c_long(number), new.encode(), old.encode()), "pivot_root")


class _MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]


def set_mount_attributes(target: str, attributes: int, recursive: bool) -> None:
    """Sets attributes of a mount, and of all mounts below it if `recursive`. Raises: OSError."""
    wanted = _MountAttributes(set=attributes)
    at_fdcwd, at_recursive = -100, 0x8000
    result = _libc.syscall(
        ctypes.c_long(SYS_MOUNT_SETATTR),
        ctypes.c_int(at_fdcwd),
        target.encode(),
        ctypes.c_uint(at_recursive if recursive else 0),
        ctypes.byref(wanted),
        ctypes.c_size_t(ctypes.sizeof(wanted)),
    )
    _check(result, f"mount_setattr {target} (needs Linux 5.12)")


class _CapabilityHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _CapabilityData(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]


def set_capabilities(capabilities: frozenset[int]) -> None:
    """Keeps these capabilities of this process and inherits none. Raises: OSError."""
    header = _CapabilityHeader(version=0x20080522, pid=0)
    data = (_CapabilityData * 2)()
    for capability in capabilities:
        data[capability // 32].effective |= 1 << capability % 32
        data[capability // 32].permitted |= 1 << capability % 32
    _check(_libc.capset(ctypes.byref(header), data), "capset")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
