"""What watches an answer in the engine's thread: the shape of its text, and the time it took."""

from __future__ import annotations

import time

from codegeex.complete.shaper import Shaper


class AnswerWatch:
    """Ends an answer when its text is as long as wanted, or its time is over.

    Args:
        shaper: of its text.
        time_limit_s: seconds from the first text after which it ends, once it has a line break.
    """

    def __init__(self, shaper: Shaper, time_limit_s: float | None = None) -> None:
        self.shaper = shaper
        self.is_late = False
        """Whether the time was over."""
        self._limit = time_limit_s
        self._begin: float | None = None

    def __call__(self, text: str) -> bool:
        """Takes a new text; returns whether the answer ends."""
        if self.shaper.push(text):
            return True
        if self._limit is None:
            return False
        now = time.monotonic()
        self._begin = now if self._begin is None else self._begin
        self.is_late = self.shaper.has_line_break and now - self._begin > self._limit
        return self.is_late
