"""GPTQ against the optimal brain quantizer it is derived from, written out in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from glm_core.quantize import Layout, quantize_matrix, unpack_int4
from glm_core.quantize import gptq as gptq_module
from glm_core.quantize.gptq import GptqConfig, Hessian, gptq, output_error

LAYOUTS = [Layout(8), Layout(4), Layout(4, 0, False), Layout(4, 32), Layout(4, 32, False)]
EVERY = pytest.mark.parametrize("layout", LAYOUTS, ids=str)


def problem(rows: int = 6, columns: int = 64, count: int = 200) -> tuple[torch.Tensor, Hessian]:
    """A weight, and inputs that depend on each other."""
    weight = torch.randn(rows, columns)
    mixing = torch.randn(columns, columns) / columns**0.5 + 0.5 * torch.eye(columns)
    hessian = Hessian(columns)
    for _ in range(2):
        hessian.add(torch.randn(2, count // 4, columns) @ mixing)
    return weight, hessian


def brain_quantizer(
    weight: np.ndarray, mean: np.ndarray, order: list[int], damping: float, scales: np.ndarray
) -> np.ndarray:
    """Rounds columns in an order; after each, the columns left take the least-squares correction.

    Equations 2 and 3 of arXiv 2210.17323: the inverse of H is that of what is left, computed anew
    for every column.

    Args:
        scales: fp64 [out, in], one for each weight; levels are -8..7.
    """
    left = weight.astype(np.float64).copy()
    hessian = mean + damping * np.diag(mean).mean() * np.eye(len(mean))
    out = np.empty_like(left)
    for step, column in enumerate(order):
        rest = order[step:]
        inverse = np.linalg.inv(hessian[np.ix_(rest, rest)])
        scale = scales[:, column]
        out[:, column] = scale * np.clip(np.round(left[:, column] / scale), -8, 7)
        error = (left[:, column] - out[:, column]) / inverse[0, 0]
        left[:, rest] -= error[:, None] * inverse[0]
    return out


@pytest.mark.parametrize("activation_order", [False, True])
@pytest.mark.parametrize("block", [8, 128])
def test_weights_are_those_of_the_brain_quantizer(
    activation_order: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gptq_module, "_BLOCK", block)
    weight, hessian = problem()
    mean = hessian.mean()
    layout = Layout(4)
    scales = quantize_matrix(weight, layout).scale.double().numpy()[:, None].repeat(64, 1)
    config = GptqConfig(damping=0.05, activation_order=activation_order)
    found = gptq(weight, mean, layout, config).dequantize().double().numpy()
    diagonal = np.diag(mean.numpy())
    order = np.argsort(-diagonal, kind="stable").tolist() if activation_order else [*range(64)]
    exact = brain_quantizer(weight.numpy(), mean.double().numpy(), order, 0.05, scales)
    # a rounding that lies on the edge may fall either way and change what follows: none here
    assert np.abs(found - exact).max() < 1e-6


def test_static_groups_are_those_of_the_brain_quantizer_in_activation_order() -> None:
    weight, hessian = problem(columns=96)
    mean, layout = hessian.mean(), Layout(4, 32)
    scales = quantize_matrix(weight, layout).scale.double().numpy().repeat(32, 1)
    config = GptqConfig(damping=0.05, activation_order=True)
    found = gptq(weight, mean, layout, config).dequantize().double().numpy()
    order = np.argsort(-np.diag(mean.numpy()), kind="stable").tolist()
    exact = brain_quantizer(weight.numpy(), mean.double().numpy(), order, 0.05, scales)
    assert np.abs(found - exact).max() < 1e-6


@EVERY
@pytest.mark.parametrize("activation_order", [False, True])
def test_output_error_falls_when_calibrated(layout: Layout, activation_order: bool) -> None:
    weight, hessian = problem(rows=16, columns=128, count=400)
    mean = hessian.mean()
    config = GptqConfig(activation_order=activation_order)
    nearest = quantize_matrix(weight, layout).dequantize()
    ours = gptq(weight, mean, layout, config).dequantize()
    # measured over 30 seeds: 0.62 to 0.76 of the error of rounding to nearest
    assert output_error(weight, ours, mean) < 0.85 * output_error(weight, nearest, mean)


def test_output_error_is_that_of_the_outputs_when_multiplied() -> None:
    weight, rounded, x = torch.randn(5, 32), torch.randn(5, 32), torch.randn(70, 32)
    hessian = Hessian(32)
    hessian.add(x)
    expected = (x @ (weight - rounded).t()).norm() / (x @ weight.t()).norm()
    assert output_error(weight, rounded, hessian.mean()) == pytest.approx(float(expected), rel=1e-5)


@EVERY
def test_levels_are_rounded_to_nearest_when_inputs_are_independent(layout: Layout) -> None:
    weight = torch.randn(5, 64)
    ours = gptq(weight, torch.eye(64), layout)
    nearest = quantize_matrix(weight, layout)
    for name, tensor in nearest.tensors("w").items():
        assert torch.equal(ours.tensors("w")[name], tensor), name


@EVERY
def test_dead_columns_are_rounded_to_nearest_and_leave_the_others_alone(layout: Layout) -> None:
    weight, hessian = problem()
    hessian.sum_II[5] = hessian.sum_II[:, 5] = 0.0
    mean = hessian.mean()
    fixed = GptqConfig(activation_order=True)
    ours = gptq(weight, mean, layout, fixed)
    assert torch.equal(ours.dequantize()[:, 5], quantize_matrix(weight, layout).dequantize()[:, 5])
    other = weight.clone()
    other[:, 5] *= 0.5
    changed = gptq(other, mean, layout, fixed)
    same = torch.arange(64) != 5
    if torch.equal(changed.scale, ours.scale):
        assert torch.equal(changed.dequantize()[:, same], ours.dequantize()[:, same])
    every = gptq(weight, torch.zeros(64, 64), layout)
    assert torch.equal(every.levels, quantize_matrix(weight, layout).levels)


def test_few_inputs_are_enough_when_damped() -> None:
    weight, hessian = torch.randn(4, 64), Hessian(64)
    hessian.add(torch.randn(3, 64))  # of rank 3
    mean = hessian.mean()
    ours = gptq(weight, mean, Layout(4, 32)).dequantize()
    assert ours.isfinite().all()
    nearest = quantize_matrix(weight, Layout(4, 32)).dequantize()
    assert output_error(weight, ours, mean) < 0.5 * output_error(weight, nearest, mean)


def test_levels_of_int4_are_in_range_when_calibrated() -> None:
    weight, hessian = problem()
    levels = unpack_int4(gptq(weight, hessian.mean(), Layout(4, 32, False)).levels)
    assert levels.min() >= -8 and levels.max() <= 7


def test_errors_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="damping is 0.0: it must be above 0"):
        GptqConfig(damping=0.0)
    hessian = Hessian(4)
    hessian.add(torch.tensor([[1.0, torch.inf, 0.0, 0.0]]))
    with pytest.raises(ValueError, match="calibration text gives activations that are NaN"):
        hessian.mean()
    weight = torch.ones(3, 4)
    weight[2, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinity, first in row 2"):
        gptq(weight, torch.eye(4), Layout(8))
    for wrong in (torch.eye(5), torch.eye(4, 3), torch.eye(4, device="meta")):
        with pytest.raises(ValueError, match="Hessian has shape .* a weight of 4 columns on cpu"):
            gptq(torch.ones(3, 4), wrong, Layout(8))
