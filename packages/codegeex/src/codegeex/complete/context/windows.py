"""Files as windows of lines, and how alike two of them are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

LINES = 30
"""Of a window."""
STEP = 15
_EVERYWHERE = frozenset(
    "and are auto bool break case catch char class const continue def default del delete elif else "
    "enum except export extends extern false False final finally float fn for from func function "
    "global goto if impl implements import include int interface is lambda let long match mod mut "
    "namespace new nil None not null or override package pass private protected pub public raise "
    "return self Self short signed sizeof static str string struct super switch template the this "
    "throw throws true True try type typedef typename undefined union unsigned use using var "
    "virtual void where while with yield async await".split()
)
"""What says nothing of what code is about."""
_WORD = re.compile(r"[^\W\d]\w{2,}")


@dataclass(frozen=True, slots=True)
class Window:
    """Some lines of a file."""

    begin: int
    """Its first line, from 0."""
    end: int
    """The line behind its last."""
    words: frozenset[str]


def words_of(text: str) -> frozenset[str]:
    """Returns the identifiers of a text, without those of one or two letters and keywords."""
    return frozenset(_WORD.findall(text)) - _EVERYWHERE


def windows_of(text: str) -> Iterator[Window]:
    """Yields overlapping windows that together are the whole file; blank ones are left out."""
    lines = text.splitlines()
    for begin in range(0, max(len(lines) - (LINES - STEP), 1), STEP):
        end = min(begin + LINES, len(lines))
        words = words_of("\n".join(lines[begin:end]))
        if words:
            yield Window(begin, end, words)


def likeness(left: frozenset[str], right: frozenset[str]) -> float:
    """Returns the Jaccard index of two sets of words: what they share of what they have."""
    shared = len(left & right)
    return shared / max(len(left) + len(right) - shared, 1)
