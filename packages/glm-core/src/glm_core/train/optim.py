"""The optimizer with its weight-decay groups, and the learning rate that goes with it."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import nn

from glm_core.train.muon import MuonAdamW
from glm_core.train.schedule import Schedule, learning_rate_factor


class OptimizerKind(StrEnum):
    """What moves the matrices of the blocks; AdamW moves everything else."""

    adamw = "adamw"
    muon = "muon"


@dataclass(kw_only=True, slots=True)
class OptimConfig:
    """Settings of the optimizer and of its learning rate."""

    optimizer: OptimizerKind = OptimizerKind.adamw
    """adamw, or muon for the matrices of the blocks: fewer tokens for the same loss."""
    lr: float = 1e-3
    """Peak learning rate."""
    schedule: Schedule = Schedule.cosine
    """Shape of the learning rate after the warm-up: constant, cosine or wsd."""
    warmup_steps: int = 100
    """Updates of linear warm-up."""
    min_lr_ratio: float = 0.1
    """Where the learning rate ends, as a share of `lr`."""
    decay_fraction: float = 0.2
    """Share of the run over which `wsd` falls."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.95
    """Decay of the second moment."""
    eps: float = 1e-8
    """Added to the square root of the second moment."""
    weight_decay: float = 0.1
    """Decoupled weight decay of matrices; biases and norm weights never decay."""
    decay_embeddings: bool = False
    """Whether embedding tables decay as well."""

    def __post_init__(self) -> None:
        self.optimizer = OptimizerKind(self.optimizer)
        self.schedule = Schedule(self.schedule)
        if not 0 < self.lr < math.inf:
            raise ValueError(f"optim.lr is {self.lr}; it must be above 0, for example 1e-3")
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"optim.{name} is {value}; it must be in [0, 1)")
        for name in ("min_lr_ratio", "decay_fraction"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"optim.{name} is {value}; it must be between 0 and 1")
        for name in ("warmup_steps", "weight_decay", "eps"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"optim.{name} is {value}; it must not be negative or infinite")

    def learning_rate(self, step: int, max_steps: int) -> float:
        """Learning rate of update `step` (0 is the first) in a run of `max_steps`."""
        return self.lr * learning_rate_factor(
            self.schedule,
            step,
            max_steps=max_steps,
            warmup_steps=self.warmup_steps,
            min_ratio=self.min_lr_ratio,
            decay_fraction=self.decay_fraction,
        )


def decay_groups(
    model: nn.Module, *, decay_embeddings: bool
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Split the trainable parameters into (decaying, not decaying).

    Vectors (biases, norm weights) never decay; embedding tables only if asked. A head tied to an
    embedding is that embedding.
    """
    embeddings = {
        id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)
    }
    decaying: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        is_matrix = parameter.ndim >= 2
        kept_out = id(parameter) in embeddings and not decay_embeddings
        (decaying if is_matrix and not kept_out else others).append(parameter)
    return decaying, others


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """The optimizer over the two weight-decay groups of `model`; AdamW is fused."""
    decaying, others = decay_groups(model, decay_embeddings=config.decay_embeddings)
    matrices = _block_matrices(model) if config.optimizer is OptimizerKind.muon else []
    moved = {id(matrix) for matrix in matrices}
    decaying = [parameter for parameter in decaying if id(parameter) not in moved]
    groups = [
        {"params": parameters, "weight_decay": weight_decay}
        for parameters, weight_decay in ((decaying, config.weight_decay), (others, 0.0))
        if parameters
    ]
    if not groups:
        raise ValueError("the model has no parameter that requires a gradient: nothing to train")
    settings: dict[str, Any] = {
        "lr": config.lr,
        "betas": (config.beta1, config.beta2),
        "eps": config.eps,
        "fused": True,
    }
    if not matrices:
        return torch.optim.AdamW(groups, **settings)
    return MuonAdamW(matrices, groups, weight_decay=config.weight_decay, **settings)


def _block_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The matrices of a model's blocks, its `layers`; of a model without those, all of them."""
    blocks = getattr(model, "layers", model)
    embeddings = {id(table.weight) for table in model.modules() if isinstance(table, nn.Embedding)}
    return [
        parameter
        for parameter in blocks.parameters()
        if parameter.requires_grad and parameter.ndim == 2 and id(parameter) not in embeddings
    ]
