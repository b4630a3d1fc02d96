"""Attention through xformers' memory_efficient_attention.

Its kernels know two shapes of mask: all keys of a block, and causal up to the block's last key.
Every kind of mask here is made of these. Queries that follow each other and see the same keys are a
block of the first kind; those of which each sees one key more than the one before, of the second. A
prefix-LM mask is two calls, one for the prefixes of all rows and one for what follows them; nothing
of the size T x S is ever made. Where a block's keys do not lie in order they are gathered.

Letters: B batch, T query columns, S key columns, N query heads, K key/value heads, H head size;
M columns of all rows, one behind the other; R runs (blocks).
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from glm_core.attention.backend import MaskRequest, Scaling
from glm_core.attention.spec import check_rows
from glm_core.attention.triton import no_interval, visible_keys
from glm_kernels import VisibleKeys

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
ALIGNMENT = 8
"""The kernels want head sizes that are a multiple of this; others get zeros behind."""
_BREAK = -1


@dataclass(frozen=True)
class Runs:
    """Blocks of one kind: one call of the operator."""

    causal: bool
    """Whether each query sees one key less than the one behind it; the last one sees all."""
    q_sizes: list[int]
    k_sizes: list[int]
    """Queries and keys of each block, [R]."""
    q_columns: Tensor
    k_columns: Tensor
    """Where they lie among the columns of all rows: int64 [M], on the CPU."""


@dataclass(frozen=True)
class Call:
    """One call of the operator, as it is made in each layer."""

    bias: Any
    """xformers' mask; None where every query sees every key."""
    q_columns: Tensor | None
    k_columns: Tensor | None
    """What is gathered from the columns of all rows, int64 [M]; None for all of them in order."""
    by_row: bool
    """Whether rows stay rows, because each is one block that sees all its keys."""


@dataclass(frozen=True)
class XformersMask:
    """The calls, and where their results belong."""

    calls: list[Call]
    order: Tensor | None
    """For each column of all rows its place in the calls' results, int64 [M]; None: in order."""


class XformersAttention:
    """Fused attention of a package of its own, for GPUs: an extra, taken by name or if measured."""

    name = "xformers"

    def why_not(self, request: MaskRequest, dropout: float) -> str | None:
        if request.device.type != "cuda":
            return f"xformers has kernels for GPUs, not for {request.device.type}"
        if request.dtype not in DTYPES:
            return f"xformers takes fp32, bf16 and fp16, not {request.dtype}"
        return no_interval(request.spec) or unavailable() or _failure(request.device, request.dtype)

    def prepare(self, request: MaskRequest) -> XformersMask:
        check_rows(request.spec, request.batch)
        visible = visible_keys(replace(request, device=torch.device("cpu")))
        groups = runs(visible, request.batch, request.kv_len)
        calls = [_call(group, request) for group in groups]
        columns_M = torch.cat([group.q_columns for group in groups])
        return XformersMask(calls, _unless_in_order(columns_M.argsort(), request.device))

    def attend(
        self,
        mask: XformersMask,
        q_BTNH: Tensor,
        k_BSKH: Tensor,
        v_BSKH: Tensor,
        scaling: Scaling,
        dropout: float,
    ) -> Tensor:
        extra = -q_BTNH.shape[-1] % ALIGNMENT
        q, k, v = (F.pad(x, (0, extra)) if extra else x for x in (q_BTNH, k_BSKH, v_BSKH))
        parts = [_run(call, q, k, v, scaling.scale, dropout) for call in mask.calls]
        out_MNH = torch.cat(parts) if len(parts) > 1 else parts[0]
        if mask.order is not None:
            out_MNH = out_MNH.index_select(0, mask.order)
        return out_MNH.view(q.shape)[..., : q_BTNH.shape[-1]]


def runs(visible: VisibleKeys, batch: int, kv_len: int) -> list[Runs]:
    """Returns the blocks of a mask, of either kind; together they hold every query once.

    Args:
        visible: bounds on the CPU.
        batch: rows, also where the bounds are those of all rows.
        kv_len: key columns of a row.
    """
    sink = visible.sink
    start_BT = visible.start_BT.long().clamp(min=sink).expand(batch, -1)
    stop_BT = torch.maximum(visible.stop_BT.long().expand(batch, -1), start_BT)
    nothing_BT = stop_BT == start_BT  # but the sink
    start_BT = start_BT.masked_fill(nothing_BT, sink)
    stop_BT = stop_BT.masked_fill(nothing_BT, sink)
    link_M = _links(start_BT, stop_BT).flatten()
    before_M = link_M.roll(1)
    is_first_M = (link_M == _BREAK) | ((link_M != before_M) & (before_M != _BREAK))
    first_R = is_first_M.nonzero().flatten()
    size_R = torch.cat((first_R[1:], torch.tensor([len(link_M)]))) - first_R
    last_R = first_R + size_R - 1
    causal_R = (size_R > 1) & (link_M[last_R] == 1)
    row_R = first_R // visible.start_BT.shape[1]
    begin_R, end_R = start_BT.flatten()[first_R], stop_BT.flatten()[last_R]
    groups = []
    for causal in (False, True):
        chosen = (causal_R == causal).nonzero().flatten()
        if len(chosen):
            begin, size = begin_R[chosen], sink + end_R[chosen] - begin_R[chosen]
            inside, run = _counted(size)
            column = torch.where(inside < sink, inside, inside - sink + begin[run])
            k_columns = row_R[chosen][run] * kv_len + column
            inside, run = _counted(size_R[chosen])
            q_columns = first_R[chosen][run] + inside
            sizes = size_R[chosen].tolist(), size.tolist()
            groups.append(Runs(causal, *sizes, q_columns, k_columns))
    return groups


