"""Pointers of Git LFS: what lies in place of a large file after a clone without git-lfs.

Source: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md (the first line of a pointer).
"""

from __future__ import annotations

from pathlib import Path

_FIRST = b"version https://git-lfs.github.com/spec/"
POINTER_FAULT = (
    "is a Git LFS pointer, which only names the file: run `git lfs pull` in its folder, or "
    "download the file itself"
)


def is_pointer(path: Path) -> bool:
    """Whether a file that can be read is a pointer."""
    with open(path, "rb") as file:
        return file.read(len(_FIRST)) == _FIRST
