"""Holes made of documents, for training: which text is cut out.

Cuts lie between characters, and each part is read into tokens by itself: a model that only ever
saw cuts between tokens would stumble where a cursor stands inside a word.

Kinds: `random` as in arXiv 2207.14255 (two uniform cuts), and the holes that an editor has: `line`
(from the cursor to the end of its line, or a part of it), `lines` (from the cursor to the end of
one of the next lines) and `block` (all that is indented below a line).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import NamedTuple

import numpy as np

MOST_LINES = 8
"""Of a hole of the kind `lines`."""
MOST_BLOCK = 24
"""Lines of a block that is cut out; a longer one gives a hole of the kind `lines`."""
_TRIES = 8


class Kind(StrEnum):
    """Ways to choose a hole."""

    random = "random"
    line = "line"
    lines = "lines"
    block = "block"


class Cut(NamedTuple):
    """A text in three parts; joined they are the text."""

    prefix: str
    middle: str
    suffix: str


def cut(text: str, kind: Kind, rng: np.random.Generator) -> Cut:
    """Cuts a hole into a text."""
    begin, end = _RANGES[kind](text, rng)
    return Cut(text[:begin], text[begin:end], text[end:])


def draw_kind(weights: Mapping[Kind, float], rng: np.random.Generator) -> Kind:
    """Draws a kind in proportion to the weights."""
    kinds = [kind for kind, weight in weights.items() if weight > 0]
    sums = np.cumsum([weights[kind] for kind in kinds])
    index = int(np.searchsorted(sums, rng.random() * sums[-1], "right"))
    return kinds[min(index, len(kinds) - 1)]


def _random(text: str, rng: np.random.Generator) -> tuple[int, int]:
    first, second = (int(one) for one in rng.integers(0, len(text) + 1, size=2))
    return min(first, second), max(first, second)


def _line(text: str, rng: np.random.Generator) -> tuple[int, int]:
    """To the end of the line four times of five, else a part of the line."""
    cursor, end = _cursor(text, rng)
    if rng.random() < 0.2:
        end = int(rng.integers(cursor, end + 1))
    return cursor, end


def _lines(text: str, rng: np.random.Generator) -> tuple[int, int]:
    cursor, end = _cursor(text, rng)
    for _ in range(int(rng.integers(1, MOST_LINES))):
        following = text.find("\n", end + 1)
        if following < 0:
            return cursor, len(text)
        end = following
    return cursor, end


def _block(text: str, rng: np.random.Generator) -> tuple[int, int]:
    """From the end of a line that opens a block, or from inside the block's first line."""
    for _ in range(_TRIES):
        begin, end = _line_at(text, int(rng.integers(0, len(text) + 1)))
        last = _block_end(text, begin, end)
        if last > end and text.count("\n", end, last) <= MOST_BLOCK:
            if rng.random() < 0.5:
                return end, last
            first_begin, first_end = _line_at(text, end + 1)
            return _cursor_in(text, first_begin, first_end, rng), last
    return _lines(text, rng)


_RANGES: dict[Kind, Callable[[str, np.random.Generator], tuple[int, int]]] = {
    Kind.random: _random,
    Kind.line: _line,
    Kind.lines: _lines,
    Kind.block: _block,
}


def _cursor(text: str, rng: np.random.Generator) -> tuple[int, int]:
    """Draws a line with something in it, and a place in it; returns the place and the line's end.

    A long line is drawn no more often than a short one near it.
    """
    for _ in range(_TRIES):
        begin, end = _line_at(text, int(rng.integers(0, len(text) + 1)))
        begin, end = _line_at(text, end + 1) if end < len(text) else (begin, end)
        if text[begin:end].strip():
            break
    return _cursor_in(text, begin, end, rng), end


def _cursor_in(text: str, begin: int, end: int, rng: np.random.Generator) -> int:
    """Draws a place in a line: behind its indentation one time of three, else anywhere behind."""
    line = text[begin:end]
    first = begin + len(line) - len(line.lstrip())
    return first if rng.random() < 1 / 3 else int(rng.integers(first, end + 1))


def _line_at(text: str, offset: int) -> tuple[int, int]:
    """Returns where the line around a place begins and ends, without its line break."""
    begin = text.rfind("\n", 0, offset) + 1
    end = text.find("\n", begin)
    return begin, len(text) if end < 0 else end


def _block_end(text: str, begin: int, end: int) -> int:
    """Returns where the lines indented below the line begin..end stop; `end` if there are none."""
    line = text[begin:end]
    if not line.strip():
        return end
    indent = len(line) - len(line.lstrip())
    last, at = end, end
    while at < len(text):
        next_begin, next_end = _line_at(text, at + 1)
        following = text[next_begin:next_end]
        if following.strip():
            if len(following) - len(following.lstrip()) <= indent:
                break
            last = next_end
        at = next_end
    return last
