from __future__ import annotations

import numpy as np
import pytest
import torch

from glm_core.checkpoint.int8 import dequantize_rows, dequantize_tensors, quantize_rows
from glm_core.checkpoint.int8 import quantize_tensors as quantize


@pytest.mark.parametrize("size", [1e-5, 1e-3, 1.0, 300.0])
def test_error_is_half_a_level_when_quantized(size: float) -> None:
    weight = torch.randn(33, 65) * size
    levels, scale = quantize_rows(weight)
    assert levels.dtype == torch.int8 and scale.dtype == torch.float16
    back = dequantize_rows(levels, scale, torch.float32)
    largest = np.abs(weight.numpy()).max(axis=1, keepdims=True)
    level = largest / 127 * (1 + 2**-9) + 2**-23  # with the scale rounded up to fp16
    assert (np.abs(back.numpy() - weight.numpy()) <= 0.501 * level).all()


def test_zeros_and_extremes_survive_when_quantized() -> None:
    weight = torch.tensor([[0.0, 0.0], [1e-9, -1e-9], [-5.0, 5.0], [1e7, 1.0]])
    levels, scale = quantize_rows(weight)
    back = dequantize_rows(levels, scale, torch.float32)
    assert torch.isfinite(back).all() and (back[0] == 0).all()
    torch.testing.assert_close(back[2], weight[2], rtol=1e-3, atol=0)
    assert levels[2].tolist() == [-127, 127]


def test_names_and_vectors_come_back_when_tensors_are_dequantized() -> None:
    tensors = {"a.weight": torch.randn(4, 8), "a.bias": torch.randn(4), "ids": torch.arange(3)}
    stored = quantize(tensors)
    assert stored.keys() == tensors.keys() | {"a.weight_scale"}
    back = dequantize_tensors(stored, torch.float32)
    assert back.keys() == tensors.keys()
    torch.testing.assert_close(back["a.weight"], tensors["a.weight"], atol=0.02, rtol=0)
    assert torch.equal(back["ids"], tensors["ids"])
