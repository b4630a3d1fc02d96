"""Sizes at which everything takes milliseconds."""

from __future__ import annotations

import pytest

from glm_core.bench.kernels import contest
from glm_core.bench.kernels.sizes import Sizes

TINY = Sizes(
    products=((128, 48), (256, 64)),
    rows=(1, 8, 512),
    most_multiplications=4e6,
    megabytes=1,
    tokens=6,
    hidden=64,
    ffn=24,
    heads=4,
    kv_heads=2,
    head_dim=16,
    scores=(2, 8),
    image=(2, 64, 4),
    patches=(2, 4, 32),
    attention=(1, 32, 2, 16),
    columns=20,
    loss=(12, 32, 100),
    loss_memory=(512, 16, 4000),
)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Sizes:
    """The sizes; a contender runs one call in a round."""
    monkeypatch.setattr(contest, "ROUND_SECONDS", 0.0)
    return TINY
