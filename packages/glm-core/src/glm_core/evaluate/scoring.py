"""Teacher-forced scores of samples, in batches of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from glm_core.data.batch import IGNORE, Batch, Sample, collate
from glm_core.model.transformer import Transformer
from glm_core.progress import Progress

TOKENS_PER_BATCH = 8192


@torch.inference_mode()
def total_nats(model: Transformer, samples: Sequence[Sample], pad_id: int, what: str) -> float:
    """Returns the summed cross-entropy of all labels, in nats.

    Args:
        model: in evaluation mode.
        what: beginning of the progress line.
    """
    total = 0.0
    for _, batch in _batches(model, samples, pad_id, what):
        hidden_BTD = model(batch.input_ids, batch.position_ids, batch.mask)
        total += float(model.loss(hidden_BTD, batch.labels)[0])
    return total


@torch.inference_mode()
def predicted_right(
    model: Transformer, samples: Sequence[Sample], pad_id: int, what: str
) -> list[bool]:
    """Returns for each sample whether the most probable token is the label in every column."""
    right = [False] * len(samples)
    for rows, batch in _batches(model, samples, pad_id, what):
        hidden_BTD = model(batch.input_ids, batch.position_ids, batch.mask)
        labelled_BT = batch.labels != IGNORE
        best_M = model.logits(hidden_BTD[labelled_BT]).argmax(dim=-1)
        wrong_BT = torch.zeros_like(labelled_BT)
        wrong_BT[labelled_BT] = best_M != batch.labels[labelled_BT]
        for row, is_wrong in zip(rows, wrong_BT.any(dim=-1).tolist(), strict=True):
            right[row] = not is_wrong
    return right


def _batches(
    model: Transformer, samples: Sequence[Sample], pad_id: int, what: str
) -> Iterator[tuple[list[int], Batch]]:
    """Yields (indices of the samples, batch), longest first, so that memory peaks at the start."""
    device = model.device
    order = sorted(range(len(samples)), key=lambda index: -len(samples[index]))
    progress = Progress(what, sum(map(len, samples)), "tokens")
    while order:
        longest = len(samples[order[0]])
        count = max(1, TOKENS_PER_BATCH // longest)
        rows, order = order[:count], order[count:]
        batch = collate([samples[row] for row in rows], longest, pad_id)
        yield rows, batch.to(device)
        progress.add(batch.num_tokens)
