"""Plain-PyTorch oracle of every op: readable formulas, no fusion, no custom backward.

Dimension letters: B batch, T tokens, N heads, H head dim, R rotary pairs, D hidden size,
F ffn hidden size, M rows, V vocabulary, S key tokens.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from glm_kernels.registry import REFERENCE_PRIORITY as PRIORITY
from glm_kernels.registry import register
from glm_kernels.weight_only import PackedWeight, dequantize_packed


def _compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """At least fp32: the precision in which statistics are taken."""
    return torch.promote_types(dtype, torch.float32)


@register("rms_norm", "reference", priority=PRIORITY)
def rms_norm(x_D: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """``x / sqrt(mean(x^2) + eps) * weight``, the mean in fp32. Source: arXiv 1910.07467, eq. 4."""
    x = x_D.to(_compute_dtype(x_D.dtype))
    normed = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return normed.to(x_D.dtype) * weight_D


@register("layer_norm", "reference", priority=PRIORITY)
def layer_norm(x_D: Tensor, weight_D: Tensor, bias_D: Tensor | None, eps: float) -> Tensor:
    """``(x - mean) / sqrt(var + eps) * weight + bias``, in fp32. Source: arXiv 1607.06450."""
    x = x_D.to(_compute_dtype(x_D.dtype))
    centred = x - x.mean(-1, keepdim=True)
    normed = centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps)
    out = normed * weight_D
    return (out if bias_D is None else out + bias_D).to(x_D.dtype)


@register("add_rms_norm", "reference", priority=PRIORITY)
def add_rms_norm(
    x_D: Tensor, residual_D: Tensor, weight_D: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """`rms_norm` of ``residual + x``, and that sum."""
    stream_D = residual_D + x_D
    return rms_norm(stream_D, weight_D, eps), stream_D


@register("add_layer_norm", "reference", priority=PRIORITY)
def add_layer_norm(
    x_D: Tensor, residual_D: Tensor, weight_D: Tensor, bias_D: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """`layer_norm` of ``residual + x``, and that sum."""
    stream_D = residual_D + x_D
    return layer_norm(stream_D, weight_D, bias_D, eps), stream_D


def rope_tables(
    position_ids_BT: Tensor, rotary_dim: int, theta: float, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """``angle[t, i] = t * theta^(-2i / rotary_dim)``; see `glm_kernels.rope.rope_tables`."""
    exponent_R = torch.arange(0, rotary_dim, 2, device=position_ids_BT.device).double()
    angle_BTR = position_ids_BT[..., None].double() * theta ** (-exponent_R / rotary_dim)
    return angle_BTR.cos().to(dtype), angle_BTR.sin().to(dtype)


@register("apply_rope", "reference", priority=PRIORITY)
def apply_rope(x_BTNH: Tensor, cos_BTR: Tensor, sin_BTR: Tensor, interleaved: bool) -> Tensor:
    """``(a, b) -> (a cos - b sin, b cos + a sin)`` for each rotary pair (a, b).

    Pair i is dims (i, i + R) in the halves form, dims (2i, 2i + 1) in the interleaved form.
    Source: arXiv 2104.09864, eq. 34.
    """
    rotary_dim = 2 * cos_BTR.shape[-1]
    rotary, rest = x_BTNH[..., :rotary_dim], x_BTNH[..., rotary_dim:]
    rotary = rotary.to(torch.promote_types(x_BTNH.dtype, cos_BTR.dtype))
    cos, sin = cos_BTR.unsqueeze(-2), sin_BTR.unsqueeze(-2)
    if interleaved:
        a, b = rotary[..., 0::2], rotary[..., 1::2]
        rotated = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
    else:
        a, b = rotary.chunk(2, dim=-1)
        rotated = torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
    return torch.cat((rotated.to(x_BTNH.dtype), rest), dim=-1)


@register("apply_rope_2d", "reference", priority=PRIORITY)
def apply_rope_2d(
    x_BTNH: Tensor, cos_BTR: Tensor, sin_BTR: Tensor, block_cos_BTR: Tensor, block_sin_BTR: Tensor
) -> Tensor:
    """First half of the head by position, second half by block position, halves form in each."""
    first, second = x_BTNH.chunk(2, dim=-1)
    return torch.cat(
        (
            apply_rope(first, cos_BTR, sin_BTR, False),
            apply_rope(second, block_cos_BTR, block_sin_BTR, False),
        ),
        dim=-1,
    )


@register("gelu", "reference", priority=PRIORITY)
def gelu(x: Tensor, approximate: str) -> Tensor:
    """``x Phi(x)``, or with tanh ``x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))``.

    The quick form is ``x sigmoid(1.702 x)``. Source: arXiv 1606.08415, section 2.
    """
    y = x.to(_compute_dtype(x.dtype))
    if approximate == "tanh":
        out = 0.5 * y * (1 + torch.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
    elif approximate == "quick":
        out = y * torch.sigmoid(1.702 * y)
    else:
        out = 0.5 * y * (1 + torch.erf(y / math.sqrt(2)))
    return out.to(x.dtype)


@register("geglu", "reference", priority=PRIORITY)
def geglu(x_2F: Tensor, activated: str, approximate: str) -> Tensor:
    """``gelu(one half) * other half``. Source: arXiv 2002.05202, eq. 6."""
    first, second = x_2F.chunk(2, dim=-1)
    if activated == "second":
        first, second = second, first
    return gelu(first, approximate) * second


@register("swiglu", "reference", priority=PRIORITY)
def swiglu(x_2F: Tensor) -> Tensor:
    """``a sigmoid(a) * b`` for the halves (a, b). Source: arXiv 2002.05202, eq. 6."""
    a, b = x_2F.chunk(2, dim=-1)
    a32 = a.to(_compute_dtype(a.dtype))
    return (a32 * torch.sigmoid(a32)).to(a.dtype) * b


@register("group_norm_silu", "reference", priority=PRIORITY)
def group_norm_silu(x: Tensor, num_groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """``z sigmoid(z)`` with ``z = (x - mean) / sqrt(var + eps) * weight + bias``, in fp32.

    Mean and variance are over the channels of a group and all positions. Sources: arXiv
    1803.08494, eq. 1-3 and 7; 1702.03118, eq. 4.
    """
    per_group = math.prod(x.shape[1:]) // num_groups
    grouped = x.to(_compute_dtype(x.dtype)).reshape(x.shape[0], num_groups, per_group)
    centred = grouped - grouped.mean(-1, keepdim=True)
    normed = centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps)
    weight, bias = (part.view(*part.shape, *(1 for _ in x.shape[2:])) for part in (weight, bias))
    z = normed.view(x.shape) * weight + bias
    out: Tensor = (z * torch.sigmoid(z)).to(x.dtype)
    return out


def _of_sample(values_BD: Tensor, x_BTD: Tensor) -> Tensor:
    return values_BD.view(-1, *(1 for _ in x_BTD.shape[1:-1]), values_BD.shape[-1])


@register("modulate", "reference", priority=PRIORITY)
def modulate(x_BTD: Tensor, scale_BD: Tensor, shift_BD: Tensor, eps: float) -> Tensor:
    """``layer_norm(x) * (1 + scale) + shift`` in fp32. Source: arXiv 2212.09748, section 3.2."""
    x = x_BTD.to(_compute_dtype(x_BTD.dtype))
    centred = x - x.mean(-1, keepdim=True)
    normed = centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps)
    return (normed * (1 + _of_sample(scale_BD, x)) + _of_sample(shift_BD, x)).to(x_BTD.dtype)


@register("gate_modulate", "reference", priority=PRIORITY)
def gate_modulate(
    x_BTD: Tensor,
    residual_BTD: Tensor,
    gate_BD: Tensor,
    scale_BD: Tensor,
    shift_BD: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """`modulate` of ``residual + gate * x``, and that sum."""
    stream_BTD = residual_BTD + (_of_sample(gate_BD, x_BTD) * x_BTD).to(x_BTD.dtype)
    return modulate(stream_BTD, scale_BD, shift_BD, eps), stream_BTD


@register("scale_mask_softmax", "reference", priority=PRIORITY)
def scale_mask_softmax(scores_BNTS: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """``softmax(scores * scale)`` in fp32 over the visible cells; no visible cell gives zeros."""
    scores = scores_BNTS.to(_compute_dtype(scores_BNTS.dtype)) * scale
    if mask is None:
        return torch.softmax(scores, dim=-1).to(scores_BNTS.dtype)
    if scores.shape[-1] == 0:
        return scores.to(scores_BNTS.dtype)
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = torch.exp(scores - scores.amax(-1, keepdim=True)) * mask
    total = weights.sum(-1, keepdim=True)
    return (weights / total.where(total > 0, 1)).to(scores_BNTS.dtype)


@register("attention", "reference", priority=PRIORITY)
def attention(
    q_BTNH: Tensor,
    k_BSKH: Tensor,
    v_BSKH: Tensor,
    start_BT: Tensor,
    stop_BT: Tensor,
    sink: int,
    scale: float,
) -> Tensor:
    """``softmax(scale q k^T) v`` over keys start <= s < stop and s < sink, with all scores at once.

    Source: arXiv 1706.03762, eq. 1; grouped heads: arXiv 2305.13245.
    """
    group = q_BTNH.shape[2] // k_BSKH.shape[2]
    k_BSNH = k_BSKH.repeat_interleave(group, dim=2)
    v_BSNH = v_BSKH.repeat_interleave(group, dim=2)
    s = torch.arange(k_BSKH.shape[1], device=q_BTNH.device)
    mask_BTS = (s >= start_BT[..., None]) & (s < stop_BT[..., None]) | (s < sink)
    scores_BNTS = torch.einsum("btnh,bsnh->bnts", q_BTNH, k_BSNH)
    weights_BNTS = scale_mask_softmax(scores_BNTS, mask_BTS[:, None], scale)
    return torch.einsum("bnts,bsnh->btnh", weights_BNTS, v_BSNH)


@register("fused_linear_cross_entropy", "reference", priority=PRIORITY)
def fused_linear_cross_entropy(
    hidden_MD: Tensor,
    weight_VD: Tensor,
    labels_M: Tensor,
    bias_V: Tensor | None,
    ignore_index: int,
    chunk_size: int | None,
) -> Tensor:
    """``sum over kept rows of logsumexp(logits) - logits[label]``, with all logits at once."""
    del chunk_size  # the oracle works in one piece
    kept_M = labels_M != ignore_index
    logits_MV = torch.nn.functional.linear(hidden_MD[kept_M], weight_VD, bias_V)
    logits_MV = logits_MV.to(_compute_dtype(logits_MV.dtype))
    picked_M = logits_MV.gather(-1, labels_M[kept_M][:, None])[:, 0]
    return (torch.logsumexp(logits_MV, dim=-1) - picked_M).sum()


@register("linear_weight_only", "reference", priority=PRIORITY)
def linear_weight_only(
    x: Tensor, packed: PackedWeight, bias_N: Tensor | None, activation_bits: int
) -> Tensor:
    """``x W^T + b`` with ``W = scale * (level - zero)`` in at least fp32, nothing rounded."""
    del activation_bits
    dtype = _compute_dtype(x.dtype)
    weight_NK = dequantize_packed(packed).to(dtype)
    bias = None if bias_N is None else bias_N.to(dtype)
    return torch.nn.functional.linear(x.to(dtype), weight_NK, bias).to(x.dtype)
