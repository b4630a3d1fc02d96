"""The loss of a linear head against its formula."""

from __future__ import annotations

import pytest
import torch

import glm_kernels
from glm_kernels import use_backend
from glm_kernels.triton import cross_entropy

from .conftest import DTYPES

# Worst measured, loss and gradient: fp32 7.6e-8, 3.2e-7; fp16 6.0e-5, 9.3e-4.
TOLERANCES = {torch.float32: (1e-6, 1e-6), torch.float16: (1e-3, 2e-3)}


def call(labels, with_bias, chunk_size=4):
    def loss(hidden, weight, bias=None):
        return glm_kernels.fused_linear_cross_entropy(
            hidden, weight, labels, bias=bias, chunk_size=chunk_size
        )

    return loss


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_bias", [False, True])
def test_loss_equals_formula_when_shapes_are_odd(
    random, compare, device, monkeypatch, with_bias, dtype
):
    monkeypatch.setattr(cross_entropy, "LARGEST_BLOCK", 16)
    labels = (torch.arange(11) * 5 % 37).to(device)
    labels[::4] = -100
    inputs = [random(11, 9, dtype=dtype), random(37, 9, dtype=dtype)]
    if with_bias:
        inputs.append(random(37, dtype=dtype))
    out, grad = compare(call(labels, with_bias), *inputs)
    assert out < TOLERANCES[dtype][0] and grad < TOLERANCES[dtype][1]


def test_loss_is_zero_when_every_row_is_ignored(random, compare, device):
    labels = torch.full((3,), -100, device=device)
    assert compare(call(labels, False), random(3, 4), random(5, 4)) == (0.0, 0.0)


def test_small_loss_and_gradient_are_not_lost_when_the_model_is_sure(compare, device):
    hidden, weight = torch.eye(3) * 12, torch.eye(3)  # p of the label is 1 - 1.2e-5
    errors = compare(call(torch.arange(3, device=device), False), hidden, weight)
    assert max(errors) < 3e-2  # measured 1.4e-2 of 1.2e-5: the last bits of a logit of 12


@pytest.mark.gpu  # on the CPU such a label is refused before any kernel
def test_loss_is_nan_when_a_label_is_outside_the_vocabulary(random, device):
    with use_backend("triton"):
        loss = call(torch.tensor([0, 5], device=device), False)(
            random(2, 4).to(device), random(5, 4).to(device)
        )
    assert loss.isnan()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_loss_equals_formula_when_on_a_gpu(random, compare, device, dtype):
    labels = torch.arange(3000, device=device) * 7 % 65024
    hidden = random(3000, 256, dtype=dtype)
    weight = random(65024, 256, dtype=dtype, scale=0.05)
    out, grad = compare(call(labels, False, None), hidden, weight)
    tolerance = (1e-3, 2e-2) if dtype == torch.bfloat16 else (1e-5, 1e-4)
    assert out < tolerance[0] and grad < tolerance[1]
