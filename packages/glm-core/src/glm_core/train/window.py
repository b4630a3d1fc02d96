"""Sums since the last progress line, kept on the device until somebody wants to read them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from glm_core.train.engines.protocol import Update
from glm_core.train.task import LossSum


@dataclass(slots=True)
class Clock:
    """Seconds of training; time spent inside `paused` blocks does not count."""

    _since: float = field(default_factory=time.perf_counter)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time inside the `with` out of the lap."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._since += time.perf_counter() - start

    def lap(self) -> float:
        """Seconds since the last lap."""
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        return seconds


class Window:
    """What happened since the last progress line.

    Adding never waits for the device; `read` does, once.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # fp64: a window of a thousand steps keeps every digit of its fp32 losses
        self._sums = {name: self._zero() for name in ("loss", "weight", "skipped")}
        self._streak = self._zero()
        self._grad_norm = self._zero()
        self.tokens = 0
        self.flops = 0.0
        self.steps = 0

    def _zero(self) -> Tensor:
        return torch.zeros((), dtype=torch.float64, device=self._device)

    def add_loss(self, loss: LossSum, *, tokens: int, flops: float) -> None:
        """Count one microbatch."""
        self._sums["loss"] += loss.total
        self._sums["weight"] += loss.weight
        for name, value in loss.metrics.items():
            if name not in self._sums:
                self._sums[name] = self._zero()
            self._sums[name] += value
        self.tokens += tokens
        self.flops += flops

    def add_update(self, update: Update) -> None:
        """Count one update."""
        self._sums["skipped"] += update.skipped
        self._streak = (self._streak + 1) * update.skipped
        self._grad_norm = update.grad_norm
        self.steps += 1

    def read(self) -> dict[str, float]:
        """Means per target, `grad_norm` of the last update, `skipped` and `streak` counts."""
        names = list(self._sums)
        values = [self._sums[name] for name in names] + [self._streak, self._grad_norm.double()]
        *sums, streak, grad_norm = torch.stack(values).tolist()
        found = dict(zip(names, sums, strict=True))
        weight, skipped = found.pop("weight"), found.pop("skipped")
        means = {name: total / weight if weight else 0.0 for name, total in found.items()}
        return means | {"grad_norm": grad_norm, "skipped": skipped, "streak": streak}

    def clear(self) -> None:
        """Start the next window; the streak of skipped updates goes on."""
        self._sums = {name: self._zero() for name in self._sums}
        self.tokens, self.flops, self.steps = 0, 0.0, 0

    def state(self) -> dict[str, Any]:
        """Sums as JSON numbers: the first row after a resume is then the one it would have been."""
        return {
            "sums": {name: value.item() for name, value in self._sums.items()},
            "streak": self._streak.item(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore `state()`."""
        for name, value in state["sums"].items():
            self._sums[name] = self._zero() + value
        self._streak = self._zero() + state["streak"]
