"""Compressed files, unpacked into the working folder, so that parts of them can be read."""

from __future__ import annotations

import gzip
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from codegeex.data.files import SourceFile


def unpacked(files: Sequence[SourceFile], folder: Path) -> list[SourceFile]:
    """The files, those in .gz replaced by their contents in `folder`; done once.

    Raises:
        ValueError: for a file that is damaged.
        OSError: for a full disk.
    """
    return [
        _unpack(file, folder / f"{number:05d}.jsonl") if file.path.endswith(".gz") else file
        for number, file in enumerate(files)
    ]


def _unpack(file: SourceFile, target: Path) -> SourceFile:
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        temporary = target.with_suffix(".tmp")
        with temporary.open("wb") as out:
            try:
                with gzip.open(file.path) as stream:
                    shutil.copyfileobj(stream, out, 1 << 20)
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise ValueError(
                    f"{file.path} is damaged ({error}): copy it again, or leave it out"
                ) from error
        temporary.rename(target)
    return replace(file, path=str(target), size=target.stat().st_size)
