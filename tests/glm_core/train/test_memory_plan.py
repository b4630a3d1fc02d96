from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from glm_core.model import Transformer
from glm_core.model.size import count_parameters
from glm_core.testing import tiny_config
from glm_core.train.memory_plan import plan_memory
from glm_core.train.trainer_config import TrainerConfig

MODEL = tiny_config("glm-4-9b")


def test_parts_are_four_bytes_per_parameter_when_fp32() -> None:
    count = count_parameters(MODEL)
    trainer = TrainerConfig(precision="fp32", device="cpu", ema_decay=0.9)
    plan = plan_memory(MODEL, trainer, seq_length=32)
    assert (plan.weights, plan.gradients, plan.optimizer, plan.ema) == (
        4 * count,
        4 * count,
        8 * count,
        4 * count,
    )
    assert plan.low_precision_weights == 0
    assert plan.total == sum(value for name, value in plan.to_dict().items() if name != "total")


@pytest.mark.parametrize("attention", ["auto", "eager"])
def test_estimate_is_near_what_autograd_saves_when_measured(attention: str) -> None:
    trainer = TrainerConfig(precision="fp32", device="cpu", micro_batch_size=2, attention=attention)
    model = Transformer(MODEL, attention)
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(torch.randint(MODEL.vocab_size, (2, 48)))
    estimate = plan_memory(MODEL, trainer, seq_length=48).activations
    # measured 0.83; masks, rotary tables and the final norm are not in the estimate
    assert 0.6 < estimate / sum(saved.values()) < 1.6


def test_activations_shrink_when_recomputed() -> None:
    trainer = TrainerConfig(precision="fp32", device="cpu")
    deep = replace(MODEL, num_layers=12)
    kept = plan_memory(deep, trainer, 64).activations
    trainer.activation_checkpointing = True
    assert plan_memory(deep, trainer, 64).activations < 0.3 * kept
