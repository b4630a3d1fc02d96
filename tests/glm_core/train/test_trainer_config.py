from __future__ import annotations

from typing import Any

import pytest

from glm_core.attention import BACKENDS
from glm_core.train.trainer_config import AttentionChoice, TrainerConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_steps": 0}, "trainer.max_steps is 0; it must be at least 1"),
        ({"checkpoint_every": -1}, "trainer.checkpoint_every is -1; it must be at least 0"),
        ({"ema_decay": 1.0}, r"trainer.ema_decay is 1.0; it must be in \[0, 1\)"),
        ({"grad_clip": float("nan")}, "trainer.grad_clip is nan; it must be at least 0"),
        ({"seed": 2**63}, r"trainer.seed is \d+; it must be below 2\^63"),
        (
            {"micro_batch_size": 3, "global_batch_size": 8},
            r"trainer.global_batch_size \(8\) must be a multiple of trainer.micro_batch_size \(3\)",
        ),
        ({"precision": "fp8"}, "'fp8' is not a valid Precision"),
        ({"attention": "flash"}, "'flash' is not a valid AttentionChoice"),
    ],
)
def test_error_names_setting_when_impossible(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainerConfig(**settings)


def test_every_attention_backend_can_be_set() -> None:
    assert [choice.value for choice in AttentionChoice] == ["auto", *BACKENDS]


def test_accumulation_is_the_quotient_when_valid() -> None:
    assert TrainerConfig(micro_batch_size=2, global_batch_size=8).accumulation_steps == 4
