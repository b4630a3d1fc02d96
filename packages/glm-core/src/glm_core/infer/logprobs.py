"""Log-probabilities of tokens under the model, before any sampling rule.

Letters: T tokens of a prompt, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token and how probable the model found it."""

    token: int
    logprob: float
    """In nats, under the model: before temperature, penalties and every other rule."""
    top: tuple[tuple[int, float], ...] = ()
    """The most probable tokens in its place and their log-probabilities, best first."""


def log_normalizer(logits_V: NDArray[np.float32]) -> float:
    """Returns the logsumexp of a row; not finite where a logit is NaN or infinity, or all are -inf.

    By numpy, in this thread alone: torch shares the work of one row among its threads, and on a
    busy machine waits milliseconds for the other ones.
    """
    highest = logits_V.max()
    if not np.isfinite(highest):
        return float(highest)
    return float(highest) + float(np.log(np.exp(logits_V - highest).sum()))


def top_logprobs(
    logits_V: NDArray[np.float32], normalizer: float, count: int
) -> tuple[tuple[int, float], ...]:
    """Returns the `count` most probable tokens, best first; of equal ones the lower id first.

    Args:
        logits_V: the rows that are tokens.
        normalizer: logsumexp of all logits.
        count: at least 0.
    """
    count = min(count, logits_V.size)
    if count == 0:
        return ()
    place = logits_V.size - count
    ids = np.flatnonzero(logits_V >= np.partition(logits_V, place)[place])
    best = ids[np.argsort(-logits_V[ids], kind="stable")][:count]
    return tuple((int(token), float(logits_V[token]) - normalizer) for token in best)


def prompt_logprobs(
    logits_TV: Tensor, ids: Sequence[int], count: int = 0, num_ids: int | None = None
) -> list[TokenLogprob]:
    """Returns how probable each token was after those before it.

    Args:
        logits_TV: row t is what the model says after the token before `ids[t]`.
        ids: the tokens, T.
        count: most probable tokens given for each.
        num_ids: rows of the head that are tokens, others are padding; by default all.

    Raises:
        ValueError: there is not one row for each token.
    """
    if len(logits_TV) != len(ids):
        raise ValueError(
            f"there are {len(logits_TV)} rows of logits for {len(ids)} tokens: give one for each"
        )
    logits_TV = logits_TV.detach().float().cpu()
    normalizers = logits_TV.logsumexp(dim=-1).tolist()
    found = []
    for token, row_V, normalizer in zip(ids, logits_TV.numpy(), normalizers, strict=True):
        top = top_logprobs(row_V[:num_ids], normalizer, count)
        found.append(TokenLogprob(token, float(row_V[token]) - normalizer, top))
    return found
