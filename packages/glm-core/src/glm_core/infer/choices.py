"""Several answers to one request: their seeds, and which is the best."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def seed_of_choice(seed: int, index: int) -> int:
    """Returns the seed of a request's answer number `index`; of the first, the request's own.

    A hash and not `seed + index`, so that the second answer at seed 1 is not the first at seed 2.
    """
    if index == 0:
        return seed
    digest = hashlib.blake2b(f"{seed}:{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def best_first(mean_logprobs: Sequence[float]) -> list[int]:
    """Returns the indices of answers by log-probability per token; of equal ones the first first.

    Source: OpenAI API reference, `best_of`: "the one with the highest log probability per token".
    """
    return sorted(range(len(mean_logprobs)), key=lambda index: -mean_logprobs[index])
