"""The code interpreters of the page's conversations: one each, and only so many at a time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from glm_core.agent.executor.protocol import Executor
from glm_core.serve.errors import LIMIT, ApiError, retry_after

MAX_SESSIONS = 8
_RETRY_S = 10.0


class Interpreters:
    """Hands out code interpreters; the least recently used one makes room for a new one.

    Args:
        make: starts one.
        max_sessions: that may exist at a time.
    """

    def __init__(self, make: Callable[[], Executor], max_sessions: int = MAX_SESSIONS) -> None:
        self._make = make
        self._max_sessions = max_sessions
        self._lock = threading.Lock()
        self._idle: OrderedDict[str, Executor] = OrderedDict()
        self._busy: dict[str, Executor] = {}
        self._is_closed = False

    @contextmanager
    def using(self, session: str) -> Iterator[Executor]:
        """Lends the interpreter of a conversation.

        Raises:
            ApiError: it is in use, or all are.
        """
        executor = self._take(session)
        try:
            yield executor
        finally:
            self._give_back(session, executor)

    def interrupt(self, session: str) -> None:
        """Stops the code that runs for a conversation; does nothing where none does."""
        with self._lock:
            executor = self._busy.get(session)
        if executor is not None:
            executor.interrupt()

    def close(self) -> None:
        """Ends all of them, those in use too."""
        with self._lock:
            self._is_closed = True
            executors = [*self._idle.values(), *self._busy.values()]
            self._idle.clear()
        for executor in executors:
            executor.close()

    def _take(self, session: str) -> Executor:
        with self._lock:
            if session in self._busy:
                raise _busy("this conversation's code interpreter is in use: wait for its answer")
            executor = self._idle.pop(session, None)
            oldest = None
            if executor is None:
                if len(self._busy) >= self._max_sessions:
                    raise _busy("all code interpreters are in use: ask again later")
                if len(self._busy) + len(self._idle) >= self._max_sessions:
                    _, oldest = self._idle.popitem(last=False)
                executor = self._make()
            self._busy[session] = executor
        if oldest is not None:
            oldest.close()
        return executor

    def _give_back(self, session: str, executor: Executor) -> None:
        with self._lock:
            del self._busy[session]
            if not self._is_closed:
                self._idle[session] = executor


def _busy(message: str) -> ApiError:
    return ApiError(429, message, "interpreter_busy", kind=LIMIT, headers=retry_after(_RETRY_S))
