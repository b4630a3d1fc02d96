"""Every path of the weight-only products gives the same results: portable, AVX2, AVX-512, AMX, and
torch's operations on the dequantized weight.

The vectors' integers are the same ones, so that only fp32 sums differ; AMX rounds wider spans of
the activations and brings groups to one scale. Differences are relative to |x| |w| of the row and
the column.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from glm_kernels import linear_weight_only, pack_weight, use_backend
from glm_kernels.cpu import library

LAYOUTS = [(bits, group) for bits in (4, 8) for group in (None, 32, 64, 128)]
SHAPES = [(1, 384, 50), (2, 512, 16), (9, 640, 33), (33, 1152, 17), (70, 256, 130)]
"""Rows of x, columns and rows of the weight: one span of AMX and several, whole tiles and not."""
BETWEEN_VECTORS = 2e-7  # worst measured over 20 seeds: 4.9e-8
TO_TORCH = {15: 1e-4, 8: 6e-3}  # 1.7e-5 (AMX: 3.9e-5), 2.6e-3

pytestmark = pytest.mark.skipif(
    library.unavailable() is not None, reason=f"no compiled kernels: {library.unavailable()}"
)


def distance(a: torch.Tensor, b: torch.Tensor, x: torch.Tensor, values: np.ndarray) -> float:
    size = x.double().norm(dim=1)[:, None] * torch.from_numpy(values).norm(dim=1)
    return float(((a.double() - b.double()).abs() / (size + 1e-30)).max())


def by_torch(x, packed) -> torch.Tensor:
    with use_backend("torch", "linear_weight_only"):
        return linear_weight_only(x, packed)


def by_every_isa(x, packed, bias=None, activation_bits=15) -> dict[str, torch.Tensor]:
    results = {}
    for name in library.available_isas():
        with library.use_isa(name):
            results[name] = linear_weight_only(x, packed, bias, activation_bits=activation_bits)
    return results


@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize(("bits", "group"), LAYOUTS)
def test_paths_agree_when_layouts_and_shapes_vary(random, quantized, bits, group, zero_points):
    for rows, columns, outputs in SHAPES:
        weight, x = quantized(outputs, columns, bits, group, zero_points), random(rows, columns)
        plain = by_torch(x, weight.packed)
        for activation_bits in (15, 8):
            found = by_every_isa(x, weight.packed, None, activation_bits)
            portable, amx = found["portable"], found.pop("amx", None)
            for y in found.values():
                assert distance(y, portable, x, weight.values) < BETWEEN_VECTORS
                assert distance(y, plain, x, weight.values) < TO_TORCH[activation_bits]
            if amx is not None:
                assert distance(amx, plain, x, weight.values) < TO_TORCH[activation_bits]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("low_bias", [False, True])
def test_paths_agree_when_dtypes_vary(random, quantized, dtype, low_bias):
    weight, x = quantized(50, 640, 4, 32, False), random(40, 640).to(dtype)
    bias = random(50).to(dtype if low_bias else torch.float32)
    exact = x.double() @ torch.from_numpy(weight.values).T + bias.double()
    for y in by_every_isa(x, weight.packed, bias).values():
        assert y.dtype == dtype
        # half of the last place, and the rounding of the activations
        last = torch.finfo(dtype).eps * exact.abs()
        size = x.double().norm(dim=1)[:, None] * torch.from_numpy(weight.values).norm(dim=1)
        assert bool(((y.double() - exact).abs() <= 0.51 * last + 1e-4 * size).all())


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_paths_agree_when_groups_of_the_weight_are_zero(random, quantized, bits, rows):
    levels, scales, zeros = quantized(40, 1024, bits, 32, True).stored
    scales[5], scales[17, 3:20], levels[30] = 0, 0, 0
    zeros[30] = 0
    packed = pack_weight(levels, scales, zeros, bits=bits, group=32)
    x = random(rows, 1024)
    x[0, :700] = 0
    plain = by_torch(x, packed)
    for y in by_every_isa(x, packed).values():
        assert y[:, 5].eq(0).all() and y[:, 30].eq(0).all()
        assert (y - plain).abs().max() < 4e-4 * plain.abs().max()  # measured 1.5e-4


@pytest.mark.parametrize(("bits", "group"), [(4, 32), (4, None), (8, 64), (8, None)])
def test_paths_agree_when_zero_points_are_as_wide_as_their_type(random, quantized, bits, group):
    levels, scales, zeros = quantized(20, 640, bits, group, True).stored
    zeros.view(-1)[::3], zeros.view(-1)[1::3] = -128, 127
    packed = pack_weight(levels, scales, zeros, bits=bits, group=group)
    x = random(40, 640)
    plain = by_torch(x, packed)
    for y in by_every_isa(x, packed).values():
        assert (y - plain).abs().max() < 4e-4 * plain.abs().max()  # measured 1.5e-4


def test_small_values_survive_when_others_are_a_thousand_times_as_large(random, quantized):
    weight, x = quantized(48, 1024, 4, 32, False), random(40, 1024)
    x[:, 100] *= 1000
    exact = x.double().numpy() @ weight.values.T
    for y in by_every_isa(x, weight.packed).values():
        size = np.linalg.norm(x.numpy(), axis=1)[:, None] * np.linalg.norm(weight.values, axis=1)
        assert (np.abs(y.double().numpy() - exact) / size).max() < 2e-4  # measured 7e-5


def test_paths_agree_when_rows_exceed_one_chunk(random, quantized):
    weight, x = quantized(70, 1088, 4, 32, False), random(1100, 1088)
    found = by_every_isa(x[:, :1088], weight.packed)
    for y in found.values():
        assert distance(y, by_torch(x, weight.packed), x, weight.values) < TO_TORCH[15]
    for name, y in found.items():  # each row is what it is alone among some others
        with library.use_isa(name):
            assert torch.equal(y[600:640], linear_weight_only(x[600:640], weight.packed))
