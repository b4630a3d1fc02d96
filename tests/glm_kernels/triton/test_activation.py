"""Activations and gated units against their formulas."""

from __future__ import annotations

import pytest
import torch

import glm_kernels
from glm_kernels import use_backend

from .conftest import DTYPES

# Worst measured, output and gradient: fp32 1.1e-7, 1.2e-7; fp16 3.8e-4, 3.1e-4.
TOLERANCES = {torch.float32: 1e-6, torch.float16: 1e-3}

OPS = {
    "gelu_tanh": lambda x: glm_kernels.gelu(x, "tanh"),
    "gelu_none": lambda x: glm_kernels.gelu(x, "none"),
    "gelu_quick": lambda x: glm_kernels.gelu(x, "quick"),
    "geglu_first_tanh": lambda x: glm_kernels.geglu(x, "first", "tanh"),
    "geglu_second_none": lambda x: glm_kernels.geglu(x, "second", "none"),
    "swiglu": glm_kernels.swiglu,
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", OPS)
def test_activation_equals_formula_when_shapes_are_odd(random, compare, op, dtype):
    for shape in [(3, 5, 14), (2, 2100), (1, 2), (0, 6)]:
        x = random(*shape, dtype=dtype, scale=3.0)
        assert max(compare(OPS[op], x)) < TOLERANCES[dtype], shape


@pytest.mark.parametrize("op", OPS)
def test_activation_has_its_limits_when_inputs_are_huge(device, op):
    x = torch.tensor([-1e4, -30.0, 30.0, 1e4]).to(device).repeat_interleave(2)[None]
    with use_backend("triton"):
        out = OPS[op](x)
    expected = OPS[op](x.double())
    torch.testing.assert_close(out.double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("op", OPS)
def test_activation_equals_formula_when_on_a_gpu(random, compare, op, dtype):
    x = random(3, 257, 2 * 13696, dtype=dtype)
    assert max(compare(OPS[op], x)) < (8e-3 if dtype == torch.bfloat16 else 1e-6)


def test_gated_unit_refuses_an_odd_width(device):
    with use_backend("triton"), pytest.raises(ValueError, match="last dimension must be even"):
        glm_kernels.swiglu(torch.zeros(2, 5, device=device))
