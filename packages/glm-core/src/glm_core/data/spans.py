"""How long blanks are and where they go.

Source: arXiv 2103.10360, section 2.1; arXiv 2210.02414, section 2.2.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from glm_core.data.batch import Ints

MAX_SPAN_LENGTH = 39
Rng = np.random.Generator


@lru_cache(maxsize=16)
def span_length_distribution(poisson_lambda: float) -> np.ndarray:
    """Cumulative probabilities of span lengths 1..39: Poisson weights, renormalised.

    Returns:
        float64 (39,), the last is 1. Shared: do not write to it.
    """
    lengths = range(1, MAX_SPAN_LENGTH + 1)
    log_weights = [k * math.log(poisson_lambda) - math.lgamma(k + 1) for k in lengths]
    cumulative = np.cumsum(np.exp(np.array(log_weights) - max(log_weights)))
    cumulative /= cumulative[-1]
    cumulative.flags.writeable = False
    return cumulative


def draw_span_lengths(budget: int, poisson_lambda: float, rng: Rng) -> Ints:
    """Span lengths that together reach at least `budget` tokens.

    Returns:
        int64 (max(budget, 1),): as many as could be needed; take from the front.
    """
    uniform = rng.random(max(budget, 1))
    lengths: Ints = 1 + span_length_distribution(poisson_lambda).searchsorted(uniform, "right")
    return lengths


def place_spans(lengths_K: Ints, offset: int, size: int, rng: Rng) -> Ints:
    """Random starts for spans within `size` columns from `offset`, in the order given.

    At least one column stays free between two spans.

    Returns:
        int64 (K,), ascending. Needs sum(lengths) + K - 1 <= size.
    """
    count = len(lengths_K)
    free = size - int(lengths_K.sum()) - count + 1
    places = np.sort(rng.integers(0, free + 1, count))
    starts: Ints = offset + places + np.cumsum(lengths_K + 1) - (lengths_K + 1)
    return starts


def place_in_documents(
    text_T: Ints, lengths_K: Ints, eos_id: int, mask_ratio: float, rng: Rng
) -> tuple[Ints, Ints]:
    """Spreads spans over the documents of a text; none crosses a document's end.

    Shorter documents first take what `mask_ratio` of them allows, the longest takes the rest.
    Spans that find no room are left out, but one always stays. [CLS] (column 0), eos and the last
    token are never blanked.

    Returns:
        starts and lengths of the placed spans, int64, starts ascending.
    """
    documents = _documents(text_T, eos_id)
    if not documents:  # nothing but special tokens: the last token is all there is
        return np.array([len(text_T) - 1]), np.array([1])
    starts, taken, used = [], [], 0
    for offset, size in documents:
        rest = lengths_K[used:]
        covered = np.cumsum(rest)
        fits = covered + np.arange(len(rest)) <= size  # one free column between two spans
        if offset != documents[-1][0]:
            fits &= covered <= int(mask_ratio * size)
        count = int(fits.sum())
        if count:
            chosen = rest[:count]
            starts.append(place_spans(chosen, offset, size, rng))
            taken.append(chosen)
            used += count
    if not starts:
        offset, size = documents[-1]
        only = np.minimum(lengths_K[:1], size)
        return place_spans(only, offset, size, rng), only
    starts_K, taken_K = np.concatenate(starts), np.concatenate(taken)
    ascending = np.argsort(starts_K)
    return starts_K[ascending], taken_K[ascending]


def _documents(text_T: Ints, eos_id: int) -> list[tuple[int, int]]:
    """(first column, tokens) of each document's maskable part, shortest first."""
    documents = []
    start = 1
    for end in [*np.flatnonzero(text_T == eos_id).tolist(), len(text_T) - 1]:
        if end > start:
            documents.append((start, end - start))
        start = end + 1
    return sorted(documents, key=lambda document: document[1])
