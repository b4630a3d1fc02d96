"""Group norm with SiLU against its formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import glm_kernels
from glm_kernels import use_backend

from .conftest import DTYPES, error

EPS = 1e-5

# Worst measured, output and gradient: fp32 2.0e-7, 1.3e-6; fp16 1.0e-3, 2.4e-3 (backend torch).
TOLERANCES = {torch.float32: 3e-6, torch.float16: 1e-3}


def group_norm_silu(groups):
    return lambda x, w, b: glm_kernels.group_norm_silu(x, groups, w, b, EPS)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("by_sample", [False, True])
@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_group_norm_equals_formula_when_shapes_are_odd(random, compare, backend, by_sample, dtype):
    for shape, groups in [((2, 6, 5, 7), 2), ((1, 3, 1400), 1), ((3, 24), 2), ((0, 4, 3), 2)]:
        size = shape[:2] if by_sample else shape[1:2]
        inputs = random(*shape), random(*size), random(*size)
        inputs = [tensor.to(dtype) for tensor in inputs]
        errors = compare(group_norm_silu(groups), *inputs, backend=backend)
        assert max(errors) < TOLERANCES[dtype] * (4 if backend == "torch" else 1), shape


def test_memory_format_is_kept_when_channels_are_last(random, compare, device):
    x = random(2, 6, 5, 7).to(device, memory_format=torch.channels_last)
    weight, bias = random(6).to(device), random(6).to(device)
    with use_backend("triton"):
        out = glm_kernels.group_norm_silu(x, 3, weight, bias, EPS)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert error(out, F.silu(F.group_norm(x.double(), 3, weight.double(), bias.double()))) < 1e-6
    assert max(compare(group_norm_silu(3), x, weight, bias)) < TOLERANCES[torch.float32]


@pytest.mark.parametrize(
    ("shape", "groups", "size", "message"),
    [
        ((2, 5, 3), 2, (5,), "with C a multiple of the 2 groups"),
        ((2, 4, 3), 2, (3,), r"both must be \[4\], or \[2, 4\] for each sample its own"),
    ],
)
def test_shapes_that_do_not_belong_together_are_refused(shape, groups, size, message):
    with pytest.raises(ValueError, match=message):
        glm_kernels.group_norm_silu(
            torch.zeros(shape), groups, torch.ones(size), torch.ones(size), EPS
        )


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("channels_last", [False, True])
def test_group_norm_equals_formula_when_on_a_gpu(random, compare, device, channels_last, dtype):
    x = random(4, 320, 64, 64, dtype=dtype).to(device)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    errors = compare(group_norm_silu(32), x, random(320, dtype=dtype), random(320, dtype=dtype))
    assert max(errors) < (8e-3 if dtype == torch.bfloat16 else TOLERANCES[dtype])
