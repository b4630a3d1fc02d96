from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from glm_core.serve.from_thread import from_thread


def nothing() -> None:
    """There is nothing to interrupt."""


def test_items_come_in_order_when_a_thread_makes_them() -> None:
    names: set[str] = set()

    def make() -> Iterator[int]:
        for number in range(5):
            names.add(threading.current_thread().name)
            yield number

    async def collect() -> list[int]:
        return [item async for item in from_thread(make, nothing)]

    assert asyncio.run(collect()) == [0, 1, 2, 3, 4]
    assert names == {"agent"}


def test_error_arrives_behind_the_items_when_the_iterator_fails() -> None:
    seen: list[int] = []

    def make() -> Iterator[int]:
        yield 1
        raise KeyError("broken")

    async def collect() -> None:
        async for item in from_thread(make, nothing):
            seen.append(item)

    with pytest.raises(KeyError, match="broken"):
        asyncio.run(collect())
    assert seen == [1]


def test_iterator_is_closed_when_nobody_listens_any_more() -> None:
    goes_on, is_closed = threading.Event(), threading.Event()

    def make() -> Iterator[int]:
        try:
            yield 1
            goes_on.wait(5)  # ended by the interruption
            yield 2
            yield 3
        finally:
            is_closed.set()

    async def leave() -> int:
        items = from_thread(make, goes_on.set)
        first = await anext(items)
        await items.aclose()
        return first

    assert asyncio.run(leave()) == 1
    assert is_closed.wait(5)
