"""Runs an op of backend triton and its formula, forward and backward, on the same numbers.

The formula gets the inputs in fp64, so that it errs by nothing: what is compared is the rounding
of the kernel alone. Kernels run on the GPU where there is one, else in Triton's interpreter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from glm_kernels import use_backend
from glm_kernels.triton.launch import unavailable

DTYPES = [torch.float32, torch.float16]
"""bf16 is tested on a GPU alone: the interpreter computes wrong numbers with it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, visibly, where Triton is missing or an old GPU is present."""
    reason = unavailable()
    for item in items:
        if reason is not None and "tests/glm_kernels/triton" in str(item.path):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def outputs_and_gradients(
    function: Callable[..., Any], inputs: Sequence[Tensor], seed: int = 1
) -> tuple[list[Tensor], list[Tensor]]:
    """Run the function and its backward, with the same random gradients for each seed."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    out = function(*leaves)
    outs = list(out) if isinstance(out, tuple) else [out]
    generator = torch.Generator().manual_seed(seed)
    grads = [
        torch.randn(part.shape, generator=generator).half().to(part.device, part.dtype)
        for part in outs
    ]
    return outs, list(torch.autograd.grad(outs, leaves, grads))


def error(actual: Tensor, expected: Tensor) -> float:
    """Largest error relative to the largest expected value."""
    assert actual.shape == expected.shape
    if not expected.numel():
        return 0.0
    expected = expected.detach().double()
    difference = (actual.detach().double() - expected).abs().max()
    return float(difference / expected.abs().max().clamp(min=1e-30))


@pytest.fixture
def compare(device: torch.device) -> Callable[..., tuple[float, float]]:
    """Return a function that gives the worst error of the outputs, and of the gradients."""

    def run(
        function: Callable[..., Any], *inputs: Tensor, backend: str = "triton"
    ) -> tuple[float, float]:
        inputs = tuple(tensor.to(device) for tensor in inputs)
        with use_backend(backend):
            outs, grads = outputs_and_gradients(function, inputs)
        with use_backend("reference"):
            exact_outs, exact = outputs_and_gradients(function, [x.double() for x in inputs])
        for grad, leaf in zip(grads, inputs, strict=True):
            assert grad.dtype == leaf.dtype and grad.shape == leaf.shape
        worst = max(map(error, outs, exact_outs)), max(map(error, grads, exact))
        print("worst errors", *worst)  # pytest -s shows them
        return worst

    return run
