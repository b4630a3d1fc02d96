"""The gradient of a weight-only product for its input: grad W, on every instruction set and without
the library, against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from glm_kernels import dequantize_packed
from glm_kernels.cpu import weight_only
from glm_kernels.weight_only import some_columns

LAYOUTS = [
    (bits, group, zero_points)
    for bits in (4, 8)
    for group in (None, 32, 64, 128)
    for zero_points in (False, True)
]


@pytest.fixture(params=["compiled", "torch"])
def small_chunks(request, monkeypatch) -> None:
    """Several chunks of columns, the last one narrower; with the compiled part and without."""
    monkeypatch.setattr(weight_only, "_NUMBERS", 128 * 50)
    if request.param == "torch":
        monkeypatch.setattr(weight_only.library, "unavailable", lambda: "for a test")


@pytest.mark.parametrize(("bits", "group", "zero_points"), LAYOUTS)
def test_gradient_is_right_when_columns_are_cut(
    small_chunks, random, quantized, bits, group, zero_points
):
    weight = quantized(37, 640, bits, group, zero_points)
    grad = random(2, 3, 37)
    found = weight_only.grad_of_input(grad, weight.packed)
    expected = grad.double().numpy() @ weight.values
    assert found.shape == (2, 3, 640) and found.dtype == torch.float32
    # measured worst 2.9e-7 of the largest
    assert np.abs(found.numpy() - expected).max() < 2e-6 * np.abs(expected).max()


@pytest.mark.parametrize(("bits", "columns"), [(4, 2), (4, 286), (8, 1), (8, 151)])
def test_gradient_is_right_when_whole_rows_fill_no_unit(
    small_chunks, random, quantized, bits, columns
):
    weight, grad = quantized(19, columns, bits, None, True), random(5, 19)
    found = weight_only.grad_of_input(grad, weight.packed)
    expected = grad.double().numpy() @ weight.values
    assert np.abs(found.numpy() - expected).max() < 2e-6 * np.abs(expected).max()


# In half precision the result is rounded, and bf16 also the weight where the processor multiplies
# bf16 itself: measured 3.9e-3, 4.9e-4 and, of fp64, 2.3e-16.
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.bfloat16, 1e-2), (torch.float16, 1e-3), (torch.float64, 1e-7)],
)
def test_gradient_has_the_dtype_of_what_comes_in(small_chunks, random, quantized, dtype, tolerance):
    weight, grad = quantized(50, 384, 4, 32, False), random(4, 50).to(dtype)
    found = weight_only.grad_of_input(grad, weight.packed)
    expected = grad.double().numpy() @ weight.values
    assert found.dtype == dtype
    assert np.abs(found.double().numpy() - expected).max() < tolerance * np.abs(expected).max()


@pytest.mark.parametrize(("bits", "group", "zero_points"), LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_numbers_are_those_of_torch_when_columns_are_dequantized(
    isa, quantized, bits, group, zero_points, dtype
):
    weight = quantized(37, 1152, bits, group, zero_points)
    whole = dequantize_packed(weight.packed, dtype)
    for columns in (slice(0, 1152), slice(128, 1152), slice(512, 640)):
        room = torch.full((37 * 1152,), float("nan"), dtype=dtype)
        found = weight_only._columns(weight.packed, columns, room)
        assert torch.equal(found, whole[:, columns])
        cut = some_columns(weight.packed, columns)
        assert torch.equal(dequantize_packed(cut, dtype), whole[:, columns])
