"""Liger's functions get what they take; here torch's formulas stand in their place."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from glm_core.bench.kernels import formulas, fused, liger
from glm_core.bench.kernels.case import outputs
from glm_core.bench.kernels.fused import Maker

CPU = torch.device("cpu")


def stand_in() -> SimpleNamespace:
    """The signatures of liger_kernel.transformers.functional, 0.6."""

    def rope(q, k, cos, sin, position_ids=None, unsqueeze_dim=1):
        return tuple(x * cos[:, None] + formulas.rotate_half(x) * sin[:, None] for x in (q, k))

    def rms_norm(X, W, eps, offset=0.0, casting_mode="llama", in_place=True):
        return F.rms_norm(X, X.shape[-1:], W, eps)

    def fused_add_rms_norm(X, R, W, eps, offset=0.0, casting_mode="llama", in_place=True):
        return F.rms_norm(X + R, X.shape[-1:], W, eps), X + R

    def group_norm(X, weight, bias, num_channels, num_groups, eps):
        assert num_channels == X.shape[1]
        return F.group_norm(X, num_groups, weight, bias, eps)

    def loss(input, weight, target, bias=None, ce_weight=None, ignore_index=-100, **settings):
        return F.cross_entropy(F.linear(input, weight, bias), target, reduction="sum")

    return SimpleNamespace(
        liger_rms_norm=rms_norm,
        liger_fused_add_rms_norm=fused_add_rms_norm,
        liger_layer_norm=lambda X, W, B, eps: F.layer_norm(X, X.shape[-1:], W, B, eps),
        liger_rope=rope,
        liger_swiglu=lambda a, b: F.silu(a) * b,
        liger_geglu=lambda a, b: F.gelu(a) * b,
        liger_group_norm=group_norm,
        liger_fused_linear_cross_entropy=loss,
    )


@pytest.mark.parametrize("op", liger.OPS)
def test_arguments_are_in_their_places_when_liger_is_called(tiny, op, monkeypatch):
    monkeypatch.setattr(liger, "_functional", stand_in)
    case = fused.CASES[op](Maker(tiny, torch.float32, CPU))
    theirs = outputs(liger.OPS[op](*case.inputs))
    for ours, other in zip(outputs(case.ours(*case.inputs)), theirs, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-5)  # worst: 4e-7


def test_reason_is_given_when_liger_is_missing_or_has_no_such_op(tiny, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    make = Maker(tiny, torch.float32, CPU)
    norm, gelu = fused.CASES["rms_norm"](make), fused.CASES["gelu_erf"](make)
    for case in (norm, gelu):
        liger.add(case)
        assert liger.LIGER not in case.peers
    assert "pip install liger-kernel" in norm.refused[liger.LIGER]
    assert gelu.refused[liger.LIGER] == "Liger has no gelu_erf"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    liger.add(norm)
    assert norm.peers[liger.LIGER] is liger.OPS["rms_norm"]
