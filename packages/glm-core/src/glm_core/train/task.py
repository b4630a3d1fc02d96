"""What a run learns: a Task builds the model and gives its loss, the Trainer does the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class LossSum:
    """A loss kept as sum and weight, so that microbatches add up exactly to one big batch."""

    total: Tensor
    """Sum of the losses over all targets, a scalar (fp32) that carries the gradient."""
    weight: Tensor
    """Number of targets in the sum (or the sum of their weights), a scalar without gradient."""
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    """Further scalars to log, each a sum over the same targets; logged divided by `weight`."""


class BatchLike(Protocol):
    """The little that the Trainer asks of a batch."""

    @property
    def num_tokens(self) -> int:
        """Tokens (or pixels, latents...) in the batch without padding: the unit of tok/s."""
        ...

    def to(self, device: torch.device) -> Self:
        """The same batch on another device."""
        ...


BatchT_contra = TypeVar("BatchT_contra", bound=BatchLike, contravariant=True)


class Task(Protocol[BatchT_contra]):
    """A model and what it has to learn.

    A task that needs random numbers draws them from torch's default generator: the Trainer seeds it
    before each step from (seed, step), which makes a resumed run equal to an uninterrupted one.
    """

    def build_model(self) -> nn.Module:
        """A fresh model with its starting weights, in fp32 on the CPU.

        A model that offers `layers: nn.ModuleList` can be compiled block by block and can recompute
        its activations block by block.
        """
        ...

    def loss(self, model: nn.Module, batch: BatchT_contra) -> LossSum:
        """The summed loss of one microbatch."""
        ...

    def flops(self, batch: BatchT_contra) -> float:
        """Floating-point operations of one forward and backward over the batch."""
        ...

    def export(self, model: nn.Module, folder: Path) -> None:
        """Write the trained model to `folder` in the form that the other commands read."""
        ...
