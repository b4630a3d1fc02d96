"""Attention of few queries over many keys on the CPU, compiled: decoding over the KV cache."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from glm_kernels.cpu.call import (
    DTYPES,
    Form,
    Operation,
    call,
    compiled,
    empty_beside,
    form_of,
    formula,
)

_MOST_HEAD_DIM, _HEAD_DIM_STEP = 256, 16
"""kMostHeadDim and kLanes in native/."""


@compiled("attention")
def attention(
    q_BTNH: Tensor,
    k_BSKH: Tensor,
    v_BSKH: Tensor,
    start_BT: Tensor,
    stop_BT: Tensor,
    sink: int,
    scale: float,
) -> Tensor:
    """`glm_kernels.reference.attention`, without a backward: PyTorch's formula has one."""
    arguments = (q_BTNH, k_BSKH, v_BSKH, start_BT, stop_BT, sink, scale)
    form = _form(q_BTNH, k_BSKH, v_BSKH)
    if form in (Form.formula, Form.recorded):
        plain: Tensor = formula("attention")(*arguments)
        return plain
    out_BTNH: Tensor = _ATTENTION(form, *arguments)
    return out_BTNH


def _form(q_BTNH: Tensor, k_BSKH: Tensor, v_BSKH: Tensor) -> Form:
    """Return the form for tensors of which `glm_kernels.attention` has checked the shapes."""
    head_dim = q_BTNH.shape[3]
    if head_dim == 0 or head_dim > _MOST_HEAD_DIM or head_dim % _HEAD_DIM_STEP:
        return Form.formula
    return form_of(q_BTNH, k_BSKH, v_BSKH)


def _attention(
    q_BTNH: Tensor,
    k_BSKH: Tensor,
    v_BSKH: Tensor,
    start_BT: Tensor,
    stop_BT: Tensor,
    sink: int,
    scale: float,
) -> Tensor:
    batch, queries, heads, head_dim = q_BTNH.shape
    columns, kv_heads = k_BSKH.shape[1:3]
    q, k, v = (x if x.stride(3) == 1 else x.contiguous() for x in (q_BTNH, k_BSKH, v_BSKH))
    start, stop = start_BT.contiguous(), stop_BT.contiguous()
    out_BTNH = empty_beside(q, q.dtype)
    call(
        "attention",
        q.data_ptr(),
        k.data_ptr(),
        v.data_ptr(),
        out_BTNH.data_ptr(),
        start.data_ptr(),
        stop.data_ptr(),
        *q.stride()[:3],
        *k.stride()[:3],
        *v.stride()[:3],
        queries if start.shape[0] > 1 else 0,
        batch,
        queries,
        columns,
        heads,
        kv_heads,
        head_dim,
        scale,
        sink,
        DTYPES[q.dtype],
    )
    return out_BTNH


def _fake(q_BTNH: Tensor, *_: Any) -> Tensor:
    return empty_beside(q_BTNH, q_BTNH.dtype)


_ATTENTION = Operation("decode_attention", _attention, _fake)
