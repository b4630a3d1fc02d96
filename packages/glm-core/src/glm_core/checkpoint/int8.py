"""Weights stored as int8 with one scale per row, for files that must be small.

A matrix `name` [out, in] becomes `name` int8 [out, in] and `name_scale` fp16 [out]:
weight = int8 * scale, with scale = max |row| / 127. Vectors stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

SCALE_SUFFIX = "_scale"
_LEVELS = 127
_SMALLEST_SCALE = 2.0**-24
"""The smallest fp16 above zero, a subnormal; also the step between subnormals."""
_LARGEST_SCALE = torch.finfo(torch.float16).max


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a matrix to int8 with a scale per row.

    Args:
        weight: floating point, [out, in].

    Returns:
        int8 [out, in] and fp16 [out]. A row of zeros gets zeros and the smallest scale.
    """
    largest = weight.float().abs().amax(dim=1)
    exact = (largest / _LEVELS).clamp(_SMALLEST_SCALE, _LARGEST_SCALE)
    # rounded up to fp16, never down, so that no weight lies beyond level 127
    next_up = (exact * (1 + 2**-10) + _SMALLEST_SCALE).clamp(max=_LARGEST_SCALE).half()
    scale = torch.where(exact.half() < exact, next_up, exact.half())
    # divided by the scale as stored: its fp16 rounding is then no further error
    levels = (weight.float() / scale.float()[:, None]).round().clamp(-_LEVELS, _LEVELS)
    return levels.to(torch.int8), scale


def dequantize_rows(levels: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The matrix [out, in] back, in `dtype`."""
    return (levels.float() * scale.float()[:, None]).to(dtype)


def quantize_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Quantize every floating-point matrix; vectors become fp16."""
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and tensor.is_floating_point():
            out[name], out[name + SCALE_SUFFIX] = quantize_rows(tensor)
        else:
            out[name] = tensor.half() if tensor.is_floating_point() else tensor
    return out


def dequantize_tensors(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Undo `quantize_tensors`; tensors that were not quantized pass through."""
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(SCALE_SUFFIX) and name.removesuffix(SCALE_SUFFIX) in tensors:
            continue
        scale = tensors.get(name + SCALE_SUFFIX)
        out[name] = tensor if scale is None else dequantize_rows(tensor, scale, dtype)
    return out
