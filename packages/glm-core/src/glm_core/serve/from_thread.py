"""What a thread makes, for an asyncio loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")
_AGAIN_S = 0.1


async def from_thread(
    make: Callable[[], Iterator[Item]], interrupt: Callable[[], None]
) -> AsyncGenerator[Item, None]:
    """Yields what an iterator gives that blocks; it is made and used in a thread of its own.

    Args:
        make: makes the iterator. It is closed at its next item once nobody listens any more.
        interrupt: called when nobody listens any more, to end what the iterator blocks on; again
            and again until it has ended, for it may come a moment too early.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[bool, Any]] = asyncio.Queue()
    is_left, has_ended = threading.Event(), threading.Event()

    def put(is_item: bool, value: Any) -> None:
        try:
            loop.call_soon_threadsafe(queue.put_nowait, (is_item, value))
        except RuntimeError:  # the loop is closed: the server has stopped
            is_left.set()

    def work() -> None:
        error: Exception | None = None
        try:
            _pass_on(make(), put, is_left)
        except Exception as raised:
            error = raised
        has_ended.set()
        put(False, error)

    def end() -> None:
        while not has_ended.wait(_AGAIN_S):
            interrupt()

    threading.Thread(target=work, name="agent", daemon=True).start()
    try:
        while True:
            is_item, value = await queue.get()
            if is_item:
                yield value
            elif value is not None:
                raise value
            else:
                return
    finally:
        if not has_ended.is_set():
            is_left.set()
            interrupt()
            threading.Thread(target=end, name="agent-end", daemon=True).start()


def _pass_on(
    items: Iterator[Item], put: Callable[[bool, Any], None], is_left: threading.Event
) -> None:
    """Hands items on until there are no more, or nobody listens; closes the iterator."""
    try:
        while not is_left.is_set():
            try:
                item = next(items)
            except StopIteration:
                return
            put(True, item)
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()
