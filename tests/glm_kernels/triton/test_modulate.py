"""Adaptive layer norm against its formula."""

from __future__ import annotations

import pytest
import torch

import glm_kernels

from .conftest import DTYPES

EPS = 1e-6

# Worst measured, output and gradient: fp32 1.6e-7, 2.1e-7; fp16 9.2e-4, 1.2e-3.
TOLERANCES = {torch.float32: 1e-6, torch.float16: 2e-3}

OPS = {
    "modulate": lambda x, scale, shift: glm_kernels.modulate(x, scale, shift, EPS),
    "gate_modulate": lambda *given: glm_kernels.gate_modulate(*given, EPS),
}


def draw(random, op, shape, dtype):
    """x, the residual where the op takes one, and its conditions."""
    streams = [random(*shape, dtype=dtype) for _ in range(2 if op == "gate_modulate" else 1)]
    count = 3 if op == "gate_modulate" else 2
    return [*streams, *(random(shape[0], shape[-1], dtype=dtype) for _ in range(count))]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_modulate_equals_formula_when_shapes_are_odd(random, compare, backend, op, dtype):
    for shape in [(2, 5, 77), (3, 40), (2, 3, 4, 16), (1, 200, 20), (2, 0, 8)]:
        errors = compare(OPS[op], *draw(random, op, shape, dtype), backend=backend)
        assert max(errors) < TOLERANCES[dtype] * (4 if backend == "torch" else 1), shape


@pytest.mark.gpu
@pytest.mark.parametrize("op", OPS)
def test_modulate_equals_formula_when_on_a_gpu(random, compare, op):
    errors = compare(OPS[op], *draw(random, op, (8, 1024, 1152), torch.bfloat16))
    assert max(errors) < 1e-2


@pytest.mark.parametrize("op", OPS)
def test_conditions_of_another_shape_are_refused(random, op):
    inputs = draw(random, op, (2, 5, 8), torch.float32)
    inputs[-2] = inputs[-2][:1]
    with pytest.raises(ValueError, match=r"scale has shape \[1, 8\] and x \[2, 5, 8\]: they must"):
        OPS[op](*inputs)
