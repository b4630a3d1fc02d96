"""The rules of sampling, each a small function on the scores of one token's choice.

The rules are those of transformers' logits processors, which the tests use as oracle. Rules that
penalise or exclude change the scores in place; top-k, top-p and min-p are floors: what lies below
is not sampled, and tokens as probable as the last one kept are kept too, so that the choice does
not hang on the order in which equal scores are sorted. numpy, because one row of a vocabulary on
the CPU is argmax'd, partitioned and sorted by it many times faster than by torch.

Letters: V vocabulary, C candidates, M tokens named.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

Scores = NDArray[np.float32]
Ids = NDArray[np.int64]


def penalize_repetition(scores_V: Scores, token_ids: Ids, penalty: float) -> None:
    """Divides positive scores of `token_ids` by `penalty` and multiplies negative ones.

    Args:
        scores_V: changed in place.
        token_ids: int64 [M], tokens that already stand in the text; repeats count once.
        penalty: above 1 makes them less probable.

    Source: arXiv 1909.05858, section 4.1.
    """
    seen = scores_V[token_ids]
    scores_V[token_ids] = np.where(seen > 0, seen / penalty, seen * penalty)


def penalize_use(scores_V: Scores, token_ids: Ids, presence: float, frequency: float) -> None:
    """Lowers the score of every token used by `presence`, and by `frequency` for each use.

    Args:
        scores_V: changed in place.
        token_ids: int64 [M], the tokens of the answer so far.
        presence: taken off once.
        frequency: taken off as often as the token was used.

    Source: OpenAI API reference, "Frequency and presence penalties" (parameter details):
    mu[j] - c[j] * alpha_frequency - float(c[j] > 0) * alpha_presence.
    """
    used, counts = np.unique(token_ids, return_counts=True)
    scores_V[used] -= (counts * frequency + presence).astype(np.float32)


def floor_of_top_k(scores_V: Scores, k: int) -> float:
    """Returns the k-th largest score."""
    place = scores_V.size - min(k, scores_V.size)
    return float(np.partition(scores_V, place)[place])


def floor_of_top_p(weights_C: Scores, p: float) -> float:
    """Returns the least weight among the fewest that together have at least the share p.

    Source: arXiv 1904.09751, section 3.1 (nucleus sampling).
    """
    total = float(weights_C.sum(dtype=np.float64))
    # All weights below this together have less than 1 - p, so the others have more than p: only
    # they need to be sorted.
    near = weights_C[weights_C >= (1.0 - p) * total / weights_C.size]
    descending = np.sort(near)[::-1]
    cumulative = descending.cumsum(dtype=np.float64)
    last = int(np.searchsorted(cumulative, p * total))
    return float(descending[min(last, descending.size - 1)])


def candidates(
    scores_V: Scores, temperature: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> tuple[Ids | None, Scores]:
    """Applies top-k, temperature, top-p and min-p.

    Args:
        scores_V: -inf where a token is excluded.
        temperature: above 0.
        top_k: 0 keeps all.
        top_p: 1 keeps all.
        min_p: share of the most probable token's probability; 0 keeps all.

    Returns:
        Ids of the tokens kept, ascending (None: all), and their probabilities up to a factor:
        the most probable token has 1.

    Source of min-p: arXiv 2407.01082, section 3.
    """
    ids: Ids | None = None
    if 0 < top_k < scores_V.size:
        ids = np.flatnonzero(scores_V >= floor_of_top_k(scores_V, top_k))
        scores_V = scores_V[ids]
    # Below the one the most probable token is certain anyway, above the other all tokens are alike,
    # and float32 would overflow.
    divisor = np.float32(min(max(temperature, 1e-30), 1e30))
    weights_C = np.exp((scores_V - scores_V.max()) / divisor)
    floor = min_p
    if top_p < 1.0:
        floor = max(floor, floor_of_top_p(weights_C, top_p))
    if floor > 0.0:
        kept = np.flatnonzero(weights_C >= np.float32(floor))
        ids = kept if ids is None else ids[kept]
        weights_C = weights_C[kept]
    return ids, weights_C


def draw(weights_C: Scores, generator: torch.Generator) -> int:
    """Draws one index by inverting the cumulative distribution at one uniform number.

    One number per token, whatever the vocabulary or the batch, keeps a request's draws its own. In
    float64, since the sum over a vocabulary of 150,000 loses four digits in float32.
    """
    cumulative = torch.from_numpy(weights_C).cumsum(dim=0, dtype=torch.float64)
    uniform = torch.rand((), generator=generator, dtype=torch.float64)
    # right=True steps over tokens of probability zero, where the sum does not rise. At a uniform
    # number so near to 1 that the product rounds to the sum, the last possible token is meant.
    index = int(torch.searchsorted(cumulative, uniform * cumulative[-1], right=True))
    last = int(torch.searchsorted(cumulative, cumulative[-1]))
    return min(index, last)


def as_ids(token_ids: Sequence[int]) -> Ids:
    """`token_ids` as int64 [M]; an `array.array("q")` is not copied."""
    return np.asarray(token_ids, dtype=np.int64)
