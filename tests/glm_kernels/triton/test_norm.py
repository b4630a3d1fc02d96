"""The norms, with and without the residual addition, against their formulas."""

from __future__ import annotations

import pytest
import torch

import glm_kernels
from glm_kernels import use_backend

from .conftest import DTYPES, error

EPS = 1e-5
SHAPES = [(5, 7, 77), (3, 64), (1, 1, 8), (2, 150, 33), (0, 5), (2, 2050)]

# Worst measured, output and gradient: fp32 1.4e-7, 2.3e-7; fp16 6.3e-4, 6.0e-4.
TOLERANCES = {torch.float32: (1e-6, 1e-6), torch.float16: (1e-3, 1e-3)}

OPS = {
    "rms_norm": lambda x, w: glm_kernels.rms_norm(x, w, EPS),
    "layer_norm": lambda x, w, b: glm_kernels.layer_norm(x, w, b, EPS),
    "layer_norm_without_bias": lambda x, w: glm_kernels.layer_norm(x, w, None, EPS),
    "add_rms_norm": lambda x, w, r: glm_kernels.add_rms_norm(x, r, w, EPS),
    "add_layer_norm": lambda x, w, b, r: glm_kernels.add_layer_norm(x, r, w, b, EPS),
}


def draw(random, op, shape, dtype):
    """x, weight, and what else the op takes."""
    vectors = [random(shape[-1], dtype=dtype) for _ in range(2 if op.endswith("layer_norm") else 1)]
    residual = [random(*shape, dtype=dtype)] if op.startswith("add") else []
    return [random(*shape, dtype=dtype), *vectors, *residual]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", OPS)
def test_norm_equals_formula_when_shapes_are_odd(random, compare, op, dtype):
    for shape in SHAPES:
        out, grad = compare(OPS[op], *draw(random, op, shape, dtype))
        assert out < TOLERANCES[dtype][0] and grad < TOLERANCES[dtype][1], shape


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("op", OPS)
def test_norm_equals_formula_when_on_a_gpu(random, compare, op, dtype):
    for shape in [(4, 1000, 4096), (3, 7, 8191), (2, 12288)]:
        out, grad = compare(OPS[op], *draw(random, op, shape, dtype))
        tolerance = 8e-3 if dtype == torch.bfloat16 else TOLERANCES[dtype][0]
        assert out < tolerance and grad < tolerance, shape


def test_norm_takes_views_and_other_weight_dtype(random, device):
    x = random(6, 4, 9, dtype=torch.float16).to(device).transpose(0, 2)
    weight = random(6).to(device)
    with use_backend("triton"):
        out = glm_kernels.rms_norm(x, weight, EPS)
    expected = glm_kernels.reference.rms_norm(x.double(), weight.double(), EPS)
    assert out.dtype == torch.float32
    assert error(out, expected) < 1e-6  # measured 6.6e-8


def test_only_the_stream_has_a_gradient_when_the_norm_is_not_used(random, device):
    x, residual = (random(3, 8).to(device).requires_grad_() for _ in range(2))
    weight = random(8).to(device).requires_grad_()
    with use_backend("triton"):
        _, stream = glm_kernels.add_rms_norm(x, residual, weight, EPS)
    stream.square().sum().backward()
    assert error(x.grad, 2 * stream) < 1e-6 and error(residual.grad, 2 * stream) < 1e-6
    assert not weight.grad.any()


def test_fp64_is_computed_by_torch_when_kernels_would_lose_its_bits(random, device):
    x = random(3, 5, dtype=torch.float64).to(device)
    weight = random(5, dtype=torch.float64).to(device)
    with use_backend("triton"):
        out = glm_kernels.rms_norm(x, weight, EPS)
    assert error(out, glm_kernels.reference.rms_norm(x, weight, EPS)) < 1e-15
