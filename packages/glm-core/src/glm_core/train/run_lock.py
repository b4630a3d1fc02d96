"""Keeps two processes from training in one folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def run_lock(run_dir: Path) -> Iterator[None]:
    """Hold `run_dir/.lock` inside the `with`; the system frees it when the process dies.

    Raises:
        ValueError: if another process holds it, or the folder cannot be written.
    """
    with _open_lock(run_dir) as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                raise ValueError(
                    f"run_dir {run_dir} is in use by another training (process"
                    f" {file.read().strip() or 'unknown'}); wait for it, or choose another run_dir"
                ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _open_lock(run_dir: Path) -> TextIO:
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        return open(run_dir / ".lock", "a+")
    except OSError as error:
        raise ValueError(
            f"run_dir {run_dir} cannot be written ({error.strerror or error}): choose a folder you"
            " can write to"
        ) from error
