"""What is done to the end of a completion, so that it fits to what stands behind it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from codegeex.complete.place import Place
from codegeex.complete.scan import scan

_WINDOW = 2000
"""Characters of the suffix that are compared, and in which brackets are paired."""
_NO_CHANCE = 8
"""Characters that two texts hardly have in common by chance."""
_ADJOINS = frozenset(")]}>,;:.\"'`")
"""What stands behind other text without white space."""


@dataclass(frozen=True)
class Overlap:
    """What the file says already behind the cursor goes: the longest end that it begins with.

    Not if a bracket or string would then be left open that is closed otherwise, and not the second
    half of a word.
    """

    place: Place

    def cut(self, text: str) -> int:
        """Returns where the overlap begins."""
        ends = [begin for begin in self._overlaps(text) if self._is_apart(text, begin)]
        if not ends:
            return len(text)
        return min([*ends, len(text)], key=lambda end: (self._num_loose(text[:end]), end))

    def hold(self, text: str) -> int:
        """Returns where the longest end begins that may become an overlap."""
        return min(self._overlaps(text), default=len(text))

    @cached_property
    def _suffix(self) -> str:
        return self.place.suffix[:_WINDOW]

    def _overlaps(self, text: str) -> list[int]:
        """Where ends of the text begin that the suffix begins with."""
        first, found = self._suffix[:1], []
        begin = text.find(first) if first else -1
        while begin >= 0:
            if self._suffix.startswith(text[begin:]):
                found.append(begin)
            begin = text.find(first, begin + 1)
        return [begin for begin in found if begin < len(text)]

    def _is_apart(self, text: str, begin: int) -> bool:
        """Whether no word is cut in two, neither of the text nor, by chance, of the suffix; a text
        that is all there already may go as a whole."""
        if begin == 0:
            return True
        if _is_word(text[begin - 1]) and _is_word(text[begin]):
            return False
        overlap = text[begin:]
        next_char = self._suffix[len(overlap) : len(overlap) + 1] or " "
        cuts = _is_word(overlap[-1]) and _is_word(next_char)
        return not cuts or "\n" in overlap or len(overlap) >= _NO_CHANCE

    def _num_loose(self, middle: str) -> int:
        """How many brackets and strings have no partner with this text in the hole."""
        before = self.place.scanned
        behind = scan(middle + self._suffix, self.place.syntax, before.inside)
        return before.num_loose_with(behind)


@dataclass(frozen=True)
class TrailingSpace:
    """White space at the end goes, unless something that needs it stands behind the cursor.

    Args:
        after: the cursor's line behind it.
    """

    after: str = ""

    def cut(self, text: str) -> int:
        """Returns how much is kept."""
        kept = len(text.rstrip())
        rest = self.after.strip()
        if not rest or kept == 0:
            return kept
        if "\n" in text[kept:]:  # a bracket that closes several lines stays on a line of its own
            return len(text) if rest[0] in ")]}" and "\n" in text[:kept] else kept
        return kept if rest[0] in _ADJOINS or self.after[0].isspace() else len(text)

    def hold(self, text: str) -> int:
        """White space is shown when something comes after it."""
        return len(text.rstrip())


def _is_word(char: str) -> bool:
    return char.isalnum() or char == "_"
