"""GPTQ: rounds a matrix column by column, and lets the columns that follow make up for the error.

What is minimised is the squared error of the layer's outputs over a text, tr(E H E^T) with E the
error of the weights and H the mean of x x^T over its inputs x.
Source: arXiv 2210.17323, algorithm 1.

Letters: O rows of the weight (outputs), I columns (inputs).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from glm_core.quantize.layout import SCALE_SUFFIX, ZERO_SUFFIX, Layout
from glm_core.quantize.matrix import (
    QuantizedMatrix,
    choose_scales,
    quantize_matrix,
    round_to_levels,
)
from glm_core.quantize.rows import pack_int4

_BLOCK = 128
"""Columns whose errors are passed on to the rest at once; a multiple of every group."""
_TRIES = 4


class Hessian:
    """Mean of x x^T over the inputs of a layer, fp32 [I, I].

    Args:
        columns: I.
    """

    def __init__(self, columns: int, device: torch.device | str | None = None) -> None:
        self.sum_II = torch.zeros((columns, columns), dtype=torch.float32, device=device)
        self.count = 0

    @torch.no_grad()
    def add(self, x: Tensor) -> None:
        """Takes inputs of the layer, [..., I]."""
        x_MI = x.reshape(-1, x.shape[-1]).float()
        self.sum_II.addmm_(x_MI.t(), x_MI)
        self.count += len(x_MI)

    def mean(self) -> Tensor:
        """The mean, in the memory of the sum: the last thing to ask for.

        Raises:
            ValueError: an input was not finite.
        """
        mean_II = self.sum_II.div_(max(1, self.count))
        if not bool(mean_II.diagonal().isfinite().all()):
            raise ValueError(
                "the calibration text gives activations that are NaN or infinite: the weights are "
                "damaged, or float16 is too narrow for the model; use float32"
            )
        return mean_II


@dataclass(frozen=True, slots=True, kw_only=True)
class GptqConfig:
    """How GPTQ proceeds.

    Raises:
        ValueError: damping is not above 0.
    """

    damping: float = 0.01
    """What is added to the diagonal of H, as a share of its mean."""
    activation_order: bool = False
    """Whether the columns with the largest inputs come first. Scales are then those of the weights
    as they were."""

    def __post_init__(self) -> None:
        if not self.damping > 0:
            raise ValueError(f"damping is {self.damping}: it must be above 0, such as 0.01")


@torch.no_grad()
def gptq(
    weight: Tensor, mean_II: Tensor, layout: Layout, config: GptqConfig | None = None
) -> QuantizedMatrix:
    """Quantizes a matrix for the inputs that it has.

    A column whose input was never other than 0 is rounded to the nearest level, and neither passes
    an error on nor takes one.

    Args:
        weight: floating point, [O, I].
        mean_II: of a `Hessian`, on the same device.
        layout: of the result.

    Raises:
        ValueError: as `quantize_matrix`, or the Hessian is of another layer.
    """
    config = config or GptqConfig()
    start = quantize_matrix(weight, layout)  # refuses what cannot be quantized
    if mean_II.shape != (weight.shape[1], weight.shape[1]) or mean_II.device != weight.device:
        raise ValueError(
            f"the Hessian has shape {list(mean_II.shape)} on {mean_II.device}: a weight of "
            f"{weight.shape[1]} columns on {weight.device} needs one of {weight.shape[1]} rows and "
            "columns there, of the inputs of the same layer"
        )
    diagonal_I = mean_II.diagonal()
    if config.activation_order:
        order_I = torch.argsort(diagonal_I, descending=True, stable=True)
    else:
        order_I = torch.arange(len(diagonal_I), device=weight.device)
    factor_II = _inverse_factor(mean_II[order_I][:, order_I], config.damping)
    rounding = _Rounding(weight, start, is_fixed=config.activation_order or layout.group == 0)
    rest_OI = weight.float()[:, order_I]
    for begin in range(0, len(order_I), _BLOCK):
        block = slice(begin, min(begin + _BLOCK, len(order_I)))
        error_OB = torch.zeros_like(rest_OI[:, block])
        factor_BB = factor_II[block, block]
        block_OB = rest_OI[:, block]
        for at, column in enumerate(order_I[block].tolist()):
            rounded_O = rounding.round(column, block_OB[:, at:])
            error_O = (block_OB[:, at] - rounded_O) / factor_BB[at, at]
            block_OB[:, at:].addr_(error_O, factor_BB[at, at:], alpha=-1.0)
            error_OB[:, at] = error_O
        rest_OI[:, block.stop :].addmm_(error_OB, factor_II[block, block.stop :], alpha=-1.0)
    return rounding.matrix()


def output_error(weight: Tensor, rounded: Tensor, mean_II: Tensor) -> float:
    """Root of the squared error of a layer's outputs, relative to the outputs."""
    wrong = (weight.float() - rounded.float()).to(mean_II.device)
    right = weight.float().to(mean_II.device)
    error = float(((wrong @ mean_II) * wrong).sum())
    size = float(((right @ mean_II) * right).sum())
    return (max(error, 0.0) / size) ** 0.5 if size > 0 else 0.0


