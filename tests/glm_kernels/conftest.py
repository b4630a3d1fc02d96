"""Helpers of the kernel tests: run an op forward and backward, measure against float64 numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

Array = np.ndarray[Any, np.dtype[np.float64]]


def to_numpy(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()


@dataclass
class Step:
    """What one forward and backward gave, in float64 numpy."""

    inputs: list[Array]
    out: Array
    grad_out: Array
    grads: list[Array]
    dtype: torch.dtype


@pytest.fixture
def step() -> Callable[..., Step]:
    """Return a function that runs `function(*inputs)` and its backward with a random gradient."""

    def run(function: Callable[..., Tensor], *inputs: Tensor) -> Step:
        leaves = [tensor.detach().requires_grad_() for tensor in inputs]
        out = function(*leaves)
        generator = torch.Generator().manual_seed(1)
        grad_out = torch.randn(out.shape, generator=generator).to(out.dtype)
        grads = torch.autograd.grad(out, leaves, grad_out)
        for leaf, grad in zip(leaves, grads, strict=True):
            assert grad.dtype == leaf.dtype and grad.shape == leaf.shape
        arrays = [to_numpy(tensor) for tensor in leaves]
        gradients = [to_numpy(grad) for grad in grads]
        return Step(arrays, to_numpy(out), to_numpy(grad_out), gradients, out.dtype)

    return run


@pytest.fixture
def random() -> Callable[..., Tensor]:
    """Return a function that draws a normal tensor of a shape and dtype, seeded."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> Tensor:
        return (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(dtype)

    return draw


@pytest.fixture
def worst() -> Callable[..., float]:
    """Return a function: the largest error, relative to the expected value or to `floor`.

    The floor is the size below which a value counts as a sum that cancelled.
    """

    def measure(actual: Array, expected: Array, floor: float = 1.0) -> float:
        assert actual.shape == expected.shape
        error = np.abs(actual - expected) / np.maximum(floor, np.abs(expected))
        return float(error.max(initial=0))

    return measure
