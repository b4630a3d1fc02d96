"""scale_mask_softmax against a float64 numpy transcription, forward and backward."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import glm_kernels
from glm_kernels import use_backend

# Worst errors measured, all backends: fp32 out 2.4e-7, grad 1.1e-7; bf16 out 2.0e-3, grad 1.7e-3.
TOLERANCES = {torch.float32: (5e-7, 5e-7), torch.bfloat16: (3e-3, 3e-3)}
SCALE = 0.37


def oracle(scores, mask, grad):
    """Sum over the visible cells only; nothing is ever masked by a large number."""
    peak = np.where(mask, scores * SCALE, -np.inf).max(-1, keepdims=True, initial=-1e300)
    weights = np.where(mask, np.exp(np.where(mask, scores * SCALE - peak, 0)), 0)
    total = weights.sum(-1, keepdims=True)
    probs = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    return probs, SCALE * probs * (grad - (grad * probs).sum(-1, keepdims=True))


def masks():
    rows = torch.arange(77)
    yield "none", None
    yield "causal", rows[:, None] >= rows
    some = torch.rand(2, 1, 77, 77, generator=torch.Generator().manual_seed(4)) < 0.5
    some[1, :, 5:9] = False
    yield "rows without key", some
    yield "keys only", (rows < 13)[None, None, None, :]


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("name", "mask"), list(masks()))
def test_softmax_agrees_when_compared_with_numpy(step, random, worst, backend, dtype, name, mask):
    scores = random(2, 3, 77, 77, dtype=dtype, scale=5)
    with use_backend(backend):
        ours = step(lambda s: glm_kernels.scale_mask_softmax(s, mask, SCALE), scores)
    visible = np.broadcast_to(True if mask is None else mask.numpy(), scores.shape)
    out, grad = oracle(ours.inputs[0], visible, ours.grad_out)
    assert ours.dtype == dtype
    assert worst(ours.out, out) < TOLERANCES[dtype][0]
    assert worst(ours.grads[0], grad) < TOLERANCES[dtype][1]


def test_softmax_backward_is_exact_when_checked_by_differences(random):
    scores = random(1, 2, 4, 5, dtype=torch.float64).requires_grad_()
    mask = torch.tensor([[True] * 5, [False] * 5, [True, False] * 2 + [True], [False] * 4 + [True]])
    with use_backend("cpu"):
        assert torch.autograd.gradcheck(
            lambda s: glm_kernels.scale_mask_softmax(s, mask, SCALE), (scores,)
        )


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
def test_softmax_gives_zeros_when_no_key_is_visible(random, backend):
    scores = random(1, 1, 2, 3).requires_grad_()
    with use_backend(backend):
        out = glm_kernels.scale_mask_softmax(scores, torch.zeros(2, 3, dtype=torch.bool), 1.0)
    assert torch.equal(out, torch.zeros(1, 1, 2, 3))
    (grad,) = torch.autograd.grad(out.sum(), scores)
    assert torch.equal(grad, torch.zeros(1, 1, 2, 3))


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
def test_softmax_stays_finite_when_scores_are_huge(backend):
    scores = torch.tensor([[[[6e4, -6e4, 5e4]]]], dtype=torch.float16)
    with use_backend(backend):
        out = glm_kernels.scale_mask_softmax(scores, None, 8.0)
    assert torch.equal(out, torch.tensor([[[[1.0, 0, 0]]]], dtype=torch.float16))
