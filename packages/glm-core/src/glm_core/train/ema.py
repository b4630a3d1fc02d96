"""Exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """A second copy of the trainable weights that follows them slowly.

    The decay warms up as min(decay, (1 + step) / (10 + step)), so that a short run is not left with
    its random start.

    Args:
        model: the model to follow; the average starts as a copy of its weights.
        decay: share of the average that survives an update, in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._averages = {n: p.detach().clone() for n, p in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights after update `step` (0 is the first)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages = list(self._averages.values())
        weights: list[Tensor] = list(self._parameters.values())
        torch._foreach_lerp_(averages, weights, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the averaged weights inside the `with`, its own again after."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            average = self._averages[name]
            weight = parameter.clone()
            parameter.copy_(average)
            average.copy_(weight)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages under their parameters' names."""
        return dict(self._averages)

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy averages back; ValueError names what is missing or of another shape."""
        for name, average in self._averages.items():
            if name not in state:
                raise ValueError(f"the average of {name} is missing")
            if state[name].shape != average.shape:
                raise ValueError(
                    f"the average of {name} has shape {list(state[name].shape)},"
                    f" the model has {list(average.shape)}"
                )
            average.copy_(state[name])
