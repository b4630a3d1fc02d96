"""Stop strings."""

from __future__ import annotations

from dataclasses import dataclass

from codegeex.complete.rules.rule import Stop
from glm_core.infer.stream import held_back


@dataclass(frozen=True)
class Words:
    """The text ends before the first of some strings that is complete."""

    words: tuple[str, ...]

    def look(self, text: str) -> Stop | None:
        """Finds the string that is complete first; of several, the one that begins first."""
        stops = [
            Stop(found + len(word), found, "stop", word)
            for word in self.words
            if (found := text.find(word)) >= 0
        ]
        return min(stops, key=lambda stop: (stop.at, stop.keep), default=None)

    def sure(self, text: str) -> int:
        """All but what may be the beginning of a stop string."""
        return len(text) - held_back(text, self.words)
