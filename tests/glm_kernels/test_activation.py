"""Activations against scipy's erf and expit in float64, forward and backward."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import erf, expit

import glm_kernels
from glm_kernels import use_backend

SHAPES = [(5, 123, 77), (2, 3), (1,)]
# Worst errors measured, all backends, of out and grad: gelu fp32 9.6e-7, 1.7e-6; bf16 3.8e-3,
# 3.9e-3; gated fp32 6.0e-7, 7.3e-7; bf16 7.5e-3, 7.4e-3 (the activated half is rounded first).
TOLERANCES = {torch.float32: (2e-6, 3e-6), torch.bfloat16: (1e-2, 1e-2)}


def gelu_oracle(x, approximate):
    """Return gelu and its derivative."""
    if approximate == "quick":
        sigmoid = expit(1.702 * x)
        return x * sigmoid, sigmoid + x * 1.702 * sigmoid * (1 - sigmoid)
    if approximate == "none":
        cdf = (1 + erf(x / np.sqrt(2))) / 2
        return x * cdf, cdf + x * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    slope = np.sqrt(2 / np.pi)
    tanh = np.tanh(slope * (x + 0.044715 * x**3))
    inner = slope * (1 + 3 * 0.044715 * x**2)
    return x * (1 + tanh) / 2, (1 + tanh) / 2 + x * (1 - tanh**2) * inner / 2


def silu_oracle(x):
    return x * expit(x), expit(x) * (1 + x * (1 - expit(x)))


def gated_oracle(x, grad, activated, function):
    """Return function(gate) * value and its gradient by x."""
    halves = np.split(x, 2, -1)
    gate, value = halves if activated == "first" else halves[::-1]
    active, derivative = function(gate)
    grads = [grad * value * derivative, grad * active]
    return active * value, np.concatenate(grads if activated == "first" else grads[::-1], -1)


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("approximate", ["tanh", "none", "quick"])
@pytest.mark.parametrize("shape", SHAPES)
def test_gelu_agrees_when_compared_with_scipy(
    step, random, worst, backend, dtype, approximate, shape
):
    x = random(*shape, dtype=dtype, scale=2)
    with use_backend(backend):
        ours = step(lambda x: glm_kernels.gelu(x, approximate), x)
    out, derivative = gelu_oracle(ours.inputs[0], approximate)
    assert ours.dtype == dtype
    assert worst(ours.out, out) < TOLERANCES[dtype][0]
    assert worst(ours.grads[0], derivative * ours.grad_out) < TOLERANCES[dtype][1]


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("kind", ["swiglu", "tanh", "none"])
@pytest.mark.parametrize("activated", ["first", "second"])
@pytest.mark.parametrize("shape", SHAPES)
def test_gated_units_agree_when_compared_with_scipy(
    step, random, worst, backend, dtype, kind, activated, shape
):
    x = random(*shape[:-1], 2 * shape[-1], dtype=dtype)
    if kind == "swiglu":
        activated, function = "first", glm_kernels.swiglu
    else:

        def function(x):
            return glm_kernels.geglu(x, activated, kind)

    with use_backend(backend):
        ours = step(function, x)
    half = silu_oracle if kind == "swiglu" else lambda gate: gelu_oracle(gate, kind)
    out, grad = gated_oracle(ours.inputs[0], ours.grad_out, activated, half)
    assert ours.dtype == dtype
    assert worst(ours.out, out) < TOLERANCES[dtype][0]
    assert worst(ours.grads[0], grad) < TOLERANCES[dtype][1]


def test_gated_units_take_views_when_input_is_not_contiguous(random):
    x = random(6, 4, 9)
    for function in (glm_kernels.swiglu, lambda x: glm_kernels.geglu(x, "second", "tanh")):
        leaf = x.clone().requires_grad_()
        (grad,) = torch.autograd.grad(function(leaf.transpose(0, 2)).square().sum(), leaf)
        with use_backend("reference"):
            (expected,) = torch.autograd.grad(function(leaf.transpose(0, 2)).square().sum(), leaf)
        torch.testing.assert_close(grad, expected, rtol=1e-5, atol=1e-6)  # measured 4.8e-7
