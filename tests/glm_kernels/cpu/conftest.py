"""Quantized weights and their plain values, computed in numpy alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from glm_kernels import PackedWeight, pack_weight
from glm_kernels.cpu import library, weight_only

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass
class Weight:
    """A random quantized weight."""

    packed: PackedWeight
    values: Array
    """[N, K], float64: scale * (level - zero)."""
    stored: tuple[Tensor, Tensor, Tensor | None]
    """What `pack_weight` was given: levels, scales, zeros."""


def draw(
    rows: int, columns: int, bits: int, group: int | None, zero_points: bool, seed: int = 0
) -> Weight:
    numbers = np.random.default_rng(seed)
    top = 1 << (bits - 1)
    levels = numbers.integers(-top, top, (rows, columns)).astype(np.int8)
    stored = levels if bits == 8 else (levels[:, 0::2] << 4) | (levels[:, 1::2] & 15)
    shape = (rows,) if group is None else (rows, columns // group)
    scales = numbers.uniform(-0.02, 0.02, shape).astype(np.float16)
    zeros = numbers.integers(-top, top, shape).astype(np.int8) if zero_points else None
    width = group or columns
    wide = levels.astype(np.float64)
    if zeros is not None:
        wide -= np.repeat(zeros.reshape(rows, -1), width, 1)
    values = wide * np.repeat(scales.reshape(rows, -1).astype(np.float64), width, 1)
    tensors = (
        torch.from_numpy(stored.astype(np.int8)),
        torch.from_numpy(scales),
        None if zeros is None else torch.from_numpy(zeros),
    )
    return Weight(pack_weight(*tensors, bits=bits, group=group), values, tensors)


@pytest.fixture
def quantized() -> Callable[..., Weight]:
    """Return `draw`: a function that makes a weight of rows, columns, bits, group, zero points."""
    return draw


@pytest.fixture
def always_compiled(monkeypatch) -> None:
    """Leave no product to torch, however many rows it has."""
    monkeypatch.setattr(weight_only, "_MOST_ROWS", {})


@pytest.fixture(params=library.ISAS)
def isa(request, always_compiled) -> str:
    """Run the test once for each instruction set that the library has a path for."""
    if library.unavailable() is not None:
        pytest.skip(f"no compiled kernels: {library.unavailable()}")
    if request.param not in library.available_isas():
        pytest.skip(f"this processor has no {request.param}")
    with library.use_isa(request.param):
        yield request.param
