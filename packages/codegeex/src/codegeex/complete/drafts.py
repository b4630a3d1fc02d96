"""What was written at places where somebody is typing: most keystrokes type what was expected, and
then the rest of the last completion is a good guess of the next one."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

_REMEMBERED = 64
_SAME = 120
"""Characters on both sides of the cursor by which a place is known."""
_TYPED = 200
"""More of them before it, so that what was deleted is known too."""


@dataclass(frozen=True, slots=True)
class _Written:
    before: str
    behind: str
    text: str


class Drafts:
    """The last completions. For any thread."""

    def __init__(self) -> None:
        self._written: deque[_Written] = deque(maxlen=_REMEMBERED)
        self._lock = threading.Lock()

    def remember(self, before: str, behind: str, text: str) -> None:
        """Notes what was written between two texts."""
        if text:
            written = _Written(before[-_SAME - _TYPED :], behind[:_SAME], text)
            with self._lock:
                self._written.append(written)

    def find(self, before: str, behind: str) -> str:
        """Returns what may come between two texts; empty where nothing is known.

        It is what an earlier completion says behind the last characters of `before`, which have
        perhaps been typed since; or else what was deleted there, and what was written behind that.
        """
        with self._lock:
            known = list(self._written)
        tail, behind, deleted = before[-_SAME:], behind[:_SAME], ""
        for written in reversed(known):
            whole = written.before + written.text
            at = whole.rfind(tail) if written.behind == behind else -1
            end = at + len(tail)
            if at >= 0 and len(written.before) <= end < len(whole):
                return whole[end:]
            if 0 <= at and end < len(written.before) and not deleted:
                deleted = whole[end:]
        return deleted
