"""What became of a program."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """The kinds of ends, the same for every language."""

    passed = "passed"
    wrong_answer = "wrong answer"
    """It ran, and a test found its answer wrong."""
    runtime_error = "runtime error"
    """It crashed, or ended before its tests had."""
    compile_error = "compile error"
    """The compiler, or an interpreter's parser, refuses it."""
    timeout = "timeout"
    """It took too long, by the clock or in processor time."""
    memory = "memory limit"
    processes = "process limit"
    output = "output limit"
    files = "file limit"
    """A file became too large, or the folder full."""
    skipped = "skipped"
    """It was not run: a tool that it needs is not installed here. It counts for nothing."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A verdict, and what a person needs to understand it."""

    verdict: Verdict
    detail: str = ""
    """The line that says most, as the compiler or the program wrote it."""
