"""What a completion closes that it has not opened."""

from __future__ import annotations

from dataclasses import dataclass

from codegeex.complete.place import Place
from codegeex.complete.rules.rule import Stop
from codegeex.complete.scan import scan


@dataclass(frozen=True)
class Brackets:
    """The text ends before a bracket or quote that closes what the file closes already."""

    place: Place

    def look(self, text: str) -> Stop | None:
        """Finds the first closing bracket, or end of a string, that is one too many."""
        place = self.place
        unmatched = scan(text, place.syntax, place.scanned.inside).unmatched
        for index, (at, what) in enumerate(unmatched):
            if index >= len(place.wanted) or place.wanted[index] != what:
                return Stop(at + len(what), at, "brackets")
        return None

    def sure(self, text: str) -> int:
        """All but what may be a part of three quotes."""
        inside = self.place.scanned.inside
        if len(inside) < 3:
            return len(text)
        return len(text) - min(2, len(text) - len(text.rstrip(inside[0])))
