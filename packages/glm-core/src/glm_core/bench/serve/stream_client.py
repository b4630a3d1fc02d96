"""A lean client: many streams over HTTP at once, each with the times at which its events came.

It shares the processor with the server that it measures, so it looks for the beginnings of events
in what arrives and parses nothing; what came is looked at when the clock has stopped.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

COMPLETIONS = "/v1/completions"
_EVENT = b"data: "
_DONE = b"data: [DONE]"
_USED = re.compile(rb'"completion_tokens": ?(\d+)')


@dataclass
class Stream:
    """One answer. Times in seconds of the performance counter."""

    sent_s: float = 0.0
    arrivals: list[float] = field(default_factory=list)
    """When something with at least one event's beginning came."""
    content: bytearray = field(default_factory=bytearray)
    """The whole response."""

    @property
    def num_tokens(self) -> int:
        """Tokens of the answer, as the server counts them.

        Raises:
            RuntimeError: the server refused, or the stream is cut off.
        """
        used = _USED.findall(self.content)
        if not self.content.startswith(b"HTTP/1.1 200") or _DONE not in self.content or not used:
            told = bytes(self.content[-500:]).decode(errors="replace")
            raise RuntimeError(f"a stream did not end as it should: ...{told}")
        return int(used[-1])

    @property
    def first_token_s(self) -> float:
        """From the request to the first event."""
        return self.arrivals[0] - self.sent_s

    @property
    def gaps_s(self) -> list[float]:
        """Between arrivals."""
        times = self.arrivals
        return [after - before for before, after in zip(times, times[1:], strict=False)]


@dataclass(frozen=True)
class Load:
    """What a number of streams took."""

    seconds: float
    streams: list[Stream]

    @property
    def tokens_per_second(self) -> float:
        return sum(stream.num_tokens for stream in self.streams) / self.seconds


def run_load(url: str, bodies: Sequence[bytes], concurrency: int) -> Load:
    """Sends requests, a given number of them at any time, and reads their answers to the end.

    Args:
        url: of the server.
        bodies: JSON of each request.
        concurrency: how many are under way together.
    """
    return asyncio.run(_run(url, bodies, concurrency))


async def _run(url: str, bodies: Sequence[bytes], concurrency: int) -> Load:
    streams: list[Stream] = []
    queue = iter(bodies)

    async def work() -> None:
        for body in queue:
            stream = Stream()
            streams.append(stream)
            await _fetch(url, body, stream)

    start = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(concurrency)))
    return Load(time.perf_counter() - start, streams)


async def _fetch(url: str, body: bytes, stream: Stream) -> None:
    loop = asyncio.get_running_loop()
    address, ended = urlsplit(url), loop.create_future()
    request = post(url, COMPLETIONS, body)
    assert address.hostname is not None and address.port is not None
    await loop.create_connection(
        lambda: _Reader(request, stream, ended), address.hostname, address.port
    )
    await ended


def post(url: str, path: str, body: bytes) -> bytes:
    """A whole POST request."""
    return request_head(url, "POST", path, len(body)) + body


def request_head(url: str, method: str, path: str, length: int | str) -> bytes:
    """A request up to its body, for a connection of its own.

    Args:
        url: of the server.
        length: of the body, as it is told.
    """
    fields = {
        "Host": urlsplit(url).netloc,
        "Content-Type": "application/json",
        "Content-Length": length,
        "Connection": "close",
    }
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode()


class _Reader(asyncio.Protocol):
    def __init__(self, request: bytes, stream: Stream, ended: asyncio.Future[None]) -> None:
        self._request, self._stream, self._ended = request, stream, ended

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._stream.sent_s = time.perf_counter()
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now, stream = time.perf_counter(), self._stream
        # an event's beginning may be cut in two
        seen = max(0, len(stream.content) - len(_EVENT) + 1)
        stream.content += data
        if stream.content.find(_EVENT, seen) >= 0:
            stream.arrivals.append(now)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._ended.done():
            self._ended.set_result(None)
