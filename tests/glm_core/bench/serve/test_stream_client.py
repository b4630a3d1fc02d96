"""The client that measures: what it counts, and what it does not take for an answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from glm_core.bench.serve.stream_client import run_load

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PARTS = [
    b"data: {1}\n\nda",
    b"ta: {2}\n\n",
    b"",
    b'data: {"completion_tokens": 7}\n\ndata: [DONE]\n\n',
]


@contextmanager
def serving(parts: list[bytes], seen: list[bytes]) -> Iterator[str]:
    """Answers every request with the same parts, each of which arrives alone."""
    loop = asyncio.new_event_loop()
    num_open = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal num_open
        num_open += 1
        seen.append(b"%d open" % num_open)
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append(head)
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.005)
        num_open -= 1
        writer.close()

    server = loop.run_until_complete(asyncio.start_server(answer, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_times_are_noted_when_events_arrive_in_pieces() -> None:
    seen: list[bytes] = []
    with serving([HEAD, *PARTS], seen) as url:
        load = run_load(url, [b"{}", b"{} "], concurrency=1)
    assert [stream.num_tokens for stream in load.streams] == [7, 7]
    for stream in load.streams:
        assert len(stream.arrivals) == 3 and all(gap > 0 for gap in stream.gaps_s)
        assert 0 < stream.first_token_s < load.seconds
    assert load.tokens_per_second == pytest.approx(14 / load.seconds)
    assert b"Content-Length: 3" in seen[3] and b"POST /v1/completions HTTP/1.1" in seen[1]


def test_requests_are_under_way_together_when_there_are_streams() -> None:
    seen: list[bytes] = []
    with serving([HEAD, *PARTS], seen) as url:
        load = run_load(url, [b"{}"] * 6, concurrency=3)
    assert len(load.streams) == 6
    assert b"3 open" in seen and b"4 open" not in seen


@pytest.mark.parametrize(
    "break_it",
    [
        lambda parts: parts[:-1],
        lambda parts: [b"HTTP/1.1 429 Busy\r\n\r\n", *parts[1:]],
        lambda parts: [*parts[:-1], b'data: {"completion_tokens": 7}\n\n'],
    ],
)
def test_error_is_raised_when_a_stream_is_refused_or_cut_off(
    break_it: Callable[[list[bytes]], list[bytes]],
) -> None:
    with serving(break_it([HEAD, *PARTS]), []) as url:
        load = run_load(url, [b"{}"], concurrency=1)
    with pytest.raises(RuntimeError, match="a stream did not end as it should"):
        _ = load.tokens_per_second
