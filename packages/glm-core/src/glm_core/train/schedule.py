"""Learning rate as a pure function of the step: nothing to save, nothing to restore."""

import math
from enum import StrEnum


class Schedule(StrEnum):
    """Shape of the learning rate after the warm-up."""

    constant = "constant"
    cosine = "cosine"
    wsd = "wsd"


def learning_rate_factor(
    schedule: Schedule,
    step: int,
    *,
    max_steps: int,
    warmup_steps: int,
    min_ratio: float,
    decay_fraction: float,
) -> float:
    """The factor on the peak learning rate at `step`, in (0, 1].

    Args:
        schedule: `cosine` falls from the end of the warm-up to the last step; `wsd` (warm-up,
            stable, decay) stays at the peak and falls linearly over the last `decay_fraction` of
            the run; `constant` stays.
        step: 0 for the first update.
        max_steps: updates in the whole run.
        warmup_steps: updates of linear warm-up; update 0 already has 1/warmup_steps of the peak.
        min_ratio: the factor that the last update ends near.
        decay_fraction: share of the run that `wsd` spends falling.

    Source: cosine as GLM (arXiv 2103.10360) trains; wsd from MiniCPM (arXiv 2404.06395).
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule is Schedule.constant:
        return 1.0
    if schedule is Schedule.cosine:
        start = warmup_steps
    else:
        start = max(warmup_steps, max_steps - round(max_steps * decay_fraction))
    if step < start:
        return 1.0
    progress = min(1.0, (step - start) / max(1, max_steps - start))
    if schedule is Schedule.cosine:
        return min_ratio + (1 - min_ratio) * 0.5 * (1 + math.cos(math.pi * progress))
    return 1.0 - (1 - min_ratio) * progress
