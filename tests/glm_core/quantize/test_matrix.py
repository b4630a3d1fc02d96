"""Group-wise and asymmetric levels against numpy written from their definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from glm_core.quantize import Layout, QuantizedMatrix, quantize_matrix, unpack_int4
from glm_core.quantize import matrix as matrix_module

GROUPED = [
    Layout(bits, group, sym) for bits in (8, 4) for group in (32, 64, 128) for sym in (True, False)
]
ASYMMETRIC_ROWS = [Layout(8, 0, False), Layout(4, 0, False)]
EVERY = pytest.mark.parametrize("layout", [*GROUPED, *ASYMMETRIC_ROWS], ids=str)


def levels_of(matrix: QuantizedMatrix) -> np.ndarray:
    """The levels one by one, int64 [out, in]."""
    stored = matrix.levels if matrix.layout.bits == 8 else unpack_int4(matrix.levels)
    return stored.numpy().astype(np.int64)


def groups_of(weight: np.ndarray, layout: Layout) -> np.ndarray:
    return weight.reshape(len(weight), -1, layout.group or weight.shape[1])


@EVERY
def test_values_are_scale_times_level_minus_zero_when_dequantized(layout: Layout) -> None:
    matrix = quantize_matrix(torch.randn(5, 256), layout)
    levels = groups_of(levels_of(matrix).astype(np.float64), layout)
    scale = matrix.scale.double().numpy().reshape(5, -1, 1)
    zero = 0.0 if matrix.zero is None else matrix.zero.double().numpy().reshape(5, -1, 1)
    expected = (scale * (levels - zero)).reshape(5, 256)
    assert np.array_equal(matrix.dequantize(torch.float32).double().numpy(), expected)
    assert (matrix.zero is None) == layout.symmetric


@EVERY
def test_each_level_is_the_nearest_when_quantized(layout: Layout) -> None:
    weight = torch.randn(7, 256).double().float()
    matrix = quantize_matrix(weight, layout)
    scale = matrix.scale.float().numpy().reshape(7, -1, 1)
    zero = 0 if matrix.zero is None else matrix.zero.numpy().reshape(7, -1, 1).astype(np.int64)
    lowest, highest = -(1 << (layout.bits - 1)), (1 << (layout.bits - 1)) - 1
    exact = np.round(groups_of(weight.numpy(), layout) / scale) + zero
    expected = np.clip(exact, lowest, highest).astype(np.int64)
    assert np.array_equal(groups_of(levels_of(matrix), layout), expected)


@EVERY
def test_error_is_bounded_by_half_a_step_when_nothing_is_cut_off(layout: Layout) -> None:
    """And what is cut off in groups pays: the error is no larger than that of the whole range."""
    weight = torch.randn(9, 256)
    matrix = quantize_matrix(weight, layout)
    values = groups_of(weight.double().numpy(), layout)
    spans = np.maximum(values.max(-1), 0) - np.minimum(values.min(-1), 0)
    if layout.symmetric:
        step = np.abs(values).max(-1) / (1 << (layout.bits - 1))
    else:
        step = spans / ((1 << layout.bits) - 1)
    error = groups_of((matrix.dequantize().double() - weight.double()).numpy(), layout)
    rms = np.sqrt((error**2).mean(-1))
    # a rounding error is at most half a step; the end of a symmetric range without the extra
    # level may miss by a whole one
    assert (rms <= step * 0.5).all()
    if not layout.group:
        assert (np.abs(error).max(-1) <= 1.01 * step).all()


@pytest.mark.parametrize("layout", [*GROUPED, *ASYMMETRIC_ROWS, Layout(8), Layout(4)], ids=str)
@pytest.mark.parametrize("ranks", [2, 4])
def test_levels_are_the_same_when_split_among_ranks_before_or_after(
    layout: Layout, ranks: int
) -> None:
    weight = torch.randn(12, 512)
    whole = quantize_matrix(weight, layout)
    for share, levels, scale in zip(
        weight.chunk(ranks, 0),
        whole.levels.chunk(ranks, 0),
        whole.scale.chunk(ranks, 0),
        strict=True,
    ):
        part = quantize_matrix(share, layout)
        assert torch.equal(part.levels, levels) and torch.equal(part.scale, scale)
    if not layout.group:
        return  # whole rows have one scale: a share of their columns would have another
    for rank, share in enumerate(weight.chunk(ranks, 1)):
        part = quantize_matrix(share, layout)
        assert torch.equal(part.levels, whole.levels.chunk(ranks, 1)[rank])
        assert torch.equal(part.scale, whole.scale.chunk(ranks, 1)[rank])
        if part.zero is not None and whole.zero is not None:
            assert torch.equal(part.zero, whole.zero.chunk(ranks, 1)[rank])


@EVERY
def test_result_does_not_depend_on_the_chunks(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = torch.randn(10, 256)
    whole = quantize_matrix(weight, layout)
    monkeypatch.setattr(matrix_module, "CHUNK_ELEMENTS", 3 * 256)
    parts = quantize_matrix(weight, layout)
    for name, tensor in whole.tensors("w").items():
        assert torch.equal(tensor, parts.tensors("w")[name])


@pytest.mark.parametrize(
    "layout", [Layout(8, 32), Layout(4, 64), Layout(4, 32, False), Layout(4, 0, False)], ids=str
)
@settings(max_examples=20, deadline=None)
@given(
    weight=arrays.arrays(
        np.float32,
        (2, 128),
        elements=st.floats(-(2.0**99), 2.0**99, width=32)
        | st.floats(-(2.0**-99), 2.0**-99, width=32)
        | st.sampled_from([0.0, -0.0, 65504.0, 2.0**-24, 2.0**-12]),
    )
)
def test_nothing_is_nan_or_wraps_around_whatever_the_weights(
    layout: Layout, weight: np.ndarray
) -> None:
    matrix = quantize_matrix(torch.from_numpy(weight), layout)
    back = matrix.dequantize().numpy()
    assert np.isfinite(back).all() and (matrix.scale != 0).all()
    values, found = groups_of(weight.astype(np.float64), layout), groups_of(back, layout)
    step = np.abs(matrix.scale.double().numpy()).reshape(2, -1, 1)
    # a sign is lost only to 0: nothing wraps around to the other end
    assert (np.sign(found) * np.sign(values) >= 0).all()
    assert (np.abs(found) <= np.abs(values) + step).all()


@EVERY
def test_zeros_stay_zero_when_a_group_is_all_zero(layout: Layout) -> None:
    weight = torch.randn(3, 256)
    weight[1] = 0.0
    weight[2, :128] = 0.0
    back = quantize_matrix(weight, layout).dequantize()
    assert (back[weight == 0] == 0).all() and back[0].abs().max() > 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_every_dtype_are_taken(dtype: torch.dtype) -> None:
    weight = torch.randn(4, 64).to(dtype)
    layout = Layout(4, 32)
    ours, same = quantize_matrix(weight, layout), quantize_matrix(weight.float(), layout)
    assert torch.equal(ours.levels, same.levels) and torch.equal(ours.scale, same.scale)


def test_bits_per_weight_count_scales_and_zero_points() -> None:
    assert Layout(4, 32).bits_per_weight == 4.5
    assert Layout(4, 32, symmetric=False).bits_per_weight == 4.75
    assert Layout(8, 128).bits_per_weight == 8.125 and Layout(4).bits_per_weight == 4.0


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.zeros(0, 32), r"shape \[0, 32\] is empty"),
        (torch.zeros(4, 0), r"shape \[4, 0\] is empty"),
        (torch.zeros(4), r"shape \[4\]: only floating-point matrices"),
        (torch.zeros(4, 32, dtype=torch.int8), "torch.int8 .* only floating-point matrices"),
    ],
)
@pytest.mark.parametrize("layout", [Layout(8), Layout(8, 32)], ids=str)
def test_error_names_the_shape_when_there_is_nothing_to_quantize(
    weight: torch.Tensor, message: str, layout: Layout
) -> None:
    with pytest.raises(ValueError, match=message):
        quantize_matrix(weight, layout)


@pytest.mark.parametrize("layout", [Layout(8), Layout(4, 32), Layout(4, 0, False)], ids=str)
def test_error_names_the_row_when_it_lies_behind_the_first_chunk(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix_module, "CHUNK_ELEMENTS", 2 * 32)
    monkeypatch.setattr("glm_core.quantize.rows.CHUNK_ELEMENTS", 2 * 32)
    weight = torch.ones(9, 32)
    weight[5, 31] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinity, first in row 5"):
        quantize_matrix(weight, layout)
