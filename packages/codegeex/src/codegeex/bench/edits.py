"""A typing session: what an editor shows after every keystroke, made of a file that is finished.

At each place some of the file is taken away and typed again, a character at a time and now and then
a wrong one that is deleted; then the cursor jumps to another place. What stands behind the cursor
stays as it is, as it does while somebody types.
"""

from __future__ import annotations

import random
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

FEWEST, MOST = 8, 40
"""Characters typed at one place."""
MOST_LINES = 3
"""That are typed at one place."""
TYPO_SHARE = 1 / 30
MIDDLE_SHARE = 1 / 4
"""Of the places, those where something stays behind the cursor in its line."""
_MOST_BEHIND = 8
"""Characters of the line behind the cursor: with more, editors do not ask by themselves."""
_BYTES = range(20_000, 120_000)
"""Sizes of the files to choose from."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Edit:
    """A file after a keystroke."""

    before: str
    """Up to the cursor."""
    after: str
    keystroke: int
    """At this place, from 0: before that one the cursor has jumped."""


@dataclass(frozen=True)
class Hole:
    """What is taken away and typed again: the text from `begin` to `end`."""

    begin: int
    end: int


def standard_file(seed: int) -> Path:
    """Returns a file of the standard library.

    Raises:
        ValueError: it is not there as source.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    files = [path for path in sorted(folder.glob("*.py")) if path.stat().st_size in _BYTES]
    if not files:
        raise ValueError(f"{folder} holds no modules to type: name one with --file")
    return random.Random(seed).choice(files)


def typing_session(text: str, count: int, seed: int) -> list[Edit]:
    """Returns `count` edits, the same ones for the same arguments.

    Raises:
        ValueError: the text has nothing to type.
    """
    numbers = random.Random(seed)
    lines = list(_lines(text))
    if not lines:
        raise ValueError(f"the file has no line of {FEWEST} characters to type: take another one")
    edits: list[Edit] = []
    while len(edits) < count:
        edits += _typed(text, _hole(lines, numbers), numbers)
    return edits[:count]


def _lines(text: str) -> Iterator[Hole]:
    """Yields the lines that can be typed, without their indents and ends."""
    at = 0
    for line in text.splitlines(keepends=True):
        words = line.strip()
        if len(words) >= FEWEST and not words.startswith("#"):
            begin = at + len(line) - len(line.lstrip())
            yield Hole(begin, begin + len(words))
        at += len(line)


def _hole(lines: Sequence[Hole], numbers: random.Random) -> Hole:
    first = numbers.randrange(len(lines))
    if numbers.random() < MIDDLE_SHARE:
        line = lines[first]
        end = line.end - numbers.randrange(min(_MOST_BEHIND, line.end - line.begin - FEWEST) + 1)
        return Hole(numbers.randrange(line.begin, end - FEWEST + 1), end)
    last = min(first + numbers.randrange(MOST_LINES), len(lines) - 1)
    return Hole(lines[first].begin, lines[last].end)


def _typed(text: str, hole: Hole, numbers: random.Random) -> Iterator[Edit]:
    """Yields the file after every keystroke at one place."""
    head, after = text[: hole.begin], text[hole.end :]
    states = _states(text[hole.begin : hole.end], numbers)
    most = numbers.randint(FEWEST, MOST)
    for keystroke, typed in enumerate(islice(states, most)):
        yield Edit(head + typed, after, keystroke)


def _states(text: str, numbers: random.Random) -> Iterator[str]:
    """Yields what stands there after each keystroke; an editor indents a new line by itself."""
    at = 0
    while at < len(text):
        if text[at].isalpha() and numbers.random() < TYPO_SHARE:
            yield text[:at] + numbers.choice(_LETTERS)
            yield text[:at]  # deleted again
        at += 1
        if text[at - 1] == "\n":
            rest = text[at:]
            at += len(rest) - len(rest.lstrip())
        yield text[:at]