def _links(start_BT: Tensor, stop_BT: Tensor) -> Tensor:
    """Returns by how many keys a query sees more than the one before: 0, 1, or else a break."""
    growth_BT = stop_BT.diff(dim=1)
    fits_BT = (start_BT.diff(dim=1) == 0) & ((growth_BT == 0) | (growth_BT == 1))
    return F.pad(growth_BT.where(fits_BT, _BREAK), (1, 0), value=_BREAK)


def _counted(size_R: Tensor) -> tuple[Tensor, Tensor]:
    """Returns 0, 1, .. size - 1 of each run, one behind the other, and the run of each."""
    run_M = torch.repeat_interleave(size_R)
    return torch.arange(len(run_M)) - (size_R.cumsum(0) - size_R)[run_M], run_M


def _call(group: Runs, request: MaskRequest) -> Call:
    from xformers.ops.fmha import attn_bias

    num_keys = request.batch * request.kv_len
    k_columns = group.k_columns
    all_keys = len(k_columns) == num_keys and bool((k_columns == torch.arange(num_keys)).all())
    if all_keys and group.q_sizes == [request.q_len] * request.batch:
        bias = attn_bias.LowerTriangularFromBottomRightMask() if group.causal else None
        return Call(bias, None, None, by_row=True)
    bias = attn_bias.BlockDiagonalMask.from_seqlens(
        group.q_sizes, group.k_sizes, device=request.device
    )
    if group.causal:
        bias = bias.make_causal_from_bottomright()
    q_columns = _unless_in_order(group.q_columns, request.device, request.batch * request.q_len)
    return Call(bias, q_columns, None if all_keys else k_columns.to(request.device), by_row=False)


def _unless_in_order(
    columns_M: Tensor, device: torch.device, total: int | None = None
) -> Tensor | None:
    """Returns None for 0, 1, .. total - 1, otherwise the columns on the device."""
    in_order = torch.equal(columns_M, torch.arange(len(columns_M) if total is None else total))
    return None if in_order else columns_M.to(device)


def _run(call: Call, q: Tensor, k: Tensor, v: Tensor, scale: float, dropout: float) -> Tensor:
    """Returns the results of a call's queries, [M, N, H]."""
    if not call.by_row:
        q = _gathered(q, call.q_columns)
        k, v = _gathered(k, call.k_columns), _gathered(v, call.k_columns)
    heads, kv_heads = q.shape[2], k.shape[2]
    if heads != kv_heads:
        q = rearrange(q, "b m (k g) h -> b m k g h", k=kv_heads)
        k, v = (x[:, :, :, None].expand(-1, -1, -1, heads // kv_heads, -1) for x in (k, v))
        if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
            q, k, v = (x.flatten(2, 3) for x in (q, k, v))  # no backward knows groups of heads
    out: Tensor = _operator()(q, k, v, attn_bias=call.bias, p=dropout, scale=scale)
    return out.reshape(-1, heads, q.shape[-1])


def _gathered(x: Tensor, columns_M: Tensor | None) -> Tensor:
    """Returns columns of all rows as one row, [1, M, heads, H]."""
    flat = x.flatten(0, 1)
    return (flat if columns_M is None else flat.index_select(0, columns_M))[None]


def _operator() -> Any:
    from xformers.ops import memory_efficient_attention

    return memory_efficient_attention


@cache
def unavailable() -> str | None:
    """Returns why xformers cannot be used in this process, or None when it can."""
    if importlib.util.find_spec("xformers") is None:
        return 'xformers is not installed: pip install -e ".[xformers]"'
    try:
        import xformers
        import xformers.ops  # noqa: F401  fails where PyTorch's own kernels are not what it knows
    except (ImportError, OSError, RuntimeError) as error:
        return f"xformers cannot be imported: {_first_line(error)}"
    if not xformers._has_cpp_library:
        return (
            f"the kernels of xformers {xformers.__version__} do not load in torch "
            f"{torch.__version__}: install the xformers that was built for it"
        )
    return None


@cache
def _failure(device: torch.device, dtype: torch.dtype) -> str | None:
    """Returns what a small call, forward and backward, fails with on this GPU, or None."""
    from xformers.ops.fmha.attn_bias import BlockDiagonalMask

    with torch.enable_grad():
        x = torch.ones(1, 8, 1, 64, device=device, dtype=dtype, requires_grad=True)
        bias = BlockDiagonalMask.from_seqlens([3, 5], device=device).make_causal_from_bottomright()
        try:
            torch.autograd.grad(_operator()(x, x, x, attn_bias=bias).sum(), x)
        except (NotImplementedError, RuntimeError) as error:
            return f"xformers has no kernel for {dtype} on this GPU: {_first_line(error)}"
    return None


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
