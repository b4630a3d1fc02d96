"""Kernels for GPUs: NVIDIA from compute capability 8.0 on, and AMD where Triton runs.

Importing this package registers them as backend ``triton``, which the automatic choice takes for
tensors on a GPU; triton itself is imported at the first call. Under ``TRITON_INTERPRET=1`` they
run on the CPU where they are chosen by name, slowly, for tests.

torch.compile gets the plain formula of backend ``torch`` for what it fuses well by itself, and the
kernels for what it does not: attention and weight-only products, which are custom ops.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from glm_kernels.registry import TRITON_PRIORITY, Implementation, dispatch, register
from glm_kernels.triton.launch import INTERPRETED, device_of, unavailable

_MODULES = {
    "rms_norm": "norm",
    "layer_norm": "norm",
    "add_rms_norm": "norm",
    "add_layer_norm": "norm",
    "apply_rope": "rope",
    "apply_rope_2d": "rope",
    "attention": "attention",
    "fused_linear_cross_entropy": "cross_entropy",
    "gelu": "activation",
    "gate_modulate": "modulate",
    "geglu": "activation",
    "group_norm_silu": "group_norm",
    "swiglu": "activation",
    "linear_weight_only": "weight_only",
    "modulate": "modulate",
    "scale_mask_softmax": "softmax",
}
"""The file that holds an op, under the name of the op."""

_TRACEABLE = frozenset({"attention", "linear_weight_only"})


_loaded: dict[str, Implementation] = {}


def _load(op: str) -> None:
    """Import the file of an op, and Triton with it.

    All ops that torch.compile can trace come together: while it traces it sees `_loaded` as it was
    when it first looked there.
    """
    for name in () if op in _loaded else _TRACEABLE | {op}:
        module = importlib.import_module(f"glm_kernels.triton.{_MODULES[name]}")
        _loaded[name] = getattr(module, name)


# As in the registry: torch.compile runs it while tracing, and does not look inside.
_load._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _register(op: str) -> None:
    @register(
        op,
        "triton",
        devices={"cuda"},
        on_request={"cpu"} if INTERPRETED else (),
        priority=TRITON_PRIORITY,
        unavailable=unavailable,
        traceable=op in _TRACEABLE,
    )
    def call(first: Tensor, *arguments: Any) -> Any:
        if first.dtype == torch.float64:  # the kernels compute in fp32
            return dispatch(op, first.device.type, "torch")(first, *arguments)
        _load(op)
        if torch.compiler.is_compiling():  # custom ops find the device by themselves
            return _loaded[op](first, *arguments)
        with device_of(first):
            return _loaded[op](first, *arguments)


for _op in _MODULES:
    _register(_op)
