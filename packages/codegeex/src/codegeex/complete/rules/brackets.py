"""What a completion closes that it has not opened."""

from __future__ import annotations

from dataclasses import dataclass

from codegeex.complete.place import Place
from codegeex.complete.rules.rule import Stop
from codegeex.complete.scan import scan_known


@dataclass(frozen=True)
class Brackets:
    """The text ends before a bracket or quote that closes what the file closes already.

    A line such as `} else {` closes a block and opens one: what it is, its end tells.
    """

    place: Place

    def look(self, text: str) -> Stop | None:
        """Finds the first closing bracket, or end of a string, that is one too many."""
        known = 0
        """Characters that had to be known to go on from the bracket before."""
        for at, what in self._surplus(text):
            begin, end = text.rfind("\n", 0, at) + 1, text.find("\n", at)
            if not self._leads(text, begin, at):
                return Stop(max(at + len(what), known), at, "brackets")
            if end < 0:
                return None
            known = end + 1
            if text[begin:end].rstrip()[-1:] != "{":
                return Stop(known, at, "brackets")
        return None

    def sure(self, text: str) -> int:
        """All but what may be a part of three quotes, or a bracket whose line is not whole."""
        return self.hold(text)

    def cut(self, text: str) -> int:
        """As `look`, of a whole text."""
        at = self._pending(text)
        return len(text) if at is None or text.rstrip()[-1:] == "{" else at

    def hold(self, text: str) -> int:
        """As `sure`."""
        at = self._pending(text)
        if at is not None:
            return at
        inside = self.place.scanned.inside
        if len(inside) < 3:
            return len(text)
        return len(text) - min(2, len(text) - len(text.rstrip(inside[0])))

    def _pending(self, text: str) -> int | None:
        """Where a brace leads the last line, which is one too many if the line opens no other."""
        begin = text.rfind("\n") + 1
        for at, _ in self._surplus(text):
            if at >= begin and self._leads(text, begin, at):
                return at
        return None

    def _surplus(self, text: str) -> list[tuple[int, str]]:
        place, found = self.place, []
        wanted = list(place.wanted)
        for at, what in scan_known(text, place.syntax, place.scanned.inside).unmatched:
            if wanted and wanted[0] == what:
                del wanted[0]
            else:
                found.append((at, what))
        return found

    def _leads(self, text: str, begin: int, at: int) -> bool:
        """Whether a brace is the first of its line."""
        before = text[begin:at] if begin else self.place.before + text[:at]
        return text[at] == "}" and not before.strip()
