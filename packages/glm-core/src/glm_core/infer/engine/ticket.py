"""What one who asked holds in hand: pieces as they come, the outcome, and the way to cancel.

The engine's thread puts things in, and any thread or asyncio loop takes them out. A loop is woken
once for all its tickets that have something new, not once for each.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from glm_core.infer.engine.request import BlankAnswer, Outcome, Piece
from glm_core.infer.logprobs import TokenLogprob

Result = TypeVar("Result")
_Waiter = tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"]


def _nothing() -> None:
    """There is nothing left to cancel."""


class _Bell:
    """Who waits for something: threads, and futures of asyncio loops. The lock is always held."""

    def __init__(self, lock: threading.Lock) -> None:
        self._threads = threading.Condition(lock)
        self._num_threads = 0
        self._futures: list[_Waiter] = []

    def wait(self) -> None:
        """Waits in this thread."""
        self._num_threads += 1
        try:
            self._threads.wait()
        finally:
            self._num_threads -= 1

    def future(self) -> asyncio.Future[None]:
        """Returns what a coroutine of the running loop can wait for."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._futures.append((loop, future))
        return future

    def ring(self) -> list[_Waiter]:
        """Wakes the threads; returns the futures."""
        if self._num_threads:
            self._threads.notify_all()
        futures, self._futures = self._futures, []
        return futures


class Pending(Generic[Result]):
    """A result that the engine will have, or the reason why not.

    Args:
        id: unique in its engine.
        cancel: asks the engine to give the work up; must not block.
    """

    def __init__(self, id: str, cancel: Callable[[], None]) -> None:
        self.id = id
        self._cancel = cancel
        self._lock = threading.Lock()
        self._news, self._end = _Bell(self._lock), _Bell(self._lock)
        self._result: Result | None = None
        self._error: BaseException | None = None

    @property
    def is_done(self) -> bool:
        """Whether there is a result, or will never be one."""
        return self._result is not None or self._error is not None

    def cancel(self) -> None:
        """Gives the work up: at the engine's next step it is gone. Nothing when it has ended."""
        if not self.is_done:
            self._cancel()

    def outcome(self) -> Result:
        """Waits for the result. Whoever is interrupted while waiting cancels the work.

        Raises:
            EngineError: there is none: RequestFailed, RequestCancelled, RequestTimedOut or
                EngineFailed.
        """
        try:
            with self._lock:
                while not self.is_done:
                    self._end.wait()
        except BaseException:
            self.cancel()
            raise
        return self._checked()

    async def aoutcome(self) -> Result:
        """As `outcome`, in an asyncio loop; a task cancelled while waiting cancels the work."""
        try:
            while (waiter := self._waiter(self._end, lambda: self.is_done)) is not None:
                await waiter
        except BaseException:
            self.cancel()
            raise
        return self._checked()

    def settle(self, result: Result | BaseException) -> None:
        """Ends the work; for the engine. `wake` must follow."""
        with self._lock:
            if isinstance(result, BaseException):
                self._error = result
            else:
                self._result = result
            self._cancel = _nothing  # the request's data need not wait for the ticket to go

    def _checked(self) -> Result:
        if self._error is not None:
            raise self._error.with_traceback(None)  # each time anew, or it grows
        assert self._result is not None
        return self._result

    def _waiter(self, bell: _Bell, is_ready: Callable[[], bool]) -> asyncio.Future[None] | None:
        """Returns what the bell ends, or None when there is nothing to wait for."""
        with self._lock:
            return None if is_ready() else bell.future()

    def ring(self) -> list[_Waiter]:
        """Wakes the threads that wait; returns the loops' futures, which `wake` ends."""
        with self._lock:
            return self._news.ring() + (self._end.ring() if self.is_done else [])


@dataclass(slots=True)
class _Growing:
    """A piece that nobody has taken yet."""

    choice: int
    blank: int
    texts: list[str] = field(default_factory=list)
    tokens: list[TokenLogprob] = field(default_factory=list)
    mark: int | None = None
    end: BlankAnswer | None = None

    def piece(self) -> Piece:
        text = "".join(self.texts)
        return Piece(self.choice, self.blank, text, tuple(self.tokens), self.mark, self.end)


class Ticket(Pending[Outcome]):
    """A request in the engine.

        for piece in ticket:
            print(piece.text, end="")

    Each piece is given once. Pieces of an answer that nobody takes grow together, so that a slow
    reader costs no more memory than the answer itself. Leaving the loop early, closing the
    iterator, or cancelling the task that iterates cancels the request.
    """

    def __init__(self, id: str, cancel: Callable[[], None]) -> None:
        super().__init__(id, cancel)
        self._pieces: list[_Growing] = []
        self._open: dict[int, _Growing] = {}
        """The last piece of each answer, while it can grow."""

    def __iter__(self) -> Generator[Piece, None, None]:
        """Yields the pieces until the request has ended.

        Raises:
            EngineError: the request did not end by itself, as `outcome`; after the last piece.
        """
        try:
            while (pieces := self._next()) is not None:
                yield from pieces
        finally:
            self.cancel()
        self._checked()

    async def __aiter__(self) -> AsyncGenerator[Piece, None]:
        """As `__iter__`, in an asyncio loop."""
        try:
            while True:
                while (waiter := self._waiter(self._news, self._has_news)) is not None:
                    await waiter
                pieces = self._take()
                if not pieces:
                    break
                for piece in pieces:
                    yield piece
        finally:
            self.cancel()
        self._checked()

    def put(
        self,
        choice: int,
        blank: int,
        text: str,
        tokens: Iterable[TokenLogprob],
        mark: int | None = None,
        end: BlankAnswer | None = None,
    ) -> None:
        """Adds to an answer; for the engine. `wake` must follow."""
        with self._lock:
            last = self._open.get(choice)
            if last is None or last.blank != blank:
                last = self._open[choice] = _Growing(choice, blank)
                self._pieces.append(last)
            last.texts.append(text)
            last.tokens.extend(tokens)
            last.mark, last.end = mark, end
            if mark is not None or end is not None:
                del self._open[choice]

    def _has_news(self) -> bool:
        return bool(self._pieces) or self.is_done

    def _next(self) -> list[Piece] | None:
        """Waits for pieces; None when the request has ended and all were taken."""
        with self._lock:
            while not self._has_news():
                self._news.wait()
        return self._take() or None

    def _take(self) -> list[Piece]:
        with self._lock:
            taken, self._pieces = self._pieces, []
            self._open.clear()
        return [growing.piece() for growing in taken]


def wake(changed: Iterable[Pending[Any]]) -> None:
    """Tells everybody who waits for one of these that there is something new."""
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for pending in changed:
        for loop, future in pending.ring():
            by_loop.setdefault(loop, []).append(future)
    for loop, futures in by_loop.items():
        try:
            loop.call_soon_threadsafe(_finish, futures)
        except RuntimeError:  # the loop is closed, and with it whoever waited in it
            continue


def _finish(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
