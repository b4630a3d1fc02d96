"""Matrices of 8 or 4 bits with one scale per row, bit for bit as released GLM weights hold them.

A matrix [out, in] becomes int8 levels [out, in * bits / 8] and fp16 scales [out], weight = level *
scale. With 4 bits a byte holds two columns: the even one in its high half, the odd one in its low
half, both two's complement.
Sources: THUDM/GLM-130B quantization/layers.py; zai-org/chatglm-6b quantization.py; the layout of a
byte: GLM-130B cuda/quantization.cu.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from einops import rearrange
from torch import Tensor

BITS = (8, 4)
SCALE_SUFFIX = "_scale"
"""After the name of a matrix of quantized rows: the name of their scales."""
_SMALLEST_SCALE = 2.0**-24
"""The smallest fp16 above zero, a subnormal."""
_LARGEST_SCALE = torch.finfo(torch.float16).max
_CHUNK_ELEMENTS = 1 << 20
"""Elements worked on at once: bounds what conversions take beside their input and result."""


@torch.no_grad()
def quantize_rows(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Rounds a matrix to levels, symmetric about zero, the largest weight of a row at the top.

    Computes in the weight's own dtype, as the original code does, and gives its bytes. It differs
    where the original gives NaN or wraps around: rows whose scale is below 2^-24 (a row of zeros,
    for one) get that scale, rows whose scale is beyond fp16 its largest value, and levels are
    clamped. An unclamped level can be out of range only where fp16 rounds the scale coarsely, that
    is in rows below 1e-3.

    Args:
        weight: floating point, [out, in], any device.
        bits: 8 or 4.

    Returns:
        Levels, int8 [out, in * bits / 8], and scales, fp16 [out].

    Raises:
        ValueError: bits is neither 8 nor 4, `in` is odd with 4 bits, or the weight is not finite.
    """
    rows, columns = weight.shape
    levels = weight.new_empty((rows, packed_columns(columns, bits)), dtype=torch.int8)
    scale = weight.new_empty(rows, dtype=torch.float16)
    for chunk in row_chunks(rows, columns, _CHUNK_ELEMENTS):
        scale[chunk] = _scale(weight[chunk], bits)
        rounded = (weight[chunk] / scale[chunk, None]).round_()
        whole = rounded.clamp_(-_top(bits) - 1, _top(bits)).to(torch.int8)
        levels[chunk] = whole if bits == 8 else pack_int4(whole)
    return levels, scale


@torch.no_grad()
def dequantize_rows(
    levels: Tensor, scale: Tensor, bits: int, dtype: torch.dtype = torch.float16
) -> Tensor:
    """Computes the matrix back.

    Args:
        levels: int8 [out, in * bits / 8].
        scale: [out], fp16 in released weights.
        bits: 8 or 4.
        dtype: of the result. float16 gives exactly the values that the original code computes with,
            level * scale rounded once; float32 gives the exact products; bfloat16 the products
            rounded once.

    Returns:
        The weight, [out, in].

    Raises:
        ValueError: bits is neither 8 nor 4, or the two shapes do not belong together.
    """
    _check_stored(levels, scale, bits)
    rows, columns = levels.shape[0], levels.shape[1] * 8 // bits
    weight = levels.new_empty((rows, columns), dtype=dtype)
    for chunk in row_chunks(rows, columns, _CHUNK_ELEMENTS):
        product = levels.new_empty((chunk.stop - chunk.start, columns), dtype=torch.float32)
        multiply_out(levels[chunk], scale[chunk], bits, product)
        if bits == 4:
            product = rearrange(product, "row (half byte) -> row (byte half)", half=2)
        weight[chunk] = product
    return weight


def multiply_out(levels: Tensor, scale: Tensor, bits: int, out: Tensor) -> None:
    """Writes level * scale into `out`, fp32 [out, in]; no rounding takes place.

    With 4 bits the columns come as bytes give them fastest: all even ones, then all odd ones.
    """
    if bits == 8:
        out.copy_(levels).mul_(scale[:, None].float())
        return
    half = levels.shape[1]
    # A nibble in the high half of a byte is 16 times its value, with its sign: no shift back.
    out[:, :half].copy_(levels & -16)
    out[:, half:].copy_(levels << 4)
    out.mul_(scale[:, None].float() / 16)


def pack_int4(levels: Tensor) -> Tensor:
    """Packs int8 [out, in] with values -8..7 into int8 [out, in / 2]."""
    packed_columns(levels.shape[1], bits=4)
    return (levels[:, 0::2] << 4) | (levels[:, 1::2] & 15)


def unpack_int4(packed: Tensor) -> Tensor:
    """Undoes `pack_int4`: int8 [out, in / 2] to int8 [out, in] with values -8..7."""
    return torch.stack((packed >> 4, (packed << 4) >> 4), dim=-1).flatten(1)


def packed_columns(columns: int, bits: int) -> int:
    """Returns how many bytes a row of so many columns takes.

    Raises:
        ValueError: bits is neither 8 nor 4, or the columns do not fill whole bytes.
    """
    if bits not in BITS:
        raise ValueError(f"bits is {bits}: a quantized matrix has 8 or 4 bits per weight")
    if columns * bits % 8:
        raise ValueError(
            f"a matrix with {columns} columns cannot have 4 bits per weight, two columns to a "
            "byte: the number of columns must be even; use bits=8"
        )
    return columns * bits // 8


def row_chunks(rows: int, columns: int, elements: int) -> Iterator[slice]:
    """Cuts the rows of a matrix into slices of at most `elements` elements, or of one row."""
    step = max(1, elements // max(1, columns))
    for begin in range(0, rows, step):
        yield slice(begin, min(begin + step, rows))


def _scale(weight: Tensor, bits: int) -> Tensor:
    largest = weight.abs().amax(dim=-1)
    if not bool(largest.isfinite().all()):
        row = int(largest.isfinite().logical_not().nonzero()[0])
        raise ValueError(
            f"a weight of shape {list(weight.shape)} has NaN or infinity, first in row {row}: it "
            "cannot be quantized; the checkpoint is damaged, copy or download it again"
        )
    return (largest / _top(bits)).half().clamp_(_SMALLEST_SCALE, _LARGEST_SCALE)


def _top(bits: int) -> int:
    """The largest level."""
    return (1 << (bits - 1)) - 1


def _check_stored(levels: Tensor, scale: Tensor, bits: int) -> None:
    packed_columns(8, bits)
    if levels.dtype != torch.int8 or levels.dim() != 2 or scale.shape != levels.shape[:1]:
        raise ValueError(
            f"levels are {levels.dtype} of shape {list(levels.shape)} and scales have shape "
            f"{list(scale.shape)}: quantized rows are int8 [out, in * bits / 8] and [out]"
        )
