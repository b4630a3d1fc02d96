"""What a process gives up before it runs code that nobody has read."""

from __future__ import annotations

import os
import resource
from typing import Any

from . import libc, seccomp

_WARDEN_KEEPS = frozenset({1, 5, 6, 7, 8, 19})
"""CAP_DAC_OVERRIDE, KILL, SETGID, SETUID, SETPCAP, SYS_PTRACE: to start, count and end the rest."""


def lower_warden() -> None:
    """Leaves the first process of a sandbox what it needs to rule the others, and no more."""
    held = _held_capabilities()
    _forbid_capabilities(keep=_WARDEN_KEEPS)
    libc.prctl(libc.PR_CAP_AMBIENT, libc.PR_CAP_AMBIENT_CLEAR_ALL)
    libc.set_capabilities(held & _WARDEN_KEEPS)
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    libc.prctl(libc.PR_SET_DUMPABLE, 0)  # nobody of the same user may look into it


def lower_child(uid: int | None, limits: dict[str, Any]) -> None:
    """Becomes an ordinary user without capabilities, under limits and the system-call filter.

    Args:
        uid: user and group to become; None where the sandbox has only one user.
        limits: fields of ExecutorLimits.
    """
    _forbid_capabilities(keep=frozenset())
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    libc.set_capabilities(frozenset())
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    set_limits(limits)
    # Counted by the kernel for each user (and user namespace), never for the machine's root.
    resource.setrlimit(resource.RLIMIT_NPROC, (limits["processes"],) * 2)
    seccomp.install()


def set_limits(limits: dict[str, Any]) -> None:
    """Sets the limits that the kernel enforces for each process.

    Memory is limited as data (private, writable), and four times as much as addresses: libraries
    map large read-only files that take no memory.
    """
    memory = limits["memory_bytes"]
    for kind, value in {
        resource.RLIMIT_DATA: memory,
        resource.RLIMIT_AS: 4 * memory,
        resource.RLIMIT_NOFILE: limits["open_files"],
        resource.RLIMIT_FSIZE: limits["file_bytes"],
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }.items():
        _, hard = resource.getrlimit(kind)
        least = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (least, least))


def _forbid_capabilities(keep: frozenset[int]) -> None:
    """Makes it impossible to gain capabilities by running a program."""
    with open("/proc/sys/kernel/cap_last_cap") as file:
        last = int(file.read())
    for capability in frozenset(range(last + 1)) - keep:
        libc.prctl(libc.PR_CAPBSET_DROP, capability)


def _held_capabilities() -> frozenset[int]:
    """Returns the permitted capabilities of this process."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("CapPrm:"))
    mask = int(line.split()[1], 16)
    return frozenset(number for number in range(64) if mask >> number & 1)
