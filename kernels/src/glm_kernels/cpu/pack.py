"""Bringing quantized weights into the kernels' order, by the compiled part."""

from __future__ import annotations

import torch
from torch import Tensor

from glm_kernels.cpu import library

_VECTOR_BYTES = 64


def pack_levels(levels: Tensor, bits: int, out: Tensor) -> bool:
    """Fills the levels of a `PackedWeight`, where there is a compiled part.

    Args:
        levels: int8 [N, K * bits / 8] on the CPU.
        bits: 8 or 4.
        out: uint8 [blocks, bytes of a block].

    Returns:
        Whether it was done.
    """
    if library.unavailable() is not None:
        return False
    levels = levels.contiguous()
    library.library().glm_pack_levels(
        levels.data_ptr(),
        out.data_ptr(),
        *levels.shape,
        out.shape[1] // _VECTOR_BYTES,
        bits,
        torch.get_num_threads(),
        library.isa(),
    )
    return True
