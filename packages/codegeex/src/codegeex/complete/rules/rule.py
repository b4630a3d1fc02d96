"""What a rule that ends a completion is: a function of the text so far.

Texts come in pieces, and where they are cut is chance. So a rule never looks at pieces: it looks at
the whole text, and says the same of it whenever it looks. Once a rule has decided, more text does
not change its mind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Stop:
    """A rule has decided."""

    at: int
    """Characters that had to be known for it."""
    keep: int
    """Characters of the text that are kept."""
    rule: str
    word: str = ""
    """The stop string that was found."""


class Rule(Protocol):
    """Something that ends a completion."""

    def look(self, text: str) -> Stop | None:
        """Returns the first decision in the text, if there is one."""
        ...

    def sure(self, text: str) -> int:
        """Returns how many characters no later decision can take away; `look` gave None."""
        ...


def first_stop(rules: Sequence[Rule], text: str) -> Stop | None:
    """Returns what is decided first; of decisions at the same character, what keeps least."""
    stops = [stop for rule in rules if (stop := rule.look(text)) is not None]
    return min(stops, key=lambda stop: (stop.at, stop.keep), default=None)


def sure_of(rules: Sequence[Rule], text: str) -> int:
    """Returns how many characters are sure by all rules."""
    return min((rule.sure(text) for rule in rules), default=len(text))
