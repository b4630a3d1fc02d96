"""Rotary embeddings against their formula."""

from __future__ import annotations

import pytest
import torch

import glm_kernels
from glm_kernels import use_backend

from .conftest import DTYPES, error

# Worst measured, output and gradient: fp32 7.3e-8, 7.8e-8; fp16 4.7e-4, 4.1e-4.
TOLERANCES = {torch.float32: 1e-6, torch.float16: 1e-3}


def tables(random, *shape):
    angle = random(*shape)
    return angle.cos(), angle.sin()


def call(device, form, random):
    """Return the op of a form, with tables of its own that no gradient is asked of."""
    if form == "2d":
        first, second = tables(random, 2, 5, 3), tables(random, 1, 5, 3)
        parts = [part.to(device) for part in (*first, *second)]
        return lambda x: glm_kernels.apply_rope_2d(x, *(part.to(x.dtype) for part in parts))
    cos, sin = (part.to(device) for part in tables(random, 5, 3))
    interleaved = form.startswith("interleaved")
    return lambda x: glm_kernels.apply_rope(x, cos, sin, interleaved)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("form", "size"),
    [("halves", 6), ("halves_partial", 11), ("interleaved", 6), ("interleaved_partial", 9)]
    + [("2d", 12)],
)
def test_rope_equals_formula_when_shapes_are_odd(random, compare, device, form, size, dtype):
    x = random(2, 5, 3, size, dtype=dtype)
    assert max(compare(call(device, form, random), x)) < TOLERANCES[dtype]


def test_rope_takes_views_when_heads_are_cut_from_a_projection(random, device):
    projection = random(2, 5, 40).to(device)
    x = projection[..., 4:28].unflatten(-1, (3, 8))
    cos, sin = (part.to(device) for part in tables(random, 2, 1, 3))
    with use_backend("triton"):
        out = glm_kernels.apply_rope(x, cos, sin)
    expected = glm_kernels.reference.apply_rope(x.double(), cos.double(), sin.double(), False)
    assert error(out, expected) < 1e-6  # measured 6.6e-8


def test_rope_refuses_tables_wider_than_a_head(random, device):
    cos, sin = (part.to(device) for part in tables(random, 1, 5, 4))
    with use_backend("triton"), pytest.raises(ValueError, match="rotate 8 dims but a head"):
        glm_kernels.apply_rope(torch.zeros(1, 5, 2, 6, device=device), cos, sin)


@pytest.mark.gpu
@pytest.mark.parametrize("interleaved", [False, True])
def test_rope_equals_formula_when_on_a_gpu(random, compare, interleaved):
    cos, sin = (part.cuda() for part in tables(random, 1, 300, 32))
    x = random(2, 300, 32, 128, dtype=torch.bfloat16)
    errors = compare(lambda x: glm_kernels.apply_rope(x, cos, sin, interleaved), x)
    assert max(errors) < 4e-3
