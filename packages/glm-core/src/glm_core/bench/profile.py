"""`glm bench profile`: where the CPU time of one of our training steps goes."""

from __future__ import annotations

import torch
from torch.profiler import ProfilerActivity, profile

from glm_core.bench.shapes import TRAIN_SHAPES
from glm_core.bench.workers import CausalTask, causal_batches
from glm_core.train.engines.torch import TorchEngine
from glm_core.train.optim import OptimConfig
from glm_core.train.trainer_config import Precision, TrainerConfig

WARM_UP_STEPS = 3
PROFILED_STEPS = 3
MATRIX_PRODUCTS = frozenset({"aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm"})
ATTENTION = "aten::_scaled_dot_product"


def step_shares(shape: str, compiled: bool, precision: Precision, threads: int) -> dict[str, float]:
    """Returns the shares of matrix products, of torch's attention kernel and of all the rest.

    Args:
        shape: a key of TRAIN_SHAPES.
        precision: fp32 or bf16.
        threads: of torch.
    """
    torch.set_num_threads(threads)
    config = TrainerConfig(precision=precision, compile=compiled, device="cpu")
    engine = TorchEngine(CausalTask(TRAIN_SHAPES[shape]), OptimConfig(), config)
    batches = causal_batches(TRAIN_SHAPES[shape], start=0)

    def train(steps: range) -> None:
        for step in steps:
            engine.forward_backward(next(batches))
            engine.update(1e-3, step)

    train(range(WARM_UP_STEPS))
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        train(range(WARM_UP_STEPS, WARM_UP_STEPS + PROFILED_STEPS))
    return shares({row.key: row.self_cpu_time_total for row in profiler.key_averages()})


def shares(seconds: dict[str, float]) -> dict[str, float]:
    """Sorts the self times of operators, in any unit, into three shares that add up to 1."""
    total = sum(seconds.values())
    products = sum(time for name, time in seconds.items() if name in MATRIX_PRODUCTS)
    attention = sum(time for name, time in seconds.items() if name.startswith(ATTENTION))
    return {
        "matrix_products": products / total,
        "attention_kernel": attention / total,
        "rest": 1 - (products + attention) / total,
    }
