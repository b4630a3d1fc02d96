"""The folder that a long job writes: there once it is whole, and otherwise not at all."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glm_core.checkpoint.device_memory import readable
from glm_core.checkpoint.files import publish_folder


def check_target(target: Path) -> None:
    """Refuses to write where something is.

    Raises:
        ValueError: `target` is a file, or a folder that is not empty.
    """
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise ValueError(f"{target} exists already: choose another folder, or delete it first")


def check_disk(target: Path, num_bytes: int) -> None:
    """Refuses to write what does not fit.

    Raises:
        ValueError: the disk of `target` has not so much room.
    """
    free = shutil.disk_usage(_existing(target.absolute().parent)).free
    if free < num_bytes:
        raise ValueError(
            f"{target} needs {readable(num_bytes)} and its disk has {readable(free)} free: free "
            "some space or choose another folder"
        )


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target` that takes its name when the block ends, and goes if it fails.

    What a killed process has left of the same target goes as well.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    parent = target.absolute().parent
    existing = _existing(parent)
    folder = parent / f".writing-{target.name}-{os.getpid()}"
    try:
        _delete_abandoned(target)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        yield folder
        publish_folder(folder, target)
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write {target} ({error.strerror or error}): free some space or choose another "
            "folder; nothing is left behind",
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _delete_empty(parent, existing)


def _existing(folder: Path) -> Path:
    """The folder, or the first above it that exists."""
    while not folder.is_dir():
        folder = folder.parent
    return folder


def _delete_empty(folder: Path, existing: Path) -> None:
    """Deletes the folders below `existing` that were created on the way and hold nothing."""
    while folder != existing and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _delete_abandoned(target: Path) -> None:
    prefix = f".writing-{target.name}-"
    for folder in target.absolute().parent.glob(f"{glob.escape(prefix)}*"):
        pid = folder.name.removeprefix(prefix)
        if pid.isdigit() and not _is_running(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # somebody else's
    return True
