"""Rules of lines: how many there may be, and how they must be indented."""

from __future__ import annotations

from dataclasses import dataclass

from codegeex.complete.rules.rule import Stop


@dataclass(frozen=True)
class OneLine:
    """The text ends with its line.

    Args:
        may_begin_below: whether the line may be the one below the cursor's.
    """

    may_begin_below: bool = False

    def look(self, text: str) -> Stop | None:
        """Finds the first line break; one before any other text does not count if it may."""
        begin = 0
        if self.may_begin_below and text[: text.find("\n") + 1].isspace():
            begin = text.find("\n") + 1
        found = text.find("\n", begin)
        return None if found < 0 else Stop(found + 1, found, "one line")

    def sure(self, text: str) -> int:
        """Everything: a line break decides at once."""
        return len(text)


@dataclass(frozen=True)
class MaxLines:
    """The text ends with its so manieth line."""

    count: int

    def look(self, text: str) -> Stop | None:
        """Finds the line break that is one too many."""
        found = -1
        for _ in range(self.count):
            found = text.find("\n", found + 1)
            if found < 0:
                return None
        return Stop(found + 1, found, "lines")

    def sure(self, text: str) -> int:
        """Everything: a line break decides at once."""
        return len(text)


@dataclass(frozen=True)
class MinIndent:
    """Every line but the first begins with so much white space, or is blank."""

    count: int

    def look(self, text: str) -> Stop | None:
        """Finds the first line that begins too early."""
        begin = text.find("\n") + 1
        while begin:
            at = begin
            while at < len(text) and text[at] in " \t":
                at += 1
            if at == len(text):
                return None
            if text[at] != "\n" and at - begin < self.count:
                return Stop(at + 1, begin - 1, "indent")
            begin = text.find("\n", at) + 1
        return None

    def sure(self, text: str) -> int:
        """All but white space at the end."""
        return len(text.rstrip())
