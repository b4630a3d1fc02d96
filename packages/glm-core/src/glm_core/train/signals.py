"""Stop requests from outside: the first is answered after the step, the second at once."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

logger = logging.getLogger(__name__)


class StopRequest:
    """While entered, SIGINT and SIGTERM set `requested`; a second one interrupts immediately.

    Outside the main thread, where Python allows no signal handlers, it only offers `requested`.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.requested:
            logger.warning("%s again: stopping at once, without saving", name)
            raise KeyboardInterrupt
        self.requested = True
        logger.warning("%s: finishing this step and saving; once more stops at once", name)
