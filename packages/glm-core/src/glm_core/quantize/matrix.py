"""One quantized matrix in any layout: from numbers to levels, scales and zero points, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from glm_core.quantize.layout import SCALE_SUFFIX, ZERO_SUFFIX, Layout
from glm_core.quantize.rows import (
    LARGEST_SCALE,
    SMALLEST_SCALE,
    check_finite,
    check_not_empty,
    dequantize_rows,
    pack_int4,
    quantize_rows,
    row_chunks,
    top_level,
)

CHUNK_ELEMENTS = 1 << 18
"""Elements worked on at once. Measured, int4 in groups takes 17 ns of one core per weight; with
2^20 elements, which leave the cache, 23."""
_SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)
"""Ranges that are tried for each group, as shares of what its weights span. The one with the least
squared error is taken: a range that cuts the largest weight off rounds all the others finer."""


@dataclass(frozen=True, slots=True)
class QuantizedMatrix:
    """What is stored of a matrix [out, in]; see layout.py."""

    levels: Tensor
    """int8 [out, in * bits / 8]."""
    scale: Tensor
    """fp16 [out] or [out, groups]."""
    zero: Tensor | None
    """int8, shape of the scale; None where level 0 stands for 0."""
    layout: Layout

    @classmethod
    def of(cls, parts: Mapping[str, Tensor], layout: Layout) -> QuantizedMatrix:
        """The matrix of what is stored of it, by the suffix of its name."""
        return cls(parts[""], parts[SCALE_SUFFIX], parts.get(ZERO_SUFFIX), layout)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Computes the matrix back, [out, in]; fp32 gives the exact products."""
        return dequantize_rows(self.levels, self.scale, self.layout.bits, dtype, self.zero)

    def rows(self, rows: slice) -> QuantizedMatrix:
        """Some of its rows, as views."""
        zero = None if self.zero is None else self.zero[rows]
        return QuantizedMatrix(self.levels[rows], self.scale[rows], zero, self.layout)

    def tensors(self, name: str) -> dict[str, Tensor]:
        """What is stored of the parameter `name`, by the names of files and state dicts."""
        found = {name: self.levels, name + SCALE_SUFFIX: self.scale}
        return found if self.zero is None else found | {name + ZERO_SUFFIX: self.zero}

    def to(self, device: torch.device | str) -> QuantizedMatrix:
        """The same matrix on another device."""
        zero = None if self.zero is None else self.zero.to(device)
        return QuantizedMatrix(self.levels.to(device), self.scale.to(device), zero, self.layout)


@torch.no_grad()
def quantize_matrix(weight: Tensor, layout: Layout) -> QuantizedMatrix:
    """Rounds each weight of a matrix to the nearest level.

    Rows of the released layout are computed as the original code does (`quantize_rows`). Otherwise
    scales are chosen in fp32 by `choose_scales`. A few MB are taken beside the result.

    Args:
        weight: floating point, [out, in], any device.
        layout: of the result.

    Raises:
        ValueError: the weight is empty or not finite, or its columns cannot be laid out so.
    """
    if layout.is_released:
        return QuantizedMatrix(*quantize_rows(weight, layout.bits), None, layout)
    check_not_empty(weight)
    (rows, columns), groups = weight.shape, layout.groups(weight.shape[1])
    parts = layout.empty(rows, columns, weight.device)
    for chunk in row_chunks(rows, columns, CHUNK_ELEMENTS):
        values_RGC = weight[chunk].float().reshape(-1, groups, columns // groups)
        check_finite(weight, chunk, values_RGC.abs().amax(dim=(1, 2)))
        scale_RG, zero_RG = choose_scales(values_RGC, layout)
        levels = round_to_levels(values_RGC, scale_RG, zero_RG, layout.bits).flatten(1)
        parts[""][chunk] = levels if layout.bits == 8 else pack_int4(levels)
        parts[SCALE_SUFFIX][chunk] = scale_RG.view_as(parts[SCALE_SUFFIX][chunk])
        if zero_RG is not None:
            parts[ZERO_SUFFIX][chunk] = zero_RG.view_as(parts[ZERO_SUFFIX][chunk])
    return QuantizedMatrix.of(parts, layout)


def choose_scales(values_RGC: Tensor, layout: Layout) -> tuple[Tensor, Tensor | None]:
    """Chooses scale and zero point of each group.

    Per row: what its weights span, by the textbook. Groups: the share of it, of those in
    `_SHRINKS`, that gives the least squared error. A symmetric range has one level more on the side
    of the weight with the largest absolute value, wherever that is: its scale is negative where
    that weight is positive.

    Args:
        values_RGC: fp32, finite: rows, groups, columns of a group.

    Returns:
        Scales, fp16 [R, G], none of them 0; zero points, int8 [R, G], or None.
    """
    low_RG, high_RG = values_RGC.amin(-1).clamp_(max=0.0), values_RGC.amax(-1).clamp_(min=0.0)
    best_scale, best_zero = _scale_of(low_RG, high_RG, layout)
    if not layout.group:
        return best_scale, best_zero
    best_error = _squared_error(values_RGC, best_scale, best_zero, layout.bits)
    for shrink in _SHRINKS[1:]:
        scale, zero = _scale_of(low_RG * shrink, high_RG * shrink, layout)
        error = _squared_error(values_RGC, scale, zero, layout.bits)
        is_better = error < best_error
        best_error = torch.where(is_better, error, best_error)
        best_scale = torch.where(is_better, scale, best_scale)
        if zero is not None and best_zero is not None:
            best_zero = torch.where(is_better, zero, best_zero)
    return best_scale, best_zero


def round_to_levels(
    values_RGC: Tensor, scale_RG: Tensor, zero_RG: Tensor | None, bits: int
) -> Tensor:
    """The nearest levels, clamped: int8 [R, G, C]."""
    levels = values_RGC / scale_RG.float()[..., None]
    levels.round_()
    if zero_RG is not None:
        levels += zero_RG.float()[..., None]
    return levels.clamp_(-top_level(bits) - 1, top_level(bits)).to(torch.int8)


def _scale_of(low_RG: Tensor, high_RG: Tensor, layout: Layout) -> tuple[Tensor, Tensor | None]:
    """Scale and zero point with which the levels span low <= 0 to high >= 0."""
    top = top_level(layout.bits)
    if layout.symmetric:
        return _storable(torch.where(-low_RG >= high_RG, low_RG, high_RG) / (-top - 1)), None
    scale = _storable((high_RG - low_RG) / (2 * top + 1))
    zero = (-top - 1 - (low_RG / scale.float()).round()).clamp_(-top - 1, top)
    return scale, zero.to(torch.int8)


def _storable(scale: Tensor) -> Tensor:
    """The nearest fp16 that is neither 0 nor infinite."""
    size = scale.abs().clamp_(SMALLEST_SCALE, LARGEST_SCALE)
    return torch.where(scale < 0, -size, size).half()


def _squared_error(values_RGC: Tensor, scale: Tensor, zero: Tensor | None, bits: int) -> Tensor:
    levels = round_to_levels(values_RGC, scale, zero, bits).float()
    if zero is not None:
        levels -= zero.float()[..., None]
    return levels.mul_(scale.float()[..., None]).sub_(values_RGC).square_().sum(dim=-1)
