"""What an engine has done, in numbers that a metrics page can show."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from glm_core.infer.engine.errors import EngineError, RequestCancelled, RequestTimedOut
from glm_core.infer.engine.request import Outcome

if TYPE_CHECKING:
    from glm_core.infer.engine.job import Job
    from glm_core.infer.engine.row import Row

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of a histogram's buckets."""
_WINDOW_S = 10
"""Seconds over which the rate is taken."""


@dataclass(frozen=True)
class HistogramValues:
    """A histogram at one moment."""

    buckets: tuple[tuple[float, int], ...]
    """Upper bound in seconds and how many observations were at most that; the last is infinity."""
    sum: float
    """Seconds."""

    @property
    def count(self) -> int:
        """Number of observations."""
        return self.buckets[-1][1]


class Histogram:
    """Durations counted in buckets. One thread writes, any may read."""

    def __init__(self) -> None:
        self._counts = [0] * (len(SECONDS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Counts one duration."""
        self._counts[bisect_left(SECONDS, seconds)] += 1
        self._sum += seconds

    def values(self) -> HistogramValues:
        """Returns what was counted so far."""
        total, buckets = 0, []
        for bound, count in zip((*SECONDS, float("inf")), tuple(self._counts), strict=True):
            total += count
            buckets.append((bound, total))
        return HistogramValues(tuple(buckets), self._sum)


class Rate:
    """Tokens per second over the last seconds."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, int]] = deque(maxlen=_WINDOW_S + 1)

    def add(self, count: int, now: float) -> None:
        """Counts tokens made at `now`, in seconds of the monotonic clock."""
        second = int(now)
        if self._seconds and self._seconds[-1][0] == second:
            count += self._seconds.pop()[1]
        self._seconds.append((second, count))

    def per_second(self, now: float) -> float:
        """Returns the mean over the window, or over the time since the first token if shorter."""
        recent = [pair for pair in tuple(self._seconds) if now - pair[0] <= _WINDOW_S]
        if not recent:
            return 0.0
        return sum(count for _, count in recent) / max(now - recent[0][0], 1.0)


@dataclass(frozen=True)
class EngineStats:
    """An engine at one moment."""

    running: int
    """Requests being read or answered."""
    waiting: int
    """Requests in the queue."""
    pages_used: int
    """Pages of keys and values that running requests hold."""
    pages_free: int
    """Pages that a request can have, those that only remember earlier prompts included."""
    tokens_per_second: float
    """Tokens chosen, over the last ten seconds."""
    counters: dict[str, int]
    """Since the start: requests submitted, finished, failed, cancelled, timed_out, refused;
    prompt_tokens and cached_tokens of those finished; completion_tokens chosen, ends included;
    steps."""
    histograms: dict[str, HistogramValues]
    """queue_s, first_token_s and inter_token_s, in seconds."""


class Recorder:
    """Collects what `EngineStats` shows; the engine's thread writes."""

    COUNTERS = (
        "submitted",
        "finished",
        "failed",
        "cancelled",
        "timed_out",
        "refused",
        "prompt_tokens",
        "cached_tokens",
        "completion_tokens",
        "steps",
    )

    def __init__(self) -> None:
        self.counters = Counter(dict.fromkeys(self.COUNTERS, 0))
        self.rate = Rate()
        self.queue_s = Histogram()
        self.first_token_s = Histogram()
        self.inter_token_s = Histogram()

    def started(self, job: Job, waited_s: float) -> None:
        """Notes that a prompt is begun."""
        self.queue_s.observe(waited_s)

    def token(self, row: Row, now: float) -> None:
        """Notes that an answer got a token at `now`, in seconds of the monotonic clock."""
        if row.last_token_at:
            self.inter_token_s.observe(now - row.last_token_at)
        elif row.choice == 0:
            self.first_token_s.observe(row.job.note_first_token(now))
        row.last_token_at = now

    def tokens(self, count: int, now: float) -> None:
        """Notes how many tokens a step chose."""
        self.counters["completion_tokens"] += count
        self.rate.add(count, now)

    def ended(self, result: Outcome | Tensor | EngineError) -> None:
        """Notes how a request ended, for an answer or for vectors."""
        match result:
            case Tensor():
                self.counters["finished"] += 1
            case Outcome(usage=usage):
                self.counters["finished"] += 1
                self.counters["prompt_tokens"] += usage.prompt
                self.counters["cached_tokens"] += usage.cached
            case RequestCancelled():
                self.counters["cancelled"] += 1
            case RequestTimedOut():
                self.counters["timed_out"] += 1
            case _:
                self.counters["failed"] += 1

    def stats(self, running: int, waiting: int, pages_used: int, pages_free: int) -> EngineStats:
        """Returns everything as it is now."""
        names = ("queue_s", "first_token_s", "inter_token_s")
        return EngineStats(
            running=running,
            waiting=waiting,
            pages_used=pages_used,
            pages_free=pages_free,
            tokens_per_second=self.rate.per_second(time.monotonic()),
            counters=dict(self.counters),
            histograms={name: getattr(self, name).values() for name in names},
        )
