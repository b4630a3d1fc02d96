"""How much of the prompts is read in a step, so that running answers do not wait for long."""

from __future__ import annotations

_LEAST = 32
"""Tokens that are always read: fewer take hardly less time."""
_NEW = 0.3
"""Weight of what was measured last."""


class Pace:
    """Tokens of prompts in a step: as many as may be, but no more than are read in some time.

    Args:
        most: tokens.
        seconds: that running answers may be kept waiting in a step.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._of_answers = self._of_token = 0.0
        """Measured seconds: of a step without prompts, and of a prompt's token; 0: not yet."""

    def room(self, has_answers: bool) -> int:
        """Returns how many tokens of prompts the next step reads.

        Args:
            has_answers: whether running answers wait for the step.
        """
        if not has_answers or not self._of_token:
            return self._most
        return min(self._most, max(_LEAST, int(self._seconds / self._of_token)))

    def add(self, num_tokens: int, has_answers: bool, seconds: float) -> None:
        """Notes what a step took.

        Args:
            num_tokens: of prompts.
            has_answers: whether it gave running answers a column too.
            seconds: all together.
        """
        if not num_tokens:
            self._of_answers = _mixed(self._of_answers, seconds)
        elif num_tokens >= _LEAST:
            rest = seconds - (self._of_answers if has_answers else 0.0)
            self._of_token = _mixed(self._of_token, max(rest, 0.0) / num_tokens)


def _mixed(old: float, new: float) -> float:
    return old + _NEW * (new - old) if old else new
