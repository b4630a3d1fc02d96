"""The released layout of quantized rows, transcribed to numpy with loops: shares nothing with ours.

Quantizing: THUDM/GLM-130B quantization/layers.py, in the dtype of the weight. Bytes:
cuda/quantization.cu of the same (`int4WeightCompression`, `int4WeightExtraction`,
`int8WeightExtraction`), byte by byte.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def quantize(weight: NDArray, bits: int) -> tuple[NDArray, NDArray]:
    """scale = half(max |w| / L), levels = round(w / scale), no clamp; 4 bits are then packed."""
    top = weight.dtype.type(2 ** (bits - 1) - 1)
    scale = (np.abs(weight).max(axis=-1) / top).astype(np.float16)
    levels = np.rint(weight / scale[:, None]).astype(np.int8)
    return (levels if bits == 8 else compress_int4(levels)), scale


def compress_int4(levels: NDArray) -> NDArray:
    """out[i] = (in[2 i] << 4) | (in[2 i + 1] & 0b00001111), as int8."""
    rows, columns = levels.shape
    out = np.zeros((rows, columns // 2), dtype=np.uint8)
    for row in range(rows):
        for i in range(columns // 2):
            even, odd = int(levels[row, 2 * i]), int(levels[row, 2 * i + 1])
            out[row, i] = ((even << 4) & 0xFF) | (odd & 0b00001111)
    return out.view(np.int8)


def extract(stored: NDArray, scale: NDArray, bits: int) -> NDArray:
    """half(level) * scale in fp16; with 4 bits high = byte >> 4, low = int8(byte << 4) >> 4."""
    rows, columns = stored.shape
    if bits == 8:
        return stored.astype(np.float16) * scale[:, None]
    out = np.zeros((rows, 2 * columns), dtype=np.float16)
    for row in range(rows):
        for i in range(columns):
            original = int(stored[row, i])
            low = int(np.array((original << 4) & 0xFF, dtype=np.uint8).view(np.int8)) >> 4
            out[row, 2 * i] = np.float16(original >> 4) * scale[row]
            out[row, 2 * i + 1] = np.float16(low) * scale[row]
    return out


def to_bf16(values: NDArray) -> NDArray:
    """fp32 rounded to bfloat16, to the nearest and ties to even, still as fp32."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return rounded.astype(np.uint32).view(np.float32)
