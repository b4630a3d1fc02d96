"""Matrices of 8 or 4 bits with one scale per row, bit for bit as released GLM weights hold them.

A matrix [out, in] becomes int8 levels [out, in * bits / 8] and fp16 scales [out]; see layout.py.
Sources: THUDM/GLM-130B quantization/layers.py; zai-org/chatglm-6b quantization.py; the layout of a
byte: GLM-130B cuda/quantization.cu.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from einops import rearrange
from torch import Tensor

from glm_core.quantize.layout import packed_columns

SMALLEST_SCALE = 2.0**-24
"""The smallest fp16 above zero, a subnormal."""
LARGEST_SCALE = torch.finfo(torch.float16).max
CHUNK_ELEMENTS = 1 << 20
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
        ValueError: bits is neither 8 nor 4, `in` is odd with 4 bits, or the weight is empty or not
            finite.
    """
    check_not_empty(weight)
    rows, columns = weight.shape
    levels = weight.new_empty((rows, packed_columns(columns, bits)), dtype=torch.int8)
    scale = weight.new_empty(rows, dtype=torch.float16)
    for chunk in row_chunks(rows, columns, CHUNK_ELEMENTS):
        scale[chunk] = _scale(weight, chunk, bits)
        rounded = (weight[chunk] / scale[chunk, None]).round_()
        whole = rounded.clamp_(-top_level(bits) - 1, top_level(bits)).to(torch.int8)
        levels[chunk] = whole if bits == 8 else pack_int4(whole)
    return levels, scale


@torch.no_grad()
def dequantize_rows(
    levels: Tensor,
    scale: Tensor,
    bits: int,
    dtype: torch.dtype = torch.float16,
    zero: Tensor | None = None,
) -> Tensor:
    """Computes the matrix back, from whole rows or from groups of their columns.

    Args:
        levels: int8 [out, in * bits / 8].
        scale: [out], fp16 in released weights, or [out, groups].
        bits: 8 or 4.
        dtype: of the result. float16 gives exactly the values that the original code computes with,
            level * scale rounded once; float32 gives the exact products; bfloat16 the products
            rounded once.
        zero: int8, shape of the scale; None where level 0 stands for 0.

    Returns:
        The weight, [out, in].

    Raises:
        ValueError: bits is neither 8 nor 4, or the shapes do not belong together.
    """
    _check_stored(levels, scale, bits, zero)
    rows, columns = levels.shape[0], levels.shape[1] * 8 // bits
    weight = levels.new_empty((rows, columns), dtype=dtype)
    for chunk in row_chunks(rows, columns, CHUNK_ELEMENTS):
        product = levels.new_empty((chunk.stop - chunk.start, columns), dtype=torch.float32)
        part = None if zero is None else zero[chunk]
        multiply_out(levels[chunk], scale[chunk], bits, product, part)
        if bits == 4:
            product = rearrange(product, "row (half byte) -> row (byte half)", half=2)
        weight[chunk] = product
    return weight


def multiply_out(
    levels: Tensor, scale: Tensor, bits: int, out: Tensor, zero: Tensor | None = None
) -> None:
    """Writes scale * (level - zero) into `out`, fp32 [out, in]; no rounding takes place.

    With 4 bits the columns come as bytes give them fastest: all even ones, then all odd ones. A
    group of columns gives half of its columns to each.
    """
    groups = scale.numel() // max(1, scale.shape[0])
    if bits == 8:
        halves, unit = [(levels, out)], 1
    else:
        # A nibble in the high half of a byte is 16 times its value, with its sign: no shift back.
        middle, unit = levels.shape[1], 16
        halves = [(levels & -16, out[:, :middle]), (levels << 4, out[:, middle:])]
    scale_OG1 = scale.float().div_(unit) if scale.dtype != torch.float32 else scale / unit
    scale_OG1 = scale_OG1.reshape(-1, groups, 1)
    for part, target in halves:
        out_OGC = target.view(len(target), groups, -1)
        out_OGC.copy_(part.reshape(out_OGC.shape))
        if zero is not None:
            out_OGC.sub_(zero.reshape(-1, groups, 1).float().mul_(unit))
        out_OGC.mul_(scale_OG1)


def pack_int4(levels: Tensor) -> Tensor:
    """Packs int8 [out, in] with values -8..7 into int8 [out, in / 2]."""
    packed_columns(levels.shape[1], bits=4)
    return (levels[:, 0::2] << 4) | (levels[:, 1::2] & 15)


def unpack_int4(packed: Tensor) -> Tensor:
    """Undoes `pack_int4`: int8 [out, in / 2] to int8 [out, in] with values -8..7."""
    return torch.stack((packed >> 4, (packed << 4) >> 4), dim=-1).flatten(1)


def row_chunks(rows: int, columns: int, elements: int) -> Iterator[slice]:
    """Cuts the rows of a matrix into slices of at most `elements` elements, or of one row."""
    step = max(1, elements // max(1, columns))
    for begin in range(0, rows, step):
        yield slice(begin, min(begin + step, rows))


def top_level(bits: int) -> int:
    """The largest level."""
    return (1 << (bits - 1)) - 1


def check_not_empty(weight: Tensor) -> None:
    """Refuses what is no matrix of weights.

    Raises:
        ValueError: it has no element, or is no matrix of floating-point numbers.
    """
    if weight.dim() != 2 or not weight.is_floating_point():
        raise ValueError(
            f"a weight is {weight.dtype} of shape {list(weight.shape)}: only floating-point "
            "matrices can be quantized"
        )
    if weight.numel() == 0:
        raise ValueError(
            f"a weight of shape {list(weight.shape)} is empty: there is nothing to quantize"
        )


def check_finite(weight: Tensor, rows: slice, largest: Tensor) -> None:
    """Refuses NaN and infinity.

    Args:
        weight: the whole matrix, for the message.
        rows: which of its rows are looked at.
        largest: [rows], NaN or infinite where a row has such a weight.

    Raises:
        ValueError: names the first of these rows.
    """
    if bool(largest.isfinite().all()):
        return
    row = rows.start + int(largest.isfinite().logical_not().nonzero()[0])
    raise ValueError(
        f"a weight of shape {list(weight.shape)} has NaN or infinity, first in row {row}: it "
        "cannot be quantized; the checkpoint is damaged, copy or download it again"
    )


def _scale(weight: Tensor, rows: slice, bits: int) -> Tensor:
    largest = weight[rows].abs().amax(dim=-1)
    check_finite(weight, rows, largest)
    return (largest / top_level(bits)).half().clamp_(SMALLEST_SCALE, LARGEST_SCALE)


def _check_stored(levels: Tensor, scale: Tensor, bits: int, zero: Tensor | None) -> None:
    packed_columns(8, bits)
    columns = levels.shape[-1] * 8 // bits
    groups = scale.shape[1] if scale.dim() == 2 else 1
    if (
        levels.dtype != torch.int8
        or levels.dim() != 2
        or scale.dim() not in (1, 2)
        or scale.shape[0] != levels.shape[0]
        or columns % max(1, groups)
        or (zero is not None and zero.shape != scale.shape)
    ):
        raise ValueError(
            f"levels are {levels.dtype} of shape {list(levels.shape)} and scales have shape "
            f"{list(scale.shape)}: quantized rows are int8 [out, in * bits / 8] and [out], or "
            "[out, groups]; zero points have the shape of the scales"
        )
