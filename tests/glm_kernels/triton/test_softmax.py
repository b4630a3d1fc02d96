"""Scale-mask-softmax against its formula."""

from __future__ import annotations

import pytest
import torch

import glm_kernels
from glm_kernels import use_backend

from .conftest import DTYPES

# Worst measured, output and gradient: fp32 1.2e-7, 4.4e-7; fp16 2.4e-4, 1.1e-3.
TOLERANCES = {torch.float32: 1e-6, torch.float16: 2e-3}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mask_shape", [None, (2, 3, 5, 7), (2, 1, 5, 7), (5, 7), (2, 1, 1, 7)])
def test_softmax_equals_formula_when_mask_broadcasts(random, compare, device, mask_shape, dtype):
    mask = None
    if mask_shape is not None:
        mask = (random(*mask_shape) > 0).to(device)
        if mask.shape[-2] > 1:
            mask[..., 0, :] = False  # rows without a visible key
    scores = random(2, 3, 5, 7, dtype=dtype, scale=4.0)
    errors = compare(lambda s: glm_kernels.scale_mask_softmax(s, mask, 0.7), scores)
    assert max(errors) < TOLERANCES[dtype]


@pytest.mark.parametrize("shape", [(3, 1100), (2, 3, 2, 2, 6), (0, 4)])
def test_softmax_equals_formula_when_dims_differ(random, compare, device, shape):
    mask = (torch.arange(shape[-1]) % 3 != 1).to(device)
    errors = compare(lambda s: glm_kernels.scale_mask_softmax(s, mask, 2.0), random(*shape))
    assert max(errors) < TOLERANCES[torch.float32]


def test_row_without_a_visible_key_is_zeros(device):
    mask = torch.zeros(1, 3, dtype=torch.bool, device=device)
    with use_backend("triton"):
        out = glm_kernels.scale_mask_softmax(torch.ones(1, 1, 1, 3, device=device), mask, 1.0)
    assert torch.equal(out.cpu(), torch.zeros(1, 1, 1, 3))


@pytest.mark.gpu
def test_softmax_equals_formula_when_on_a_gpu(random, compare, device):
    mask = torch.ones(1000, 1000, dtype=torch.bool, device=device).tril()
    scores = random(2, 8, 1000, 1000, dtype=torch.bfloat16)
    errors = compare(lambda s: glm_kernels.scale_mask_softmax(s, mask, 0.1), scores)
    assert max(errors) < 8e-3
