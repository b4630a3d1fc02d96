"""Where the block ends that a completion stands in or begins."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from codegeex.complete.place import Place, indent_of
from codegeex.complete.rules.rule import Stop
from codegeex.complete.scan import OPENER_OF, scan

_FIRST_WORD = re.compile(r"\W*(\w*)")
_CONTROL = frozenset(
    "if else elif elsif for while do try except catch finally with switch case match default loop "
    "unless until foreach select".split()
)
"""Words that begin a block which other lines may follow in the block around it."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line that a completion wrote, or went on with, and that is not blank."""

    begin: int
    """Where it begins in the completion."""
    end: int
    """Where it ends, or the completion does."""
    text: str
    """On the cursor's line with what stands before the cursor."""
    is_whole: bool
    """Whether its line break is there."""
    after_blank: bool
    """Whether the line before it is blank."""

    @property
    def first(self) -> int:
        """Where its first character that is no white space stands."""
        return self.end - len(self.text.lstrip())

    @property
    def opens(self) -> bool:
        """Whether its last character begins a block."""
        return self.text.rstrip()[-1:] in (*OPENER_OF.values(), ":")

    def defines(self, opener: str) -> bool:
        """Whether it begins something that stands for itself, and not a part of what follows."""
        found = _FIRST_WORD.match(self.text)
        assert found is not None
        return self.text.rstrip().endswith(opener) and found.group(1) not in _CONTROL


@lru_cache(maxsize=16)
def lines_of(text: str, before: str) -> tuple[Line, ...]:
    """Returns the lines of a completion that are not blank.

    Args:
        before: the cursor's line before it.
    """
    lines: list[Line] = []
    begin, after_blank = 0, False
    while begin <= len(text):
        found = text.find("\n", begin)
        end = len(text) if found < 0 else found
        whole = text[begin:end] if begin else before + text[:end]
        if text[begin:end].strip():
            lines.append(Line(begin, end, whole, found >= 0, after_blank))
        after_blank = not whole.strip()
        begin = end + 1
    return tuple(lines)


@dataclass(frozen=True)
class Block:
    """The text ends with its block.

    The block is the one that the cursor's line begins, or stands in. It ends before a line that is
    indented less. A line that closes it by a bracket which the file lacks belongs to it. At the top
    level of a file it ends with a blank line, and in a class too where the completion's first line
    defined something.
    """

    place: Place

    def look(self, text: str) -> Stop | None:
        """Finds the first line that is outside."""
        walk = _Walk(self.place, text)
        for line in lines_of(text, self.place.before):
            stop = walk.outside(line)
            if stop is not None:
                return stop
            if walk.is_over:
                return Stop(line.end + 1, line.end, "block") if line.is_whole else None
        return None

    def sure(self, text: str) -> int:
        """All but white space at the end."""
        return len(text.rstrip())


class _Walk:
    """Goes through the lines of a completion.

    Args:
        place: of the hole.
        text: the completion so far.
    """

    def __init__(self, place: Place, text: str) -> None:
        self.is_over = False
        """Whether the block ends with the line that was looked at."""
        self._place, self._text = place, text
        self._is_begun = place.opens_block
        """Whether the next line begins the block."""
        self._level = place.indent if place.before.strip() else None
        """Indentation of the block; None until there is a line that tells."""
        self._closing: int | None = None
        """Indentation of a line that closed the block and opened another, such as `} else {`."""
        self._header: Line | None = None
        self._last = 0

    def outside(self, line: Line) -> Stop | None:
        """Returns the decision that the block has ended before a line, if it has."""
        indent = indent_of(line.text)
        least = self._level if self._closing is None else self._closing + 1
        stop = None
        if line.begin == 0:
            self._begin(indent if self._level is None else self._level)
        elif least is None or indent < least or (self._is_begun and indent == least):
            stop = self._below(line, indent, least)
        elif self._is_begun:
            self._begin(indent)
        elif indent == self._level:
            stop = self._beside(line)
        self._header = self._header or line
        self._last = line.end
        return stop

    def _begin(self, indent: int) -> None:
        self._is_begun, self._level = False, indent

    def _below(self, line: Line, indent: int, least: int | None) -> Stop | None:
        """A line that is indented less than the block, or tells how much that is."""
        if self._is_in_string(line):
            return None
        closes = self._closes(line)
        if closes == "file" or (closes == "own" and self._closing is not None):
            self.is_over = not line.opens
            self._closing = indent if closes == "file" else self._closing
        elif not closes and least is not None and (not self._is_begun or self._place.by_indent):
            return Stop(line.first + 1, self._last, "block")
        self._begin(indent)
        return None

    def _beside(self, line: Line) -> Stop | None:
        """A line that is indented as the block is."""
        closes = self._closes(line)
        if closes:
            ends = closes == "own" and self._level == 0 and not line.opens
            self.is_over = ends and not self._place.by_indent and self._has_defined()
        elif line.after_blank and self._header is not None:
            if self._level == 0 or self._has_defined():
                return Stop(line.first + 1, self._last, "blank line")
        return None

    def _has_defined(self) -> bool:
        """Whether the completion's first line began a definition, in a block of definitions."""
        opener = ":" if self._place.by_indent else "{"
        if self._header is None or not self._header.defines(opener):
            return False
        return self._place.holds_definitions(self._level or 0)

    def _is_in_string(self, line: Line) -> bool:
        """Whether a line begins inside a string, where indentation says nothing."""
        place = self._place
        inside = scan(self._text[: line.begin], place.syntax, place.scanned.inside).inside
        return len(inside) == 3 or inside == "`"

    def _closes(self, line: Line) -> Literal["own", "file", ""]:
        """Whether a bracket closes at its beginning: one of the text, or one the file lacks."""
        if self._text[line.first] not in OPENER_OF:
            return ""
        place, at = self._place, line.first
        unmatched = scan(self._text[: at + 1], place.syntax, place.scanned.inside).unmatched
        if not unmatched or unmatched[-1][0] != at:
            return "own"
        return "file" if len(unmatched) <= len(place.wanted) else ""
