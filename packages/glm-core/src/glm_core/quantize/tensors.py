"""All matrices of a file stored as 8-bit rows, for files that must be small.

`name` [out, in] becomes `name` int8 [out, in] and `name_scale` fp16 [out]; vectors become fp16.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from glm_core.quantize.layout import SCALE_SUFFIX
from glm_core.quantize.rows import quantize_rows


def quantize_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Quantizes every floating-point matrix; vectors become fp16."""
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and tensor.is_floating_point():
            out[name], out[name + SCALE_SUFFIX] = quantize_rows(tensor, bits=8)
        else:
            out[name] = tensor.half() if tensor.is_floating_point() else tensor
    return out
