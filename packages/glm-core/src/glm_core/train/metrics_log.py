"""metrics.jsonl: one JSON object per logged step, never a step twice."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of a metrics file; a last line cut short by a kill is left out."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and "step" in row:
            rows.append(row)
    return rows


def truncate_metrics(path: Path, step: int) -> None:
    """Drop the rows after `step`: the steps that a resumed run is about to do again."""
    if not path.is_file():
        return
    kept = [row for row in read_metrics(path) if row["step"] <= step]
    replace_text(path, "".join(map(_line, kept)))


def append_metrics(path: Path, row: Mapping[str, Any]) -> None:
    """Add one row; visible to readers at once."""
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(_line(row))
    except OSError as error:
        raise _cannot_write(path, error) from error


def replace_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all: what was there stays until the new one is written.

    Raises:
        OSError: if the disk is full or not writable.
    """
    temporary = path.with_name(f".{path.name}.writing")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> OSError:
    return OSError(
        error.errno,
        f"cannot write {path} ({error.strerror or error}). Checkpoints are untouched: free some"
        " space and run the same command again to resume",
    )


def _line(row: Mapping[str, Any]) -> str:
    # NaN and infinity are no JSON
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }
    return json.dumps(finite, ensure_ascii=False) + "\n"
