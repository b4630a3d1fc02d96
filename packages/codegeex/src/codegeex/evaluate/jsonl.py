"""Files of one JSON object per line, compressed or not; ours can be added to after a break."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

Row = dict[str, Any]
_BLOCK = 1 << 16


def read_rows(path: Path, may_be_cut: bool = False) -> Iterator[tuple[int, Row]]:
    """Yields line number and object of a .jsonl or .jsonl.gz file; empty lines are skipped.

    Args:
        path: of the file.
        may_be_cut: whether a last line without its end is skipped: a break has left it so.

    Raises:
        ValueError: a line is no JSON object, or the file is not compressed as its name says.
        OSError: the file cannot be read.
    """
    number = 0
    try:
        with _open(path) as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip() and (line.endswith("\n") or not may_be_cut):
                    yield number, _parsed(path, number, line)
    except (gzip.BadGzipFile, EOFError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} cannot be read after line {number} ({error}): it must be .jsonl in UTF-8, or "
            ".jsonl.gz compressed with gzip"
        ) from error


def field(row: Mapping[str, Any], name: str, where: str, default: str | None = None) -> str:
    """Returns a text of an object.

    Args:
        row: the object.
        name: of the text.
        where: the object's place, for messages.
        default: where it is missing or null; None: it must be there.

    Raises:
        ValueError: it is missing, or no text.
    """
    value = row.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise ValueError(f"{where}: {name!r} is {value!r}, and must be a text")
    return value


def cut_off_torn_line(path: Path) -> None:
    """Removes a last line that a break has left without its end, so that rows can be added."""
    with path.open("rb+") as file:
        end = position = file.seek(0, io.SEEK_END)
        while position > 0:
            start = max(0, position - _BLOCK)
            file.seek(start)
            found = file.read(position - start).rfind(b"\n")
            if found >= 0:
                position = start + found + 1
                break
            position = start
        if position < end:
            file.truncate(position)


def append_row(file: TextIO, row: Mapping[str, Any]) -> None:
    """Writes an object as a line, which is in the file when this returns."""
    file.write(json.dumps(row, ensure_ascii=False) + "\n")
    file.flush()


def _open(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.open(path), encoding="utf-8", newline="\n")
    return path.open(encoding="utf-8", newline="\n")


def _parsed(path: Path, number: int, line: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{path}, line {number} is no JSON: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"{path}, line {number} must be a JSON object, not {line[:40].strip()!r}")
    return row
