"""The formulas of common model code: what the fused ops are measured against.

They are written as transformers 5 writes them in its Llama, GLM and GPT-2 code, and as diffusers
and the DiT code do for pictures.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-5
GROUPS = 32
"""Of group norm."""


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    x32 = x.to(torch.float32)
    variance = x32.pow(2).mean(-1, keepdim=True)
    return weight * (x32 * torch.rsqrt(variance + EPS)).to(x.dtype)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    stream = residual + x
    return rms_norm(stream, weight), stream


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x, (x.shape[-1],), weight, bias, EPS)


def add_layer_norm(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    stream = residual + x
    return layer_norm(stream, weight, bias), stream


def rotate_half(x: Tensor) -> Tensor:
    first, second = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return torch.cat((-second, first), dim=-1)


def rotate_pairs(x: Tensor) -> Tensor:
    return torch.stack((-x[..., 1::2], x[..., 0::2]), dim=-1).flatten(-2)


def rope_of(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    cos, sin = (torch.cat((t, t), dim=-1).to(x.dtype).unsqueeze(2) for t in (cos, sin))
    return (x * cos) + (rotate_half(x) * sin)


def rope_interleaved_of(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    cos, sin = (t.repeat_interleave(2, dim=-1).to(x.dtype).unsqueeze(2) for t in (cos, sin))
    rotary, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    return torch.cat((rotary * cos + rotate_pairs(rotary) * sin, rest), dim=-1)


def rope_2d_of(x: Tensor, cos: Tensor, sin: Tensor, block_cos: Tensor, block_sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((rope_of(first, cos, sin), rope_of(second, block_cos, block_sin)), dim=-1)


def rope(q: Tensor, k: Tensor, *tables: Tensor) -> tuple[Tensor, Tensor]:
    return rope_of(q, *tables), rope_of(k, *tables)


def rope_interleaved(q: Tensor, k: Tensor, *tables: Tensor) -> tuple[Tensor, Tensor]:
    return rope_interleaved_of(q, *tables), rope_interleaved_of(k, *tables)


def rope_2d(q: Tensor, k: Tensor, *tables: Tensor) -> tuple[Tensor, Tensor]:
    return rope_2d_of(q, *tables), rope_2d_of(k, *tables)


def swiglu(x: Tensor) -> Tensor:
    gate, value = x.chunk(2, dim=-1)
    return F.silu(gate) * value


def geglu(x: Tensor) -> Tensor:
    value, gate = x.chunk(2, dim=-1)
    return value * F.gelu(gate)


def gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def gelu_erf(x: Tensor) -> Tensor:
    return F.gelu(x)


def scale_mask_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    additive = torch.zeros(mask.shape, dtype=scores.dtype, device=mask.device)
    additive = additive.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return F.softmax(scores * 0.125 + additive, dim=-1, dtype=torch.float32).to(scores.dtype)


def group_norm_silu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.silu(F.group_norm(x, GROUPS, weight, bias, EPS))


def modulate(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    normed = F.layer_norm(x, (x.shape[-1],), eps=EPS)
    return normed * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


def gate_modulate(
    x: Tensor, residual: Tensor, gate: Tensor, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor]:
    stream = residual + gate.unsqueeze(1) * x
    return modulate(stream, scale, shift), stream


def cross_entropy(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden, weight).float(), labels, reduction="sum")
