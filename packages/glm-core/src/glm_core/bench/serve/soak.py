"""Many requests of all kinds to one server, and whether each came to its right end.

Nothing may be lost: every request that its client waits for gets its answer. Nothing may be mixed
up: an answer is that of the same request alone, found out before. Nothing may be left behind.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from glm_core.bench.serve.soak_catalogue import (
    EMBEDDINGS,
    MODEL,
    Ask,
    Wrong,
    catalogue,
    wrong_requests,
)
from glm_core.bench.serve.soak_client import Answer, Leave, Reply, exchange
from glm_core.bench.serve.soak_server import Held, SoakServer, soak_server
from glm_core.bench.serve.stream_client import post, request_head
from glm_core.progress import Progress

logger = logging.getLogger(__name__)

CONCURRENCY = 32
MOST_KINDS = 160
"""Different requests; each is asked alone first."""
WARM_UP = 0.1
"""Share of the requests after which what is held is noted for the first time."""
_POOL_S = 10.5
"""Threads that answer nothing for so long are ended by the next that works."""
_SHARES = {"wrong": 0.12, "leaves": 0.15, "newest": 0.05}
_CANCELLED = "request_cancelled"
_PLACES = 4
"""Decimal places of numbers that are compared."""


@dataclass
class Report:
    """What a soak brought."""

    requests: int
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    """Requests by how they ended: answered, refused, left, cancelled; and those sent again, having
    been told that the server was busy."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Requests by what was asked."""
    faults: list[str] = field(default_factory=list)
    """What went wrong with single requests."""
    held: list[Held] = field(default_factory=list)
    """After the warm-up, half way, at the end; nothing is asked then."""
    counters: dict[str, int] = field(default_factory=dict)
    """The engine's own."""
    problems: list[str] = field(default_factory=list)
    """What is wrong with the server as a whole."""

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults and not self.problems


