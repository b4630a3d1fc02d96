"""Builds the sandbox's file system where no other program does."""

from __future__ import annotations

import os
from typing import Any

from . import libc

_NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND, _REC, _PRIVATE = 2, 4, 8, 32, 4096, 16384, 1 << 18
_READ_ONLY = 1 | 2 | 4  # mount_setattr(2): RDONLY, NOSUID, NODEV
_BASE = "/tmp"  # any folder that exists: it is hidden only in this mount namespace


def build(mounts: list[dict[str, Any]]) -> None:
    """Makes a new root of `mounts` (fields of view.Mount), and leaves the old one behind.

    The caller is alone in a mount namespace of its own, with the right to mount.

    Raises:
        OSError: the system refuses a step; the message names it.
    """
    libc.mount("none", "/", "", _REC | _PRIVATE)
    # Sources are opened first: the new root may hide the folders in which they lie.
    sources = {
        mount["source"]: os.open(mount["source"], os.O_PATH)
        for mount in mounts
        if mount["kind"] in ("bind", "device")
    }
    libc.mount("tmpfs", _BASE, "tmpfs", _NOSUID | _NODEV, "mode=755,size=1m")
    for mount in mounts:
        _add(mount, sources)
    os.chdir(_BASE)
    libc.set_mount_attributes(".", _READ_ONLY, recursive=False)
    libc.pivot_root(".", ".")  # the old root now lies on top of the new one
    libc.detach(".")
    os.chdir("/")
    for descriptor in sources.values():
        os.close(descriptor)


def _add(mount: dict[str, Any], sources: dict[str, int]) -> None:
    kind, target = mount["kind"], _BASE + mount["target"]
    folder = target if kind in ("tmpfs", "proc") else os.path.dirname(target)
    os.makedirs(folder, mode=0o755, exist_ok=True)
    if kind == "symlink":
        os.symlink(mount["source"], target)
    elif kind == "text":
        with open(target, "w") as file:
            file.write(mount["source"])
    elif kind == "proc":
        libc.mount("proc", target, "proc", _NOSUID | _NODEV | _NOEXEC)
    elif kind == "tmpfs":
        libc.mount("tmpfs", target, "tmpfs", _NOSUID | _NODEV, _tmpfs_options(mount))
    else:
        _bind(sources[mount["source"]], target, is_device=kind == "device")


def _bind(source: int, target: str, is_device: bool) -> None:
    path = f"/proc/self/fd/{source}"
    if os.path.isdir(path):
        os.makedirs(target, mode=0o755, exist_ok=True)
    else:
        with open(target, "w"):
            pass
    libc.mount(path, target, "", _BIND | _REC)
    if not is_device:
        libc.set_mount_attributes(target, _READ_ONLY, recursive=True)


def limit_files(mounts: list[dict[str, Any]]) -> None:
    """Limits the number of files where another program mounted the folders. Raises: OSError."""
    for mount in mounts:
        if mount["kind"] == "tmpfs":
            flags = _REMOUNT | _NOSUID | _NODEV
            libc.mount("tmpfs", mount["target"], "tmpfs", flags, _tmpfs_options(mount))


def _tmpfs_options(mount: dict[str, Any]) -> str:
    return f"mode=755,size={mount['size']},nr_inodes={mount['files']}"
