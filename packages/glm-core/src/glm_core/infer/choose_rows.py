"""The next tokens of all rows of a batch. Letters: B rows, V vocabulary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from glm_core.infer.logprobs import TokenLogprob
from glm_core.infer.sampling import Sampler

if TYPE_CHECKING:
    from glm_core.infer.beginning import BeginningState
    from glm_core.infer.grammar import GrammarState


@dataclass(frozen=True, slots=True)
class Turn:
    """One row of a batch whose next token is wanted."""

    sampler: Sampler
    seen_ids: Sequence[int]
    """Tokens of the text so far, the answer's at the end."""
    num_new: int
    """Tokens of the answer so far."""
    grammar: GrammarState | BeginningState | None = None
    """What the answer may still become."""


def choose_rows(logits_BV: Tensor, turns: Sequence[Turn]) -> list[TokenLogprob | Exception]:
    """Chooses the next token of every row, each exactly as `Sampler.choose` would alone.

    Args:
        logits_BV: of one batch.
        turns: one for each row.

    Returns:
        For each row its token, or why there is none: a row that fails does not touch the others,
        whose draws are made and must not be made again.
    """
    quick = _best_of_rows(logits_BV, turns)
    chosen: list[TokenLogprob | Exception] = []
    for logits_V, turn, found in zip(logits_BV, turns, quick, strict=True):
        try:
            chosen.append(
                found or turn.sampler.choose(logits_V, turn.seen_ids, turn.num_new, turn.grammar)
            )
        except Exception as error:
            chosen.append(error)
    return chosen


def _best_of_rows(logits_BV: Tensor, turns: Sequence[Turn]) -> list[TokenLogprob | None]:
    """The tokens of rows that no rule changes, found together: two numbers a row leave the device.

    The others are None, as are those whose logits are not finite. On the CPU rows are as fast
    alone.
    """
    plain = [_is_plain(turn) for turn in turns]
    if not any(plain) or not logits_BV.is_cuda:
        return [None] * len(turns)
    logits_BV = logits_BV.detach().float()
    ids_B = logits_BV.argmax(dim=-1)
    best_B = logits_BV.gather(-1, ids_B[:, None])[:, 0]
    logprobs_B = best_B - logits_BV.logsumexp(dim=-1)
    found: list[TokenLogprob | None] = []
    for turn, is_plain, token, logprob in zip(
        turns, plain, ids_B.tolist(), logprobs_B.tolist(), strict=True
    ):
        quick = is_plain and math.isfinite(logprob) and turn.sampler.takes_best(token, turn.num_new)
        found.append(TokenLogprob(token, logprob) if quick else None)
    return found


def _is_plain(turn: Turn) -> bool:
    sampler = turn.sampler
    return turn.grammar is None and not sampler.num_top and sampler.config.temperature == 0.0
