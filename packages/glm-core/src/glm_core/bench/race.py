"""One choice among several ways to do the same: they run by turns, the best time of each counts."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from glm_core.bench.clock import Call, Watch
from glm_kernels.measured import Table

logger = logging.getLogger(__name__)

MARGIN = 0.05
"""A choice that is faster than the built-in one by less than this is noise."""
HOPELESS = 3.0
"""One that takes so many times as long as the best is measured no further."""
ROUND_SECONDS, MOST_CALLS = 0.01, 50
FEWEST_ROUNDS, MOST_ROUNDS = 3, 9


@dataclass(frozen=True)
class Finding:
    """What one measurement chose."""

    what: str
    chosen: str
    built_in: str
    gain: float
    """Time of the built-in choice over that of the chosen one."""

    def __str__(self) -> str:
        if self.chosen == self.built_in:
            return f"{self.what}: {self.chosen}, as built in"
        return f"{self.what}: {self.chosen}, {self.gain:.2f} times as fast as {self.built_in}"


@dataclass(frozen=True)
class Step:
    """One choice to be measured."""

    what: str
    measure: Callable[[Table, Watch], Finding | None]
    """Adds what it finds to the table; None where there is nothing to choose."""


@dataclass
class Runner:
    """One way."""

    name: str
    call: Call
    seconds: float = math.inf
    """Of a call, in its best round."""
    num_calls: int = 1
    """In a round."""

    def __call__(self) -> object:
        return self.call()

    def round(self, watch: Watch) -> float:
        """Runs a round; returns the seconds it took."""
        taken = watch([self] * self.num_calls)
        self.seconds = min(self.seconds, taken / self.num_calls)
        self.num_calls = max(1, min(MOST_CALLS, int(ROUND_SECONDS / max(self.seconds, 1e-9))))
        return taken


def race(
    ways: Mapping[str, Call],
    watch: Watch,
    budget_s: float = 1.0,
    is_right: Callable[[Any], bool] = lambda result: True,
) -> dict[str, float]:
    """Measures by turns, so that a busy machine is busy for all.

    Args:
        ways: name and call of each; all are called once before anything is measured, and one that
            fails there takes no part.
        watch: takes the time.
        budget_s: seconds after which no further round begins; three there are in any case.
        is_right: looks at the result of that first call; what gives a wrong one takes no part.

    Returns:
        Seconds of a call by name, the best round of each; the fastest first.
    """
    running = [Runner(name, call) for name, call in ways.items() if _works(name, call, is_right)]
    finished: list[Runner] = []
    taken = 0.0
    for number in range(MOST_ROUNDS):
        for runner in running:
            taken += runner.round(watch)
        best = min((runner.seconds for runner in running), default=0.0)
        finished += [runner for runner in running if runner.seconds > HOPELESS * best]
        running = [runner for runner in running if runner.seconds <= HOPELESS * best]
        if number + 1 >= FEWEST_ROUNDS and (taken > budget_s or len(running) < 2):
            break
    ordered = sorted(running + finished, key=lambda runner: runner.seconds)
    return {runner.name: runner.seconds for runner in ordered}


def order(seconds: Mapping[str, float], built_in: str, margin: float = MARGIN) -> list[str]:
    """Returns names from the fastest on; the built-in choice first unless it is clearly beaten."""
    names = sorted(seconds, key=seconds.__getitem__)
    if names and seconds.get(built_in, math.inf) <= seconds[names[0]] * (1 + margin):
        names.remove(built_in)
        names.insert(0, built_in)
    return names


def _works(name: str, call: Call, is_right: Callable[[Any], bool]) -> bool:
    try:
        if is_right(call()):
            return True
        logger.warning("%s takes no part: its result is wrong", name)
    except Exception as error:  # anybody's code: whatever it raises, it cannot be chosen
        line = str(error).strip().partition("\n")[0]
        logger.debug("%s takes no part: %s: %s", name, type(error).__name__, line)
    return False
