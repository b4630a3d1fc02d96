"""Liger Kernel's ops as peers, on a GPU where it is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from glm_core.bench.kernels.case import Case, Op
from glm_core.bench.kernels.formulas import EPS, GROUPS

LIGER = "Liger"


def add(case: Case) -> None:
    """Adds Liger's op to a case, or the reason why there is none."""
    if case.op not in OPS:
        case.refused[LIGER] = f"Liger has no {case.op}"
    elif importlib.util.find_spec("liger_kernel") is None:
        case.refused[LIGER] = "liger_kernel is not installed: pip install liger-kernel"
    else:
        case.peers[LIGER] = OPS[case.op]


def _functional() -> Any:
    import liger_kernel.transformers.functional as functional

    return functional


# `in_place` lets Liger write over the gradient it is given, which all rounds here share.


def _rms_norm(x: Tensor, weight: Tensor) -> Any:
    return _functional().liger_rms_norm(x, weight, EPS, in_place=False)


def _add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor) -> Any:
    return _functional().liger_fused_add_rms_norm(x, residual, weight, EPS, in_place=False)


def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Any:
    return _functional().liger_layer_norm(x, weight, bias, EPS)


def _add_layer_norm(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> Any:
    stream = residual + x
    return _layer_norm(stream, weight, bias), stream


def _rope(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> Any:
    """It wants heads before positions and tables of whole heads. It writes over q and k, which
    turns what all sides read and makes nobody slower."""
    cos, sin = (table.repeat(1, 1, 2).to(q.dtype) for table in (cos, sin))
    turned = _functional().liger_rope(q.transpose(1, 2), k.transpose(1, 2), cos, sin)
    return tuple(x.transpose(1, 2) for x in turned)


def _halves(x: Tensor, name: str, gate_first: bool) -> Any:
    first, second = x.chunk(2, dim=-1)
    gate, value = (first, second) if gate_first else (second, first)
    return getattr(_functional(), name)(gate, value)


def _group_norm_silu(x: Tensor, weight: Tensor, bias: Tensor) -> Any:
    return F.silu(_functional().liger_group_norm(x, weight, bias, x.shape[1], GROUPS, EPS))


def _cross_entropy(hidden: Tensor, weight: Tensor, labels: Tensor) -> Any:
    return _functional().liger_fused_linear_cross_entropy(hidden, weight, labels, reduction="sum")


OPS: dict[str, Op | Callable[..., Any]] = {
    "rms_norm": _rms_norm,
    "add_rms_norm": _add_rms_norm,
    "layer_norm": _layer_norm,
    "add_layer_norm": _add_layer_norm,
    "rope": _rope,
    "swiglu": partial(_halves, name="liger_swiglu", gate_first=True),
    # its gelu is the tanh form, ours here the erf one: the same work but for that
    "geglu": partial(_halves, name="liger_geglu", gate_first=False),
    "group_norm_silu": _group_norm_silu,
    "cross_entropy": _cross_entropy,
}