def soak(requests: int, seed: int = 0) -> Report:
    """Starts a server and soaks it.

    Args:
        requests: how many are sent, besides those asked alone at the beginning.
        seed: of what is asked when, and who leaves when.
    """
    asks = catalogue(max(16, min(MOST_KINDS, requests // 10)), seed)
    with soak_server(MODEL) as server:
        return asyncio.run(Soak(server, asks, requests, seed).run())


class Soak:
    """One soak.

    Args:
        server: it is asked nothing else meanwhile.
        asks: requests with known answers.
        requests: how many are sent.
        seed: decides everything that is random.
    """

    def __init__(
        self, server: SoakServer, asks: Sequence[Ask], requests: int, seed: int = 0
    ) -> None:
        self._server, self._asks, self._seed = server, asks, seed
        self._wrong = wrong_requests()
        self._expected: dict[int, Answer] = {}
        self._shares = _SHARES
        self._progress = Progress("soak", requests, "requests")
        self.report = Report(requests)

    async def run(self) -> Report:
        """Asks each kind alone, then all together, in three parts."""
        for index, ask in enumerate(self._asks):
            self._expected[index] = await self._alone(ask)
        total = self.report.requests
        marks = [0, round(total * WARM_UP), round(total / 2), total]
        for begin, end in pairwise(marks):
            start = time.monotonic()
            numbers = iter(range(begin, end))
            await asyncio.gather(*(self._work(numbers) for _ in range(CONCURRENCY)))
            self.report.seconds += time.monotonic() - start
            self.report.held.append(await self._held())
        self.report.counters = self._server.counters()
        self.report.problems += find_problems(self.report, self._server)
        return self.report

    async def _alone(self, ask: Ask) -> Answer:
        reply = await exchange(self._server.url, post(self._server.url, ask.path, ask.content))
        if reply is None or reply.status != 200:
            raise RuntimeError(f"{ask.kind}, asked alone, was answered with {reply}")
        return rounded(reply.answer())

    async def _held(self) -> Held:
        """What the server holds once threads that have nothing to do are gone."""
        if self.report.requests >= 1000:
            await asyncio.sleep(_POOL_S)
            await self._alone(self._asks[0])
        return await asyncio.to_thread(self._server.held)

    async def _work(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            chance = random.Random(self._seed * 1_000_003 + number)
            try:
                await self._one(chance)
            except (OSError, TimeoutError, ValueError, KeyError) as error:
                self.report.faults.append(f"request {number} is lost: {error!r}")
            self._progress.add(1)

    async def _one(self, chance: random.Random) -> None:
        lot = chance.random()
        for name, share in self._shares.items():
            if lot < share:
                await {"wrong": self._refused, "leaves": self._left, "newest": self._newest}[name](
                    chance
                )
                return
            lot -= share
        await self._answered(chance, chance.randrange(len(self._asks)))

    async def _answered(self, chance: random.Random, index: int, **fields: object) -> None:
        ask = self._asks[index]
        self.report.kinds[ask.kind] += 1
        if ask.can_stream and chance.random() < 0.5:
            fields["stream"] = True
        content = json.dumps(ask.body | fields).encode()
        reply = await self._patient(post(self._server.url, ask.path, content))
        if "newest_wins" in fields and reply.error_code == _CANCELLED:
            self.report.counts["cancelled"] += 1
        elif reply.status != 200 or reply.error_code:
            self._fault(ask.kind, f"answered with {reply.status} {reply.content[:200]!r}")
        elif rounded(reply.answer()) != self._expected[index]:
            told = f"{reply.answer()} in place of {self._expected[index]}"
            self._fault(ask.kind, f"another answer than alone: {told[:600]}")
        else:
            self.report.counts["answered"] += 1

    async def _patient(self, request: bytes) -> Reply:
        """Asks, and asks again when the server is busy and has told when."""
        while True:
            reply = await exchange(self._server.url, request)
            assert reply is not None
            if reply.status != 429 or reply.retry_after_s is None:
                return reply
            self.report.counts["asked again"] += 1
            await asyncio.sleep(reply.retry_after_s)

    async def _newest(self, chance: random.Random) -> None:
        """Asks as a user whose newest request ends the older ones."""
        index = chance.choice([i for i, ask in enumerate(self._asks) if ask.path != EMBEDDINGS])
        await self._answered(chance, index, newest_wins=True, user=f"user {chance.randrange(4)}")

    async def _left(self, chance: random.Random) -> None:
        """Asks and goes away: while still asking, at once, or at some moment of the answer."""
        ask = chance.choice(self._asks)
        self.report.kinds[ask.kind] += 1
        fields = {"stream": True} if ask.can_stream and chance.random() < 0.6 else {}
        content = json.dumps(ask.body | fields).encode()
        leave = Leave(
            share_sent=chance.random() if chance.random() < 0.3 else 1.0,
            after_s=chance.choice([0.0, chance.uniform(0.0, 0.02), chance.uniform(0.0, 0.3)]),
            is_rude=chance.random() < 0.5,
        )
        request = post(self._server.url, ask.path, content)
        try:
            reply = await exchange(self._server.url, request, leave)
        except (OSError, ValueError):
            reply = None  # nobody waits for an answer
        self.report.counts["left" if reply is None else "answered before leaving"] += 1

    async def _refused(self, chance: random.Random) -> None:
        """Asks what must be refused."""
        wrong = chance.choice(self._wrong)
        self.report.kinds[f"wrong: {wrong.kind}"] += 1
        reply = await exchange(self._server.url, _wrong_request(self._server.url, wrong))
        assert reply is not None
        if reply.status != wrong.status or not reply.error_code:
            told = f"{reply.status} {reply.content[:200]!r}, not {wrong.status}"
            self._fault(wrong.kind, f"answered with {told}")
        else:
            self.report.counts["refused"] += 1

    def _fault(self, kind: str, text: str) -> None:
        self.report.faults.append(f"{kind}: {text}")


MEMORY_GROWTH = 0.05
"""More than this share between the warm-up and the end is not flat."""
_ANYIO_THREADS = 40
"""Most that wait for work; how many there are depends on how many requests came together."""


def find_problems(report: Report, server: SoakServer) -> list[str]:
    """Returns what is wrong with the server after a soak."""
    first, last, counters = report.held[0], report.held[-1], report.counters
    problems = [f"its log has an exception: {line}" for line in server.errors()]
    if not server.is_alive():
        problems.append("its process is gone")
    for name in ("running", "waiting", "pages"):
        if getattr(last, name):
            problems.append(f"{name} is {getattr(last, name)} when nothing is asked: must be 0")
    for name in ("tasks", "threads", "files"):
        slack = _slack(name, report.requests)
        if getattr(last, name) > getattr(first, name) + slack:
            problems.append(f"{name} grew from {getattr(first, name)} to {getattr(last, name)}")
    if last.resident_mib > first.resident_mib * (1 + MEMORY_GROWTH):
        problems.append(
            f"memory grew from {first.resident_mib:.0f} to {last.resident_mib:.0f} MiB, by more "
            f"than {MEMORY_GROWTH:.0%}"
        )
    ended = sum(counters[name] for name in ("finished", "failed", "cancelled", "timed_out"))
    if counters["submitted"] != ended:
        problems.append(f"{counters['submitted']} requests were submitted, but {ended} ended")
    for name in ("failed", "timed_out"):
        if counters[name]:
            problems.append(f"{counters[name]} requests {name.replace('_', ' ')} in the engine")
    return problems


def _slack(name: str, requests: int) -> int:
    return _ANYIO_THREADS if name == "threads" and requests < 1000 else 0


def rounded(answer: Answer) -> Answer:
    """The answer with its numbers rounded, so that two computations of it can be compared."""

    def round_one(value: object) -> object:
        if isinstance(value, tuple):
            return tuple(round_one(one) for one in value)
        return round(value, _PLACES) if isinstance(value, float) else value

    return tuple(tuple(round_one(part) for part in choice) for choice in answer)


def _wrong_request(url: str, wrong: Wrong) -> bytes:
    length = wrong.told_length or len(wrong.content)
    return request_head(url, wrong.method, wrong.path, length) + wrong.content
