"""What was measured of one request, and of many."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from codegeex.bench.client import Reply
from glm_core.bench.serve.measure import percentile


@dataclass(frozen=True)
class Sample:
    """One round trip; 0 where an answer does not tell a number."""

    round: int
    keystroke: int
    """At its place; before that one the cursor has jumped."""
    total_s: float
    """From the request to the end of the answer."""
    first_s: float
    """From the request to the first of the answer."""
    prompt: int = 0
    """Tokens of the prompt."""
    cached: int = 0
    """Those of them that had been read before."""
    written: int = 0
    """Tokens of the answer."""

    @property
    def reused(self) -> float:
        """Share of the prompt that had been read before."""
        return self.cached / self.prompt if self.prompt else 0.0


def sample_of(reply: Reply, told: dict[str, Any], number: int, keystroke: int) -> Sample:
    """Returns the sample of an answer in llama.cpp's words, or OpenAI's.

    Args:
        told: the answer, or the last event of a stream.
    """
    times, usage = (reply.total_s, reply.first_s), told.get("usage")
    if usage:
        details = usage.get("prompt_tokens_details") or {}
        counts = usage["prompt_tokens"], details.get("cached_tokens", 0), usage["completion_tokens"]
        return Sample(number, keystroke, *times, *counts)
    cached, read = told.get("timings/cache_n", 0), told.get("timings/prompt_n", 0)
    written = told.get("timings/predicted_n", 0)
    return Sample(number, keystroke, *times, cached + read, cached, written)


def milliseconds(samples: Iterable[Sample], share: float, of: str = "total_s") -> float:
    """Returns the time that so large a share of the samples does not exceed."""
    return 1e3 * percentile([getattr(sample, of) for sample in samples], share)


def median(samples: Sequence[Sample], value: Callable[[Sample], float]) -> float:
    """Returns the median of a value; 0 without samples."""
    return statistics.median([value(sample) for sample in samples] or [0.0])


def mean(samples: Sequence[Sample], value: Callable[[Sample], float]) -> float:
    """Returns the mean of a value; 0 without samples."""
    return statistics.fmean([value(sample) for sample in samples] or [0.0])
