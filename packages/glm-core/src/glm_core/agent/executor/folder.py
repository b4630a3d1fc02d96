"""The work folder, from outside: its content was made by code that nobody has read.

Every step goes through descriptors and follows no link, so that no name leads out of the folder.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from glm_core.agent.executor.limits import ExecutorLimits
from glm_core.agent.executor.protocol import WORK_FOLDER, FileEntry

_MAX_DEPTH = 16
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def list_files(root: int) -> list[FileEntry]:
    """Returns the regular files below a folder, down to 16 folders deep, sorted by name.

    Args:
        root: descriptor of the folder.
    """
    device = os.fstat(root).st_dev
    return sorted(_walk(root, "", device), key=lambda entry: entry.name)


def _walk(folder: int, prefix: str, device: int) -> Iterator[FileEntry]:
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + entry.name
            if entry.is_file(follow_symlinks=False):
                yield FileEntry(name, entry.stat(follow_symlinks=False).st_size)
            elif entry.is_dir(follow_symlinks=False) and name.count("/") < _MAX_DEPTH:
                inner = os.open(entry.name, _FOLDER, dir_fd=folder)
                try:
                    if os.fstat(inner).st_dev == device:
                        yield from _walk(inner, name + "/", device)
                finally:
                    os.close(inner)


def read(root: int, name: str, limits: ExecutorLimits) -> bytes:
    """Returns the content of a file.

    Raises:
        ValueError: the name leads out of the folder, or names no regular file of allowed size.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    with _parent(root, name, make=False) as (folder, last):
        descriptor = _open(last, flags, folder, name)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{name!r} is no regular file of the work folder")
        if status.st_size > limits.file_bytes:
            raise ValueError(
                f"{name!r} has {status.st_size} bytes, more than file_bytes={limits.file_bytes}"
            )
        return file.read(limits.file_bytes)


def write(root: int, name: str, data: bytes, limits: ExecutorLimits) -> None:
    """Writes a file that the code may read and change; makes the folders of its name.

    Raises:
        ValueError: the name leads out of the folder, or the data is too large.
    """
    if len(data) > limits.file_bytes:
        raise ValueError(
            f"{name!r} has {len(data)} bytes, more than file_bytes={limits.file_bytes}"
        )
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    with _parent(root, name, make=True) as (folder, last):
        descriptor = _open(last, flags, folder, name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ValueError(f"{name!r} is no regular file of the work folder")
            os.ftruncate(descriptor, 0)
            file.write(data)
            file.flush()
            os.fchmod(descriptor, 0o666)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ValueError(
            f"{name!r} with {len(data)} bytes does not fit into the work folder any more "
            f"(disk_bytes={limits.disk_bytes}): remove files first"
        ) from error


@contextmanager
def _parent(root: int, name: str, make: bool) -> Iterator[tuple[int, str]]:
    """Yields a descriptor of the folder that holds a file, and the file's last name."""
    *folders, last = _parts(name)
    current = os.dup(root)
    try:
        for part in folders:
            is_new = make and _make_folder(part, current, name)
            inner = _open(part, _FOLDER, current, name)
            os.close(current)
            current = inner
            if is_new:
                os.fchmod(current, 0o777)
        yield current, last
    finally:
        os.close(current)


def _parts(name: str) -> tuple[str, ...]:
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/") or "\0" in name:
        raise ValueError(
            f"{name!r} is no name inside the work folder: give it relative to {WORK_FOLDER}, "
            "without '..'"
        )
    return parts


def _make_folder(part: str, parent: int, name: str) -> bool:
    """Returns whether the folder is new."""
    try:
        os.mkdir(part, dir_fd=parent)
        return True
    except FileExistsError:
        return False
    except OSError as error:
        raise _unusable(name, error) from error


def _open(part: str, flags: int, folder: int, name: str) -> int:
    try:
        return os.open(part, flags, 0o666, dir_fd=folder)
    except OSError as error:
        raise _unusable(name, error) from error


def _unusable(name: str, error: OSError) -> ValueError:
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return ValueError(f"{name!r} passes through a link or a file: only folders can hold files")
    return ValueError(f"{name!r} in the work folder: {error.strerror}")
