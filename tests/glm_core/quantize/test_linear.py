from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from glm_core.quantize import RowQuantizedLinear, dequantize_rows
from glm_core.quantize import linear as linear_module

from . import released_layout as oracle

BITS = pytest.mark.parametrize("bits", [8, 4])


def quantized(bits: int, bias: bool = True, **changes: int) -> RowQuantizedLinear:
    sizes = {"in_features": 34, "out_features": 21} | changes
    return RowQuantizedLinear.from_linear(nn.Linear(**sizes, bias=bias), bits)


def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks, the last one shorter."""
    monkeypatch.setattr(linear_module, "_BLOCK_FEW", 34 * 8)
    monkeypatch.setattr(linear_module, "_BLOCK_MANY", 34 * 8)


# Worst measured relative to the largest output, over 30 seeds: fp32 4.9e-4 (our weight is the exact
# product, theirs is rounded to fp16), bf16 1.1e-2 (the weight, the product and the sum with the
# bias are rounded), fp16 7.4e-4.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 2e-2, torch.float16: 2e-3}


@BITS
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(34,), (1, 34), (3, 1, 34), (2, 5, 34), (0, 34)])
def test_output_is_that_of_the_original_values_when_multiplied(
    bits: int, dtype: torch.dtype, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_blocks(monkeypatch)
    layer = quantized(bits).to(dtype)
    x = torch.randn(shape).to(dtype)
    weight = oracle.extract(layer.weight.numpy(), layer.weight_scale.numpy(), bits)
    expected = x.double().numpy() @ weight.astype(np.float64).T
    expected = expected + layer.bias.detach().double().numpy()
    found = layer(x)
    assert found.dtype == dtype and found.shape == expected.shape
    error = np.abs(found.detach().double().numpy() - expected)
    # our fp32 weight is the exact product, theirs is rounded to fp16: 2^-11 apart
    rounding = 5e-4 if dtype == torch.float32 else 0.0
    assert (
        error <= (TOLERANCE[dtype] + rounding) * max(1.0, np.abs(expected).max(initial=0))
    ).all()


@BITS
def test_output_is_exact_to_fp32_when_the_weight_is_dequantized(
    bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_blocks(monkeypatch)
    layer, x = quantized(bits), torch.randn(4, 34)
    weight = dequantize_rows(layer.weight, layer.weight_scale, bits, torch.float32)
    expected = nn.functional.linear(x.double(), weight.double(), layer.bias.double())
    # worst measured 3.1e-7
    assert (layer(x).double() - expected).abs().max() <= 1e-6 * expected.abs().max()


@BITS
@pytest.mark.parametrize("shape", [(34,), (1, 34), (2, 3, 34)])
def test_gradient_is_that_of_a_linear_when_differentiated(
    bits: int, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_blocks(monkeypatch)
    layer, x = quantized(bits), torch.randn(shape, requires_grad=True)
    weight = dequantize_rows(layer.weight, layer.weight_scale, bits, torch.float32)
    upstream = torch.randn(*shape[:-1], 21)
    layer(x).backward(upstream)
    expected = upstream.double() @ weight.double()
    assert x.grad is not None and layer.bias is not None and layer.bias.grad is not None
    # worst measured 1.9e-7 of the largest slope
    assert (x.grad.double() - expected).abs().max() <= 1e-6 * expected.abs().max()
    summed = upstream.reshape(-1, 21).sum(0)
    assert torch.allclose(layer.bias.grad, summed, rtol=1e-6, atol=1e-6)
    assert layer.weight.grad is None


def test_slope_is_the_difference_quotient_when_checked_numerically() -> None:
    layer, x = quantized(4), torch.randn(3, 34, requires_grad=True)
    direction = torch.randn(3, 34)
    (layer(x).square().sum()).backward()
    with torch.no_grad():
        ahead, behind = layer(x + 1e-2 * direction), layer(x - 1e-2 * direction)
    quotient = (ahead.square().sum() - behind.square().sum()) / 2e-2
    assert x.grad is not None
    # a quadratic has no error beyond rounding: worst measured over 30 seeds 1.5e-4
    assert torch.isclose(quotient, (x.grad * direction).sum(), rtol=1e-3)


def test_half_precision_sums_blocks_in_fp32_when_differentiated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(linear_module, "_BLOCK_FEW", 8)
    layer = quantized(8, bias=False, in_features=8, out_features=400)
    x = torch.zeros(1, 8, dtype=torch.bfloat16, requires_grad=True)
    layer(x).backward(torch.ones(1, 400, dtype=torch.bfloat16))
    weight = dequantize_rows(layer.weight, layer.weight_scale, 8, torch.bfloat16)
    assert x.grad is not None
    error = (x.grad.double() - weight.double().sum(0)).abs().max()
    # worst measured 0.0039 of the largest; summed in bf16 it is 0.05
    assert error <= 6e-3 * weight.double().sum(0).abs().max()


def test_autocast_decides_the_dtype_when_on() -> None:
    layer, x = quantized(8), torch.randn(2, 34)
    with torch.autocast("cpu", torch.bfloat16):
        inside = layer(x)
    assert inside.dtype == torch.bfloat16
    assert torch.equal(inside, layer(x.bfloat16()))


@pytest.mark.parametrize("change", ["bfloat16", "float", "double"])
def test_scales_stay_fp16_when_the_model_changes_dtype(change: str) -> None:
    layer = quantized(8)
    before = layer.weight_scale.clone()
    getattr(layer, change)()
    assert layer.weight_scale.dtype == torch.float16
    assert torch.equal(layer.weight_scale, before)
    assert layer.bias is not None and layer.bias.dtype == getattr(torch, change)


def test_names_are_those_of_the_released_files_when_saved() -> None:
    layer = quantized(4)
    state = layer.state_dict()
    assert {name: value.dtype for name, value in state.items()} == {
        "weight": torch.int8,
        "weight_scale": torch.float16,
        "bias": torch.float32,
    }
    assert state["weight"].shape == (21, 17)
    other = RowQuantizedLinear(34, 21, bits=4)
    other.load_state_dict(state)
    x = torch.randn(2, 34)
    assert torch.equal(other(x), layer(x))


def test_weight_is_never_whole_in_memory_when_one_token_is_multiplied() -> None:
    layer = quantized(8, bias=False, in_features=2048, out_features=4096)
    x = torch.randn(1, 2048)
    seen: list[int] = []
    real = linear_module.multiply_out

    def spy(levels: torch.Tensor, *rest: object) -> None:
        seen.append(levels.numel())
        real(levels, *rest)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear_module, "multiply_out", spy)
        layer(x)
    assert sum(seen) == layer.weight.numel() and max(seen) <= 1 << 19


def test_error_names_the_rule_when_columns_are_odd() -> None:
    with pytest.raises(ValueError, match="with 33 columns cannot have 4 bits"):
        RowQuantizedLinear(33, 8, bits=4)
