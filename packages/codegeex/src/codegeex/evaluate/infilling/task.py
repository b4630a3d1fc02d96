"""A hole of a benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from codegeex.evaluate.answers import IsOver
from codegeex.evaluate.work import Work
from codegeex.hole import Hole


@dataclass(frozen=True, kw_only=True)
class HoleTask:
    """What a model fills, and how what it writes is judged."""

    task_id: str
    suite: str
    """Part of a benchmark that is counted by itself, such as `single-line`."""
    hole: Hole
    expected: str
    """What stood there."""
    is_over: IsOver
    """Ends a completion while it grows."""
    truncate: Callable[[str], str]
    """Returns what of a completion counts."""
    matches: Callable[[str], bool]
    """Whether a completion is right without being run: it is what stood there, or says the same."""
    work: Callable[[str, int], Work] | None = None
    """Returns the program of a completion; None where only what stood there is right."""


Tasks = Mapping[str, HoleTask]


def never(text: str, piece: str) -> bool:
    """The end of a completion that only the model ends."""
    return False


def line_is_over(text: str, piece: str) -> bool:
    """Whether a first line that is not empty has ended."""
    return "\n" in piece and "\n" in text.lstrip()


def first_line(text: str) -> str:
    """Returns a text up to the end of its first line that is not empty."""
    begin = len(text) - len(text.lstrip())
    return text[:begin] + text[begin:].partition("\n")[0]
