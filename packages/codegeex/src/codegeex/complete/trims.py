"""What is done to the end of a completion."""

from __future__ import annotations


class TrailingSpace:
    """White space at the end goes."""

    def cut(self, text: str) -> int:
        """Returns where the white space at the end begins."""
        return len(text.rstrip())

    def hold(self, text: str) -> int:
        """White space is shown when something comes after it."""
        return len(text.rstrip())
