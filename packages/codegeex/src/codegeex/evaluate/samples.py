"""What a model wrote for problems: files of samples."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from codegeex.evaluate.jsonl import Row, field, read_rows

TEXTS = ("generation", "completion")
"""Names of the text, in the files of CodeGeeX and of HumanEval."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One answer to one problem."""

    task_id: str
    number: int
    """Which answer to this problem it is, counted in the order of the file."""
    text: str
    translated_from: str = ""
    """Prefix of the task_id that it was translated from; empty where nothing was."""

    @property
    def digest(self) -> str:
        """Tells whether a result belongs to this very text."""
        said = f"{self.task_id}\0{self.translated_from}\0{self.text}"
        return hashlib.sha256(said.encode(errors="surrogatepass")).hexdigest()[:16]


def read_samples(path: Path) -> Iterator[Sample]:
    """Yields the samples of a file.

    Raises:
        ValueError: a line is no sample; the message names it.
        OSError: the file cannot be read.
    """
    counts: Counter[str] = Counter()
    for line, row in read_rows(path):
        where = f"{path}, line {line}"
        task_id = field(row, "task_id", where)
        yield Sample(
            task_id=task_id,
            number=counts[task_id],
            text=field(row, _text_name(row, where), where),
            translated_from=field(row, "translated_from", where, default=""),
        )
        counts[task_id] += 1


def _text_name(row: Row, where: str) -> str:
    for name in TEXTS:
        if name in row:
            return name
    raise ValueError(f"{where} has neither 'generation' nor 'completion': it is no sample")
