"""The Triton backend: masks as intervals, and the kernel in the interpreter for every mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from glm_core.attention import Causal, LeftPadded, MaskRequest, Prefixed, prepare_attention
from glm_core.attention.triton import visible_keys
from glm_core.testing import assert_relative
from glm_kernels.triton.launch import unavailable

from .numpy_oracle import attention, visible_matrix
from .test_backends import COLUMNS, MASKS, draw, run_backend

needs_triton = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

# Worst measured, forward and backward: fp32 4.1e-7, fp16 1.1e-3.
TOLERANCE = {torch.float32: 1e-6, torch.float16: 2e-3}


def request_for(spec, offset=0, dtype=torch.float32, device="cpu"):
    device = torch.device(device)
    return MaskRequest(spec, 3, COLUMNS - offset, COLUMNS, offset, device, dtype)


@pytest.mark.parametrize("offset", [0, 1, 6, 12])
@pytest.mark.parametrize("mask", MASKS)
def test_intervals_equal_the_definition_of_the_mask(mask, offset):
    bounds = visible_keys(request_for(MASKS[mask], offset))
    assert bounds.start_BT.dtype == bounds.stop_BT.dtype == torch.int32
    expected = visible_matrix(MASKS[mask], 3, COLUMNS - offset, COLUMNS, offset)
    actual = bounds.dense(COLUMNS).expand(3, -1, -1).numpy()
    assert np.array_equal(actual, expected)


@needs_triton
@pytest.mark.parametrize("mask", MASKS)
def test_kernel_equals_definition(mask):
    for shape, dtype in [((4, 2, 7, 0), torch.float32), ((2, 2, 16, 6), torch.float16)]:
        tensors = draw(shape, dtype, DEVICE)
        visible = visible_matrix(MASKS[mask], 3, COLUMNS - shape[3], COLUMNS, shape[3])
        q, k, v, d_out = (x.cpu().double().numpy() for x in tensors)
        expected = attention(q, k, v, visible, d_out)
        actual = run_backend("triton", MASKS[mask], shape, *tensors)
        for what, a, e in zip(("out", "dq", "dk", "dv"), actual, expected, strict=True):
            assert a.dtype == dtype
            assert_relative(a, e, TOLERANCE[dtype], f"triton {mask} {shape} {what}")


@pytest.mark.parametrize(
    ("request_", "dropout", "message"),
    [
        (request_for(Causal()), 0.1, r"the kernel has no dropout, and attention_dropout is 0\.1"),
        (request_for(Causal(), dtype=torch.float64), 0.0, "takes fp32, bf16 and fp16, not torch.f"),
        (
            request_for(LeftPadded(Prefixed(Causal(), 2), (0, 1, 2))),
            0.0,
            "a Prefixed mask inside another mask is no interval of keys",
        ),
        (request_for(Causal(), device="meta"), 0.0, "has no Triton for meta here"),
    ],
)
def test_request_is_refused_when_the_kernel_cannot_serve_it(request_, dropout, message):
    with pytest.raises(ValueError, match=f"'triton' cannot be used: .*{message}.*; choose auto"):
        prepare_attention(request_, "triton", dropout)
