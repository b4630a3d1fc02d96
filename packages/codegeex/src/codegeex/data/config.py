"""Settings of `prepare_code`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf

from codegeex.fim import SENTINELS
from codegeex.languages import find_language
from glm_core.tokenizer.specials import SPECIAL_TOKENS

INSTALLED_CODE = "installed-code"
STDLIB_CODE = "stdlib-code"
NAMED_SOURCES = (INSTALLED_CODE, STDLIB_CODE)
"""Code that every machine with Python has: all of it, and the standard library alone."""
TRAIN_TOKENIZER = "train"
_MIN_VOCAB_SIZE = 256 + len(SPECIAL_TOKENS) + len(SENTINELS)


class SplitBy(StrEnum):
    """What is held out as a whole."""

    auto = "auto"
    file = "file"
    repository = "repository"


@dataclass(kw_only=True, slots=True)
class PrepareConfig:
    """What is read, what is left out, and where the result goes."""

    sources: list[str] = field(default_factory=list)
    """Folders, single files, .jsonl and .jsonl.gz files, `installed-code` or `stdlib-code`."""
    out: str = ""
    """Folder to write; while the work goes on it lies in `OUT.partial`."""
    tokenizer: str = TRAIN_TOKENIZER
    """`train` learns a byte-level BPE from the training split; otherwise a tokenizer folder, or the
    name of a model that comes with the package."""
    vocab_size: int = 8192
    """Ids of a trained tokenizer, special tokens included."""
    tokenizer_mb: float = 50.0
    """Most text that a tokenizer is trained on, MB: documents picked by a hash of their names."""
    heldout_fraction: float = 0.01
    """Share of files or repositories that are held out, chosen by a hash of their names."""
    split_by: SplitBy = SplitBy.auto
    """`file`, `repository`, or `auto`: repositories where there are at least 200."""
    languages: list[str] = field(default_factory=list)
    """Only these; empty takes every programming language that a file's ending tells."""
    min_bytes: int = 1_000
    """A shorter file says too little."""
    max_bytes: int = 100_000
    """A longer file is data, or several files in one."""
    max_mean_line: float = 100.0
    """Most characters per line on average; more is minified."""
    max_line: int = 1_000
    """Most characters of any line."""
    min_alphabetic: float = 0.4
    """Least share of letters; less is data."""
    near_duplicates: float = 0.8
    """Jaccard similarity of token 5-grams from which two files count as one; 0 compares none."""
    tests: bool = False
    """Whether files and folders of tests are read."""
    vendored: bool = False
    """Whether folders of vendored copies are read."""
    generated: bool = False
    """Whether files that say they were generated are kept."""
    licence_headers: bool = False
    """Whether notices about copyright and licence at the top of files stay there."""
    copyleft: bool = False
    """Whether files are kept whose header names a copyleft or proprietary licence."""
    path_line: bool = True
    """Whether a document begins with a comment that holds its path."""
    decontaminate: list[str] = field(default_factory=list)
    """Benchmark files (HumanEval-X's .jsonl or .jsonl.gz), or folders of them, whose problems must
    not occur."""
    workers: int = 0
    """Processes; 0 takes every core. Does not change what is written."""

    def __post_init__(self) -> None:
        """Checks every rule that needs no file.

        Raises:
            ValueError: naming the setting, its value, the rule and the remedy.
        """
        if not self.sources:
            raise ValueError(
                "no source is given: name folders of code, .jsonl or .jsonl.gz files, or "
                f"{INSTALLED_CODE}"
            )
        if not self.out:
            raise ValueError("no folder to write is given: add --out FOLDER")
        for name in ("heldout_fraction", "min_alphabetic", "near_duplicates"):
            _require(0 <= getattr(self, name) < 1, name, self, "must be at least 0 and below 1")
        for name in ("tokenizer_mb", "max_mean_line", "max_line"):
            _require(0 < getattr(self, name) < inf, name, self, "must be above 0")
        _require(self.min_bytes >= 0, "min_bytes", self, "must not be negative")
        _require(self.max_bytes > self.min_bytes, "max_bytes", self, "must be above min_bytes")
        _require(
            self.tokenizer != TRAIN_TOKENIZER or self.vocab_size >= _MIN_VOCAB_SIZE,
            "vocab_size",
            self,
            f"must be at least {_MIN_VOCAB_SIZE}: 256 bytes and the special tokens",
        )
        _require(self.workers >= 0, "workers", self, "must not be negative")
        self.languages = sorted({find_language(name).key for name in self.languages})

    @property
    def num_workers(self) -> int:
        """Processes to start."""
        return self.workers or len(os.sched_getaffinity(0))


def _require(holds: bool, name: str, config: PrepareConfig, rule: str) -> None:
    if not holds:
        raise ValueError(f"{name}={getattr(config, name)} {rule}")
