"""All matrices of a file stored as 8-bit rows, for files that must be small.

`name` [out, in] becomes `name` int8 [out, in] and `name_scale` fp16 [out]; vectors become fp16.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from glm_core.quantize.rows import dequantize_rows, quantize_rows

SCALE_SUFFIX = "_scale"


def quantize_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Quantizes every floating-point matrix; vectors become fp16."""
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and tensor.is_floating_point():
            out[name], out[name + SCALE_SUFFIX] = quantize_rows(tensor, bits=8)
        else:
            out[name] = tensor.half() if tensor.is_floating_point() else tensor
    return out


def dequantize_tensors(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Undoes `quantize_tensors`; tensors that were not quantized pass through."""
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(SCALE_SUFFIX) and name.removesuffix(SCALE_SUFFIX) in tensors:
            continue
        scale = tensors.get(name + SCALE_SUFFIX)
        out[name] = tensor if scale is None else dequantize_rows(tensor, scale, 8, dtype)
    return out
