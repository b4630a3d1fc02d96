"""One event loop in a thread of its own, for tools that wait: they serve callers that block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def background_loop() -> asyncio.AbstractEventLoop:
    """Returns the loop; it is started when it is first asked for, and ends with the process."""
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="agent-tools", daemon=True).start()
        return _loop


def run_in_background(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine on the loop and waits for it; not to be called from the loop itself."""
    future = asyncio.run_coroutine_threadsafe(coroutine, background_loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()  # nobody waits for it any more: Ctrl-C
        raise


async def in_daemon_thread(function: Callable[[], T]) -> T:
    """Runs a function that blocks. One that never returns keeps no program from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.done():  # nobody waits for it any more
            return
        if error is None:
            done.set_result(result)  # type: ignore[arg-type]
        else:
            done.set_exception(error)

    def work() -> None:
        try:
            result = function()
        except BaseException as error:
            loop.call_soon_threadsafe(settle, None, _told(error))
        else:
            loop.call_soon_threadsafe(settle, result, None)

    threading.Thread(target=work, daemon=True).start()
    return await done


def _told(error: BaseException) -> Exception:
    """An exception that a future can hold: StopIteration and those that end programs it cannot."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")