class _Rounding:
    """Levels and scales of a matrix as they become known, column by column.

    Args:
        start: the matrix rounded to nearest.
        is_fixed: whether its scales stay; otherwise each group's are chosen when its first column
            comes, from the weights as they are then.
    """

    def __init__(self, weight: Tensor, start: QuantizedMatrix, is_fixed: bool) -> None:
        self._layout, self._is_fixed = start.layout, is_fixed
        self._levels_OI = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
        rows = len(weight)
        self._scale_OG = start.scale.clone().view(rows, -1)
        self._zero_OG = None if start.zero is None else start.zero.clone().view(rows, -1)

    def round(self, column: int, values_OC: Tensor) -> Tensor:
        """Rounds a column, the first of the values; those after it follow in the matrix."""
        group = self._layout.group
        at = column // group if group else 0
        if not self._is_fixed and column % group == 0:
            scale, zero = choose_scales(values_OC[:, None, :group], self._layout)
            self._scale_OG[:, at] = scale[:, 0]
            if zero is not None and self._zero_OG is not None:
                self._zero_OG[:, at] = zero[:, 0]
        scale_O1 = self._scale_OG[:, at : at + 1]
        zero_O1 = None if self._zero_OG is None else self._zero_OG[:, at : at + 1]
        levels_O = round_to_levels(values_OC[:, :1, None], scale_O1, zero_O1, self._layout.bits)
        levels_O1 = levels_O[..., 0]
        self._levels_OI[:, column] = levels_O1[:, 0]
        shifted = levels_O1.float() if zero_O1 is None else levels_O1.float() - zero_O1.float()
        return (shifted * scale_O1.float())[:, 0]

    def matrix(self) -> QuantizedMatrix:
        """The whole, when every column is rounded."""
        levels = self._levels_OI if self._layout.bits == 8 else pack_int4(self._levels_OI)
        parts = {"": levels}
        for suffix, values in ((SCALE_SUFFIX, self._scale_OG), (ZERO_SUFFIX, self._zero_OG)):
            if values is not None:
                parts[suffix] = values if self._layout.group else values[:, 0].contiguous()
        return QuantizedMatrix.of(parts, self._layout)


def _inverse_factor(mean_II: Tensor, damping: float) -> Tensor:
    """Upper triangular U with U^T U = H^-1, H damped until that can be computed.

    Raises:
        ValueError: it cannot be.
    """
    diagonal_I = mean_II.diagonal()
    is_dead = diagonal_I <= 0
    mean = float(diagonal_I.mean()) or 1.0
    upper_II: Tensor
    for attempt in range(_TRIES):
        damped_II = mean_II.clone()
        damped_II.diagonal().add_(damping * 10**attempt * mean)
        damped_II.diagonal()[is_dead] = mean
        lower_II, failed = torch.linalg.cholesky_ex(damped_II)
        if not failed:
            torch.cholesky_inverse(lower_II, out=damped_II)
            upper_II, failed = torch.linalg.cholesky_ex(damped_II, upper=True)
            if not failed:
                return upper_II
    raise ValueError(
        f"the calibration text does not determine the weights even with damping="
        f"{damping * 10 ** (_TRIES - 1):g}: give a longer text, or a larger damping"
    )
