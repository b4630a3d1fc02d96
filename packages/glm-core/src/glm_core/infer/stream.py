"""From tokens to text, a piece at a time: no half characters, no part of a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class TokenDecoder(Protocol):
    """Turns tokens into text one by one (`glm_core.tokenizer.IncrementalDecoder`)."""

    def push(self, token_id: int) -> str:
        """Returns the characters that are complete with this token."""


class TextStream:
    """The text of one answer as it grows.

    A byte-level token may hold part of a character: the decoder keeps it back until the rest has
    come. Text that may be the beginning of a stop string is kept back until it is known not to be.
    What an answer's last token leaves incomplete is dropped.
    """

    def __init__(self, decoder: TokenDecoder, stop: Sequence[str] = ()) -> None:
        self._decoder = decoder
        self._stop = tuple(stop)
        self._held = ""
        self.text = ""
        self.stopped = False

    @property
    def num_known(self) -> int:
        """Characters known so far, those held back included."""
        return len(self.text) + len(self._held)

    def push(self, token_id: int) -> str:
        """Takes the next token; returns the text that can be shown now.

        Sets `stopped` when a stop string is complete; what comes after it is ignored.
        """
        if self.stopped:
            return ""
        pending = self._held + self._decoder.push(token_id)
        found = find_stop(pending, self._stop)
        if found is not None:
            self.stopped = True
            return self._emit(pending, found)
        return self._emit(pending, len(pending) - held_back(pending, self._stop))

    def finish(self) -> str:
        """Ends the answer, or a part of it; returns what was kept back for a stop string's sake."""
        return "" if self.stopped else self._emit(self._held, len(self._held))

    def _emit(self, pending: str, end: int) -> str:
        self.text += pending[:end]
        self._held = pending[end:]
        return pending[:end]


def find_stop(text: str, stop: Sequence[str]) -> int | None:
    """Returns where the first stop string begins in `text`, or None."""
    found = [index for index in map(text.find, stop) if index >= 0]
    return min(found, default=None)


def held_back(text: str, stop: Sequence[str]) -> int:
    """Returns how many characters at the end of `text` may be the beginning of a stop string."""
    longest = max(map(len, stop), default=1) - 1
    for size in range(min(longest, len(text)), 0, -1):
        if any(word.startswith(text[-size:]) for word in stop):
            return size
    return 0
