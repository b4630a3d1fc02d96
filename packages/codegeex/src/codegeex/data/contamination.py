"""Finds the problems of a benchmark in training text.

The unit is a word 10-gram. A text holds a problem when it has at least half of the 10-grams of the
problem's prompt, or of its solution where that is long enough to be told from any other code.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegeex.data.files import RECORDS
from codegeex.data.minhash import shingles

NGRAM_WORDS = 10
MIN_SHARE = 0.5
_MIN_GRAMS = 5
_PROMPTS = ("prompt", "text")
_SOLUTIONS = ("canonical_solution", "solution", "code", "reference")


@dataclass(frozen=True)
class Benchmarks:
    """10-grams of all problems, sorted, each with the group (a prompt or a solution) it is of."""

    grams: NDArray[np.uint32]
    groups: NDArray[np.int64]
    sizes: NDArray[np.int64]
    """Different 10-grams of each group."""
    names: Sequence[str]
    """Problem of each group."""

    def problem_in(self, text: str) -> str:
        """The problem that most of a text's matches belong to; "" if it holds none."""
        found = np.unique(shingles(text, NGRAM_WORDS))
        low = np.searchsorted(self.grams, found, "left")
        high = np.searchsorted(self.grams, found, "right")
        hits = np.zeros(len(self.names), dtype=np.int64)
        for start, stop in zip(low[high > low], high[high > low], strict=True):
            hits[self.groups[start:stop]] += 1
        shares = hits / np.maximum(self.sizes, 1)
        best = int(shares.argmax()) if len(shares) else 0
        return self.names[best] if len(shares) and shares[best] >= MIN_SHARE else ""


def benchmark_files(places: Sequence[str]) -> list[Path]:
    """The files that are named, and the .jsonl and .jsonl.gz files of folders that are.

    Raises:
        ValueError: for a place where there is none.
    """
    found: list[Path] = []
    for place in places:
        path = Path(place).expanduser()
        inside = sorted(file for file in path.rglob("*.jsonl*") if file.name.endswith(RECORDS))
        if path.is_dir() and not inside:
            raise ValueError(
                f"--decontaminate {place} holds no .jsonl or .jsonl.gz file: name HumanEval-X's"
            )
        found.extend(inside if path.is_dir() else [path])
    return found


@lru_cache(maxsize=1)
def load_benchmarks(places: tuple[str, ...]) -> Benchmarks:
    """Reads files with one problem a line: HumanEval-X's, and others with such fields.

    Raises:
        ValueError: for a file that is missing, or a line without a prompt or a solution.
    """
    grams: list[NDArray[np.uint32]] = []
    names: list[str] = []
    for name, text in (pair for file in benchmark_files(places) for pair in _problems(file)):
        group = np.unique(shingles(text, NGRAM_WORDS))
        if len(group) >= _MIN_GRAMS:
            grams.append(group)
            names.append(name)
    sizes = np.array([len(group) for group in grams], dtype=np.int64)
    groups = np.repeat(np.arange(len(grams)), sizes)
    together = np.concatenate(grams) if grams else np.zeros(0, dtype=np.uint32)
    order = together.argsort(kind="stable")
    return Benchmarks(together[order], groups[order], sizes, names)


def _problems(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise ValueError(
                f"--decontaminate {place} is not valid JSON: name a file with one problem a line"
            ) from error
        texts = [*_texts(fields, _PROMPTS), *_texts(fields, _SOLUTIONS)]
        if not texts:
            raise ValueError(
                f"--decontaminate {place} has no field prompt or canonical_solution: name a file "
                "in HumanEval-X's format"
            )
        name = str(fields.get("task_id", f"{path.name}:{number}"))
        yield from ((name, text) for text in texts)


def _texts(fields: Any, names: Sequence[str]) -> list[str]:
    if not isinstance(fields, dict):
        return []
    found = [fields[name] for name in names if isinstance(fields.get(name), str)]
    return found[:1]


def _lines(path: Path) -> list[bytes]:
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.suffix == ".gz" else raw).splitlines()
    except (OSError, EOFError) as error:
        told = getattr(error, "strerror", None) or error
        raise ValueError(
            f"--decontaminate {path} cannot be read ({told}): name HumanEval-X's .jsonl or "
            ".jsonl.gz files"
        ) from error
