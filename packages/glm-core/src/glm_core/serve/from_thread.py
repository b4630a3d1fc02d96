"""What a thread makes, for an asyncio loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")


async def from_thread(
    make: Callable[[], Iterator[Item]], interrupt: Callable[[], None]
) -> AsyncGenerator[Item, None]:
    """Yields what an iterator gives that blocks; it is made and used in a thread of its own.

    Args:
        make: makes the iterator. It is closed at its next item once nobody listens any more.
        interrupt: called when nobody listens any more, to end what it blocks on.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[bool, Any]] = asyncio.Queue()
    is_left = threading.Event()

    def put(is_item: bool, value: Any) -> None:
        try:
            loop.call_soon_threadsafe(queue.put_nowait, (is_item, value))
        except RuntimeError:  # the loop is closed: the server has stopped
            is_left.set()

    def work() -> None:
        items = make()
        try:
            for item in items:
                if is_left.is_set():
                    break
                put(True, item)
        except Exception as error:
            put(False, error)
        else:
            put(False, None)
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    threading.Thread(target=work, name="agent", daemon=True).start()
    is_over = False
    try:
        while True:
            is_item, value = await queue.get()
            if is_item:
                yield value
                continue
            is_over = True
            if value is not None:
                raise value
            return
    finally:
        if not is_over:
            is_left.set()
            interrupt()
