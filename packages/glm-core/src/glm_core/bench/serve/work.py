"""What is asked of the servers and of those who answer one after the other."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

from glm_core.bench.serve.vocabulary import NUM_TRAINED

SPREAD = 0.5
"""Prompts are this share shorter or longer than the mean, at most."""
MODEL = "random"


def prompts(count: int, mean: int, vocab_size: int, seed: int) -> list[list[int]]:
    """Prompts of random words and of different lengths; no two begin alike.

    Args:
        mean: number of tokens, on average.
    """
    numbers = random.Random(seed)
    lengths = [round(mean * (1 + numbers.uniform(-SPREAD, SPREAD))) for _ in range(count)]
    return [[numbers.randrange(NUM_TRAINED, vocab_size) for _ in range(n)] for n in lengths]


def longest(mean: int) -> int:
    """Tokens of the longest prompt that `prompts` makes."""
    return round(mean * (1 + SPREAD))


def bodies(
    given: Sequence[Sequence[int]], new_tokens: int, ignores_end: dict[str, Any]
) -> list[bytes]:
    """Requests for greedy streams that do not end before `new_tokens`.

    Args:
        ignores_end: how the server is told so.
    """
    fields = {
        "model": MODEL,
        "max_tokens": new_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return [json.dumps({**fields, **ignores_end, "prompt": list(ids)}).encode() for ids in given]
