"""Weights and inputs at the edges of what weight-only products take, on every instruction set and
against torch's operations on the dequantized weight, which test_paths_agree.py compares in general.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from glm_kernels import linear_weight_only, pack_weight, use_backend
from glm_kernels.cpu import library

pytestmark = [
    pytest.mark.usefixtures("always_compiled"),
    pytest.mark.skipif(
        library.unavailable() is not None, reason=f"no compiled kernels: {library.unavailable()}"
    ),
]


def by_torch(x, packed) -> torch.Tensor:
    with use_backend("torch", "linear_weight_only"):
        return linear_weight_only(x, packed)


def by_every_isa(x, packed) -> dict[str, torch.Tensor]:
    results = {}
    for name in library.available_isas():
        with library.use_isa(name):
            results[name] = linear_weight_only(x, packed)
    return results


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_products_agree_when_groups_of_the_weight_are_zero(random, quantized, bits, rows):
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
def test_products_agree_when_zero_points_are_as_wide_as_their_type(random, quantized, bits, group):
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


def test_products_agree_when_rows_exceed_one_chunk(random, quantized):
    weight, x = quantized(70, 1088, 4, 32, False), random(1100, 1088)
    plain = by_torch(x, weight.packed)
    for name, y in by_every_isa(x, weight.packed).items():
        assert (y - plain).abs().max() < 1e-4 * plain.abs().max()  # measured 2.5e-5
        # each row is what it is among some others
        with library.use_isa(name):
            assert torch.equal(y[600:640], linear_weight_only(x[600:640], weight.packed))
