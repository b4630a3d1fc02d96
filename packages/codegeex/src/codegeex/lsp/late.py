"""A completer that is made while others already ask for it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from codegeex.complete import Completer

logger = logging.getLogger(__name__)


class NotLoaded(RuntimeError):
    """There is no model to ask."""


class LateCompleter:
    """A model that a thread loads.

    Args:
        load: returns the completer; what it raises, everybody who waits is told.
        name: of the model.
    """

    def __init__(self, load: Callable[[], Completer], name: str) -> None:
        self.name = name
        self._load = load
        self._loaded: Future[Completer] = Future()
        self._thread = threading.Thread(target=self._run, name="load-model", daemon=True)

    def start(self) -> None:
        """Begins to load; once."""
        if self._thread.ident is None:
            self._thread.start()

    @property
    def is_loading(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    async def completer(self) -> Completer:
        """Waits for the model; any number of tasks may, and be cancelled.

        Raises:
            NotLoaded: it could not be loaded: it says why.
        """
        return await asyncio.shield(asyncio.wrap_future(self._loaded))

    def close(self) -> None:
        """Stops the engine, if it runs."""
        if self._loaded.done() and self._loaded.exception() is None:
            self._loaded.result().engine.close()

    def _run(self) -> None:
        try:
            self._loaded.set_result(self._load())
        except BaseException as error:
            reason = str(error) or type(error).__name__
            logger.debug("the model cannot be loaded", exc_info=error)
            self._loaded.set_exception(NotLoaded(f"{self.name} cannot be loaded: {reason}"))
