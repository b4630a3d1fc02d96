"""One log line every few seconds while something long is prepared."""

from __future__ import annotations

import logging
import time

logger = logging.getLogger(__name__)


class Progress:
    """Logs how much is done, how fast it goes and when it will be finished."""

    def __init__(self, what: str, total: float, unit: str, every_seconds: float = 5.0) -> None:
        """Args:
        what: beginning of the line, for example "tokenising".
        total: amount that is everything; 0 when unknown.
        unit: of `total`, for example "MB".
        every_seconds: least time between two lines, seconds.
        """
        self._what, self._total, self._unit = what, total, unit
        self._every = every_seconds
        self._done = 0.0
        self._start = self._last = time.monotonic()

    def add(self, amount: float) -> None:
        """Counts `amount` as done, and logs a line when one is due."""
        self._done += amount
        now = time.monotonic()
        if now - self._last >= self._every:
            self._last = now
            logger.info(self.line(now - self._start))

    def line(self, elapsed: float) -> str:
        """The line to show after `elapsed` seconds."""
        rate = self._done / max(elapsed, 1e-9)
        amount = f"{self._done:,.1f} {self._unit}"
        if not self._total:
            return f"{self._what} {amount} ({rate:,.1f} {self._unit}/s)"
        left = max(self._total - self._done, 0.0) / max(rate, 1e-9)
        amount = f"{self._done:,.1f}/{self._total:,.1f} {self._unit}"
        return f"{self._what} {amount} ({rate:,.1f} {self._unit}/s, eta {left:.0f}s)"
