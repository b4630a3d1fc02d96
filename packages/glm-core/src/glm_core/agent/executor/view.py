"""What the code in a sandbox sees: the system, one Python, and two folders of its own."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from glm_core.agent.executor.limits import MIB, ExecutorLimits
from glm_core.agent.executor.protocol import WORK_FOLDER, SandboxUnavailable

INSIDE = Path(__file__).parent / "inside"
INSIDE_TARGET = "/sandbox/inside"
RUN_FOLDER = "/run/kernel"
"""Holds the kernel's sockets."""

FOLDER_MODES = {WORK_FOLDER: 0o777, "/tmp": 0o777, RUN_FOLDER: 0o777}

_SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_SETTINGS = ("alternatives", "fonts", "ld.so.cache", "localtime")
_DEVICES = ("null", "zero", "full", "random", "urandom")


@dataclass(frozen=True, kw_only=True)
class Mount:
    """One thing in the sandbox's file system."""

    kind: Literal["bind", "device", "symlink", "text", "tmpfs", "proc"]
    """`bind` is read-only."""
    target: str
    source: str = ""
    """A path of the machine; where a symlink leads; the content of a text."""
    size: int = 0
    """Bytes that fit into a tmpfs."""
    files: int = 0
    """Files and folders that fit into a tmpfs."""


def sandbox_view(
    limits: ExecutorLimits, uid: int, folders: tuple[str, ...] = ()
) -> tuple[Mount, ...]:
    """Returns the mounts of a sandbox, outer folders before what lies in them.

    Args:
        limits: sizes of the folders that may be written.
        uid: the user inside, named in /etc/passwd.
        folders: more of the machine that can be read, under the names that they have there.

    Raises:
        SandboxUnavailable: the Python environment is a folder that holds more than Python.
    """
    size, files = limits.disk_bytes, limits.disk_files
    return (
        Mount(kind="tmpfs", target="/tmp", size=size, files=files),
        Mount(kind="tmpfs", target=WORK_FOLDER, size=size, files=files),
        Mount(kind="tmpfs", target=RUN_FOLDER, size=MIB, files=64),
        Mount(kind="bind", source="/usr", target="/usr"),
        *(_system(name) for name in _SYSTEM if os.path.lexists(f"/{name}")),
        *(_bind(f"/etc/{name}") for name in _SETTINGS if os.path.exists(f"/etc/{name}")),
        Mount(kind="text", target="/etc/passwd", source=f"sandbox:x:{uid}:{uid}::/tmp:/bin/sh\n"),
        Mount(kind="text", target="/etc/group", source=f"sandbox:x:{uid}:\n"),
        *(_bind(folder) for folder in sorted({*python_prefixes(), *folders})),
        Mount(kind="bind", source=str(INSIDE), target=INSIDE_TARGET),
        *(Mount(kind="device", source=f"/dev/{n}", target=f"/dev/{n}") for n in _DEVICES),
        Mount(kind="symlink", source="/proc/self/fd", target="/dev/fd"),
        Mount(kind="symlink", source="/tmp", target="/dev/shm"),
        Mount(kind="proc", target="/proc"),
    )


def python_prefixes() -> list[str]:
    """Returns the folders of this Python and of its virtual environment, wherever they are.

    Raises:
        SandboxUnavailable: one of them is the home folder or a folder around it.
    """
    prefixes: list[str] = []
    for prefix in dict.fromkeys((sys.base_prefix, sys.prefix)):
        home = Path.home()
        if Path(prefix) == home or Path(prefix) in home.parents:
            raise SandboxUnavailable(
                f"the Python environment {prefix} holds the home folder {home}, which the sandbox "
                "must not see: run from a virtual environment (python3 -m venv .venv)"
            )
        if not any(Path(prefix).is_relative_to(known) for known in ["/usr", *prefixes]):
            prefixes.append(prefix)
    return prefixes


def environment(work_folder: str, home: str) -> dict[str, str]:
    """Returns the environment variables of the code; none of the caller's are among them."""
    threads = str(min(4, os.cpu_count() or 1))
    return {
        "PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin",
        "HOME": home,
        "TMPDIR": home,
        "PWD": work_folder,
        "USER": "sandbox",
        "LOGNAME": "sandbox",
        "LANG": "C.UTF-8",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        # Threads count as processes, and the memory that they reserve counts as memory.
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "MALLOC_ARENA_MAX": "2",
    }


def _bind(path: str) -> Mount:
    return Mount(kind="bind", source=path, target=path)


def _system(name: str) -> Mount:
    """A folder of the root: a link into /usr on most systems."""
    path = f"/{name}"
    if os.path.islink(path):
        return Mount(kind="symlink", source=os.readlink(path), target=path)
    return _bind(path)
