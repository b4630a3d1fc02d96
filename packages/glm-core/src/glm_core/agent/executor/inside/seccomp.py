"""A small system-call filter: what no Python program needs and what opens a way out.

The filter allows by default. Namespaces, mounts, tracing, kernel modules, key rings and io_uring
are where sandboxes are broken; sockets other than Unix ones are refused because some families
(vsock) know no network namespace; memory that belongs to no process (memfd, System V) escapes the
limits.

Source: seccomp(2), bpf filters as in Documentation/userspace-api/seccomp_filter.rst of Linux.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from . import libc

DENIED: dict[str, dict[str, int]] = {
    "x86_64": {
        "acct": 163, "add_key": 248, "bpf": 321, "chroot": 161, "delete_module": 176,
        "fanotify_init": 300, "finit_module": 313, "init_module": 175, "ioperm": 173, "iopl": 172,
        "kcmp": 312, "kexec_file_load": 320, "kexec_load": 246, "keyctl": 250, "memfd_create": 319,
        "modify_ldt": 154, "mount": 165, "mq_open": 240, "msgget": 68, "name_to_handle_at": 303,
        "open_by_handle_at": 304, "perf_event_open": 298, "personality": 135, "pivot_root": 155,
        "process_vm_readv": 310, "process_vm_writev": 311, "ptrace": 101, "quotactl": 179,
        "reboot": 169, "request_key": 249, "semget": 64, "setdomainname": 171, "sethostname": 170,
        "setns": 308, "shmget": 29, "swapoff": 168, "swapon": 167, "syslog": 103, "umount2": 166,
        "unshare": 272, "userfaultfd": 323, "vhangup": 153,
    },
    "aarch64": {
        "acct": 89, "add_key": 217, "bpf": 280, "chroot": 51, "delete_module": 106,
        "fanotify_init": 262, "finit_module": 273, "init_module": 105, "kcmp": 272,
        "kexec_file_load": 294, "kexec_load": 104, "keyctl": 219, "memfd_create": 279,
        "mount": 40, "mq_open": 180, "msgget": 186, "name_to_handle_at": 264,
        "open_by_handle_at": 265, "perf_event_open": 241, "personality": 92, "pivot_root": 41,
        "process_vm_readv": 270, "process_vm_writev": 271, "ptrace": 117, "quotactl": 60,
        "reboot": 142, "request_key": 218, "semget": 190, "setdomainname": 162, "sethostname": 161,
        "setns": 268, "shmget": 194, "swapoff": 225, "swapon": 224, "syslog": 116, "umount2": 39,
        "unshare": 97, "userfaultfd": 282, "vhangup": 58,
    },
}  # fmt: skip
"""Numbers that differ between architectures."""

DENIED_EVERYWHERE = {
    "fsconfig": 431, "fsmount": 432, "fsopen": 430, "fspick": 433, "io_uring_enter": 426,
    "io_uring_register": 427, "io_uring_setup": 425, "memfd_secret": 447, "mount_setattr": 442,
    "move_mount": 429, "open_tree": 428, "pidfd_getfd": 438, "process_madvise": 440,
    "quotactl_fd": 443,
}  # fmt: skip

INSPECTED = {
    "x86_64": {"clone": 56, "socket": 41, "ioctl": 16, "clone3": 435},
    "aarch64": {"clone": 220, "socket": 198, "ioctl": 29, "clone3": 435},
}
"""System calls that are allowed or refused by their arguments."""

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000  # x86-64's second set of numbers, which would go round the first
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_AF_UNIX = 1

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENT_0, _ARGUMENT_1 = 0, 4, 16, 24  # offsets in struct seccomp_data
_ALLOW, _KILL = 0x7FFF0000, 0x80000000


def _refuse(number: int) -> int:
    return 0x00050000 | number  # SECCOMP_RET_ERRNO


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _when(number: int, steps: list[bytes]) -> list[bytes]:
    """Steps that are taken for one system call and end with a return."""
    return [_step(_EQUAL, number, 0, len(steps)), *steps]


def program(machine: str) -> bytes:
    """Returns the filter as an array of struct sock_filter.

    Args:
        machine: as in `os.uname().machine`.

    Raises:
        OSError: the numbers of this architecture's system calls are not known here.
    """
    if machine not in DENIED:
        raise OSError(
            errno.ENOSYS,
            f"the sandbox's system-call filter knows x86_64 and aarch64, not {machine}",
        )
    refused = _step(_RETURN, _refuse(errno.EPERM))
    allowed = _step(_RETURN, _ALLOW)
    inspected = INSPECTED[machine]
    steps = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_EQUAL, _AUDIT_ARCH[machine], 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
    ]
    if machine == "x86_64":
        steps += [_step(_AT_LEAST, _X32_BIT, 0, 1), _step(_RETURN, _refuse(errno.ENOSYS))]
    for number in sorted([*DENIED[machine].values(), *DENIED_EVERYWHERE.values()]):
        steps += _when(number, [refused])
    # clone3 keeps its flags in memory, where a filter cannot look; libc then falls back to clone.
    steps += _when(inspected["clone3"], [_step(_RETURN, _refuse(errno.ENOSYS))])
    namespaces = [_step(_LOAD, _ARGUMENT_0), _step(_ANY_BIT, _NEW_NAMESPACES, 0, 1), refused]
    steps += _when(inspected["clone"], [*namespaces, allowed])
    families = [_step(_LOAD, _ARGUMENT_0), _step(_EQUAL, _AF_UNIX, 1, 0)]
    steps += _when(inspected["socket"], [*families, _step(_RETURN, _refuse(errno.EACCES)), allowed])
    terminals = [
        _step(_LOAD, _ARGUMENT_1),
        _step(_EQUAL, _TIOCSTI, 1, 0),
        _step(_EQUAL, _TIOCLINUX, 0, 1),
        refused,
    ]
    steps += _when(inspected["ioctl"], [*terminals, allowed])
    return b"".join([*steps, allowed])


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def install() -> None:
    """Puts the filter before every later system call of this process and its children.

    Raises:
        OSError: the architecture or the kernel has no such filter.
    """
    code = program(os.uname().machine)
    libc.prctl_pointer(libc.PR_SET_SECCOMP, 2, _Program(len(code) // 8, code))
