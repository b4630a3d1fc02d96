"""What the Trainer asks of an engine."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from glm_core.train.task import LossSum

State = Mapping[str, Mapping[str, Tensor]]
"""Everything an engine must restore: {"model" | "optimizer" | "ema": {name: tensor}}."""


@dataclass(frozen=True, slots=True)
class Update:
    """What happened in one update; tensors, so that reading them is the caller's choice to wait."""

    grad_norm: Tensor
    """Norm of the mean gradient before clipping, a scalar."""
    skipped: Tensor
    """1.0 if the gradient was not finite and the weights were left alone, else 0.0."""


class Engine(Protocol):
    """Owns model, gradients, optimizer and precision; knows nothing of files, logs or data."""

    model: nn.Module
    device: torch.device

    def forward_backward(self, batch: Any) -> LossSum:
        """Add the gradient of one microbatch; the returned tensors carry none."""
        ...

    def update(self, learning_rate: float, step: int) -> Update:
        """Divide the gradient by the weight gathered since the last update, clip, step, clear."""
        ...

    def evaluate(self, batch: Any) -> LossSum:
        """The loss without gradients."""
        ...

    def averaged_weights(self) -> AbstractContextManager[None]:
        """The model holds the weights to evaluate and to export (the EMA if there is one)."""
        ...

    def state(self) -> State:
        """Live tensors, to be written at once or copied."""
        ...

    def load_state(self, state: State) -> None:
        """Restore what `state` gave; ValueError names what does not fit."""
        ...

    def peak_memory(self) -> int:
        """Largest memory so far, in bytes: of the accelerator, or of the process on CPU."""
        ...
