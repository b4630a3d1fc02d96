"""What the file says already, behind the cursor and below it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from codegeex.complete.place import Place
from codegeex.complete.rules.rule import Stop

_WORD = re.compile(r"\w")


@dataclass(frozen=True)
class RestOfLine:
    """The text ends with its first line, where that ends as the cursor's line does.

    Args:
        after: the cursor's line behind it.
    """

    after: str

    def look(self, text: str) -> Stop | None:
        """Looks at the first line when it is whole."""
        end, rest = text.find("\n"), self.after.strip()
        if end < 0 or not rest or not text[:end].rstrip().endswith(rest):
            return None
        return Stop(end + 1, end, "rest of line")

    def sure(self, text: str) -> int:
        """Everything: a line break decides at once."""
        return len(text)


@dataclass(frozen=True)
class Following:
    """The text ends before a line that is the next one of the file, indentation included.

    A line of brackets alone does not count: those are counted, not compared. Of a whole text a last
    line without line break counts too.
    """

    place: Place

    def look(self, text: str) -> Stop | None:
        """Finds the first such line."""
        begin, end = 0, text.find("\n")
        while end >= 0 and self._counts:
            if self._line(text, begin, end).rstrip() == self.place.following:
                return Stop(end + 1, max(begin - 1, 0), "following line")
            begin, end = end + 1, text.find("\n", end + 1)
        return None

    def sure(self, text: str) -> int:
        """All but a last line that may become the next one of the file."""
        return self.hold(text)

    def cut(self, text: str) -> int:
        """As `look`, of the last line."""
        begin = text.rfind("\n") + 1
        is_next = self._line(text, begin, len(text)).rstrip() == self.place.following
        return max(begin - 1, 0) if self._counts and is_next else len(text)

    def hold(self, text: str) -> int:
        """As `sure`."""
        begin, following = text.rfind("\n") + 1, self.place.following
        line = self._line(text, begin, len(text))
        may_be_next = following.startswith(line) or line.rstrip() == following
        if self._counts and line.strip() and may_be_next:
            return max(begin - 1, 0)
        return len(text.rstrip())

    @cached_property
    def _counts(self) -> bool:
        return _WORD.search(self.place.following) is not None

    def _line(self, text: str, begin: int, end: int) -> str:
        """A line; the cursor's only where nothing but white space stands before the cursor."""
        if begin:
            return text[begin:end]
        before = self.place.before
        return "" if before.strip() else before + text[:end]
