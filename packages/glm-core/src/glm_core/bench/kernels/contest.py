"""Contenders that do the same work by turns, so that a busy machine is busy for all of them."""

from __future__ import annotations

import logging
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

from glm_core.bench.clock import Call, Watch, in_one_graph
from glm_core.bench.kernels.goal import Goal

logger = logging.getLogger(__name__)

ROUND_SECONDS = 0.02
"""A contender repeats a call until its share of a round takes about this long."""
MOST_CALLS = 100
FEWEST_ROUNDS = 3


@dataclass
class Contender:
    """One side of a comparison."""

    name: str
    calls: Sequence[Call]
    """They do the same, each on memory of its own where caches must not help."""
    work: float = 0.0
    """Of one computation, in bytes or operations; 0 where only the time counts."""
    goal: Goal | None = None
    """Of our side against this one."""
    is_limit: bool = False
    """Whether it is no peer but what the machine can do: rates are compared, not times."""
    code: str = ""
    """Which of our implementations it is."""
    error: float | None = None
    """Relative error of the result."""
    reason: str = ""
    """Why it could not run."""
    per_call: int = 1
    """Computations in a call."""
    seconds: list[float] = field(default_factory=list)
    """Of one computation, a number for each round."""

    def warm_up(self, watch: Watch) -> None:
        """Finds out how many calls make a round; the first call has been made before."""
        self._next: Iterator[Call] = cycle(self.calls)
        taken = watch([next(self._next)])
        most = len(self.calls) if len(self.calls) > 1 else MOST_CALLS
        self._repeats = max(1, min(most, math.ceil(ROUND_SECONDS / max(taken, 1e-7))))

    def round(self, watch: Watch) -> None:
        """Runs its share of a round and notes the time of a computation."""
        calls = list(islice(self._next, self._repeats))
        self.seconds.append(watch(calls) / (len(calls) * self.per_call))

    @property
    def rates(self) -> list[float]:
        """Work of each round in units of 10^9 per second."""
        return [self.work / seconds / 1e9 for seconds in self.seconds]


@dataclass
class Contest:
    """Ours (one or several ways) and the peers at one shape."""

    op: str
    part: str
    shape: str
    dtype: str
    ours: list[Contender]
    peers: list[Contender]
    unit: str = "ms"
    """ms, GB/s or Gop/s."""
    load: float = 0.0
    """Mean number of running processes of the whole machine."""
    in_graphs: bool = False
    """Whether each side runs as a CUDA graph."""

    def record(self, capture: Callable[[Sequence[Call]], Call] = in_one_graph) -> None:
        """Makes one CUDA graph of all calls of each side, or leaves all sides as they are.

        Args:
            capture: returns what runs all of the calls; raises RuntimeError where it cannot.
        """
        running = [c for c in (*self.ours, *self.peers) if not c.reason]
        try:
            graphs = [capture(contender.calls) for contender in running]
        except RuntimeError as error:
            logger.warning("%s %s is measured without CUDA graphs: %s", self.op, self.shape, error)
            return
        for contender, graph in zip(running, graphs, strict=True):
            contender.per_call, contender.calls = len(contender.calls), [graph]
        self.in_graphs = True

    def run(self, rounds: int, watch: Watch, budget_seconds: float) -> None:
        """Runs all by turns; fewer rounds where the time would be up, but three at least."""
        running = [c for c in (*self.ours, *self.peers) if not c.reason]
        for contender in running:
            contender.warm_up(watch)
        started, loads = time.monotonic(), []
        for number in range(rounds):
            # the direction alternates, so that nobody always runs on a warmer machine
            for contender in running if number % 2 == 0 else running[::-1]:
                contender.round(watch)
            loads.append(os.getloadavg()[0])
            if number + 1 >= FEWEST_ROUNDS and time.monotonic() - started > budget_seconds:
                break
        self.load = statistics.fmean(loads)


def peer(name: str, build: Callable[[], Sequence[Call]], **settings: Any) -> Contender:
    """A contender that may fail: the reason is noted instead.

    Args:
        name: of the contender.
        build: makes its calls; the first of them is tried.
        settings: other fields of `Contender`.
    """
    try:
        calls = build()
        calls[0]()
    except Exception as error:  # anybody's code: whatever it raises is why there is no number
        return Contender(name, [], reason=first_line(error), **settings)
    return Contender(name, calls, **settings)


def first_line(error: Exception) -> str:
    """What an exception says, short enough for a table."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:160].removesuffix(": ")
