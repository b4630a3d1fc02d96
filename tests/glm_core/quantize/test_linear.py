from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from glm_core.quantize import (
    Layout,
    QuantizedEmbedding,
    QuantizedLinear,
    dequantize_rows,
    quantize_matrix,
)
from glm_core.quantize import product as product_module
from glm_core.quantize.weight import has_kernel
from glm_kernels import use_backend

from . import released_layout as oracle

BITS = pytest.mark.parametrize("bits", [8, 4])


def quantized(bits: int, bias: bool = True, **changes: int) -> QuantizedLinear:
    sizes = {"in_features": 34, "out_features": 21} | changes
    return QuantizedLinear.from_linear(nn.Linear(**sizes, bias=bias), Layout(bits))


def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks, the last one shorter."""
    monkeypatch.setattr(product_module, "_BLOCK_FEW", 34 * 8)
    monkeypatch.setattr(product_module, "_BLOCK_MANY", 34 * 8)


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
    # no kernel, which would round its input: that shows in so small a difference
    with torch.no_grad(), use_backend("torch", "linear_weight_only"):
        ahead, behind = layer(x + 1e-2 * direction), layer(x - 1e-2 * direction)
    quotient = (ahead.square().sum() - behind.square().sum()) / 2e-2
    assert x.grad is not None
    # a quadratic has no error beyond rounding: worst measured over 30 seeds 1.5e-4
    assert torch.isclose(quotient, (x.grad * direction).sum(), rtol=1e-3)


def test_half_precision_sums_blocks_in_fp32_when_differentiated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(product_module, "_BLOCK_FEW", 8)
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
    other = QuantizedLinear(34, 21, Layout(4))
    other.load_state_dict(state)
    x = torch.randn(2, 34)
    assert torch.equal(other(x), layer(x))


def test_weight_is_never_whole_in_memory_when_one_token_is_multiplied() -> None:
    layer = quantized(8, bias=False, in_features=2048, out_features=4096)
    x = torch.randn(1, 2048)
    seen: list[int] = []
    real = product_module.multiply_out

    def spy(levels: torch.Tensor, *rest: object) -> None:
        seen.append(levels.numel())
        real(levels, *rest)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch, use_backend("torch", "linear_weight_only"):
        patch.setattr(product_module, "multiply_out", spy)
        layer(x)
    assert sum(seen) == layer.weight.numel() and max(seen) <= 1 << 19


def test_error_names_the_rule_when_columns_are_odd() -> None:
    with pytest.raises(ValueError, match="with 33 columns cannot have 4 bits"):
        QuantizedLinear(33, 8, Layout(4))


LAYOUTS = [
    Layout(bits, group, sym) for bits in (8, 4) for group in (0, 32, 64) for sym in (True, False)
]
EVERY_LAYOUT = pytest.mark.parametrize("layout", LAYOUTS, ids=str)
packing = pytest.mark.skipif(
    not has_kernel(torch.device("cpu")), reason="the kernels are not compiled"
)


def grouped(layout: Layout, rows: int = 37, columns: int = 192, seed: int = 0) -> QuantizedLinear:
    torch.manual_seed(seed)
    return QuantizedLinear.from_linear(nn.Linear(columns, rows), layout)


@packing
@EVERY_LAYOUT
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("tokens", [1, 40])
def test_output_is_the_packed_ones_when_packed_on_the_way(
    layout: Layout, dtype: torch.dtype, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, real = [], product_module.pack_weight
    monkeypatch.setattr(product_module, "_PACKED_FEW", 192 * 16)
    monkeypatch.setattr(product_module, "_PACKED_MANY", 192 * 35)  # whole blocks: 32 rows

    def spy(levels: torch.Tensor, *rest: object, **layout: object) -> object:
        sizes.append(len(levels))
        return real(levels, *rest, **layout)  # type: ignore[arg-type]

    monkeypatch.setattr(product_module, "pack_weight", spy)
    layer = grouped(layout).to(dtype).requires_grad_(False)
    for shape in ((tokens, 192), (1, tokens, 192)):
        x = torch.randn(shape).to(dtype)
        found = layer(x)
        layer.pack()
        assert torch.equal(found, layer(x))
        layer.unpack()
    assert sizes == ([16, 16, 5] if tokens == 1 else [32, 5]) * 2


@packing
def test_weight_is_dequantized_when_something_is_differentiated() -> None:
    layer, x = grouped(Layout(4, 32)), torch.randn(2, 192)
    expected = nn.functional.linear(x, layer.dequantize(torch.float32), layer.bias)
    assert torch.allclose(layer(x), expected, rtol=0, atol=2e-6)  # measured 4.8e-7
    layer.requires_grad_(False)
    assert not torch.allclose(layer(x), expected, rtol=0, atol=2e-6)  # rounded to 15 bits
    exact = layer(x.requires_grad_())
    assert torch.allclose(exact, expected, rtol=0, atol=2e-6)
    with torch.no_grad():
        assert torch.equal(layer(x), layer(x.detach()))


def float_copy(layer: QuantizedLinear) -> nn.Linear:
    """The linear layer with the dequantized weight, in fp64."""
    exact = nn.Linear(layer.in_features, layer.out_features).double()
    with torch.no_grad():
        exact.weight.copy_(layer.dequantize(torch.float32))
        assert exact.bias is not None and layer.bias is not None
        exact.bias.copy_(layer.bias)
    return exact


# Worst measured of the largest value, over 30 seeds: dequantized block by block 1.8e-7, packed
# 7.5e-5, where activations are rounded to 15 bits; backward 4.0e-7 in both.
@EVERY_LAYOUT
@pytest.mark.parametrize(
    ("packed", "tolerance"), [(False, 2e-6), pytest.param(True, 3e-4, marks=packing)]
)
def test_product_and_gradient_are_those_of_the_dequantized_weight(
    layout: Layout, packed: bool, tolerance: float
) -> None:
    layer = grouped(layout)
    exact = float_copy(layer)
    if packed:
        layer.pack()
        assert layer.packed is not None and layer.weight is None
    x = torch.randn(2, 3, 192, requires_grad=True)
    y = x.detach().double().requires_grad_()
    upstream = torch.randn(2, 3, 37)
    found, expected = layer(x), exact(y)
    found.backward(upstream)
    expected.backward(upstream.double())
    assert x.grad is not None and y.grad is not None
    assert layer.bias is not None and exact.bias is not None
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()
    assert (x.grad - y.grad).abs().max() <= 2e-6 * y.grad.abs().max()
    assert torch.allclose(layer.bias.grad.double(), exact.bias.grad, rtol=1e-5, atol=1e-6)


@EVERY_LAYOUT
@packing
def test_stored_form_comes_back_when_packed(layout: Layout) -> None:
    layer = grouped(layout)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    layer.pack()
    after = layer.state_dict()
    assert after.keys() == before.keys()
    for name, value in before.items():
        assert value.dtype == after[name].dtype and torch.equal(value, after[name]), name
    other = grouped(layout, seed=1)
    other.pack()
    x = torch.randn(3, 192)
    assert not torch.equal(other(x), layer(x))
    other.load_state_dict(before)
    assert other.packed is not None and torch.equal(other(x), layer(x))
    layer.unpack()
    assert layer.packed is None and torch.equal(layer.weight, before["weight"])


@packing
def test_packed_layer_takes_no_more_memory_than_stored() -> None:
    layer = grouped(Layout(4, 32), rows=512, columns=1024)
    before = layer.num_bytes
    layer.pack()
    assert layer.num_bytes <= 1.001 * before == 1.001 * (512 * 1024 * 4.5 / 8)


@packing
@pytest.mark.parametrize("change", ["bfloat16", "double"])
def test_packed_scales_stay_when_the_model_changes_dtype(change: str) -> None:
    layer = grouped(Layout(4, 32, symmetric=False))
    layer.pack()
    x, expected = torch.randn(4, 192), float_copy(layer)
    getattr(layer, change)()
    assert layer.packed is not None and layer.packed.scales.dtype == torch.float16
    assert layer.packed.scales is layer.packed_scales
    found = layer(x.to(getattr(torch, change)))
    wanted = expected(x.double())
    # worst measured over 30 seeds: 4.7e-3 in bf16; 0 in fp64, which the kernels leave to torch
    tolerance = 1e-12 if change == "double" else 1.5e-2
    assert (found.double() - wanted).abs().max() <= tolerance * wanted.abs().max()
    assert found.dtype == getattr(torch, change)


def test_kernel_is_not_used_when_another_is_chosen() -> None:
    layer = grouped(Layout(4, 32))
    with use_backend("torch", "linear_weight_only"):
        layer.pack()
    assert layer.packed is None


@EVERY_LAYOUT
@pytest.mark.parametrize("shape", [(0, 192), (2, 0, 192)])
@pytest.mark.parametrize("packed", [False, pytest.param(True, marks=packing)])
def test_result_is_empty_when_the_batch_is(
    layout: Layout, shape: tuple[int, ...], packed: bool
) -> None:
    layer = grouped(layout)
    if packed:
        layer.pack()
    x = torch.zeros(shape, requires_grad=True)
    out = layer(x)
    out.sum().backward()
    assert out.shape == (*shape[:-1], 37) and x.grad is not None and x.grad.shape == shape


@pytest.mark.parametrize("packed", [False, pytest.param(True, marks=packing)])
def test_adapter_learns_on_a_frozen_base_as_on_its_numbers(packed: bool) -> None:
    """QLoRA: the loss falls, and every step is that of the same adapter on the float weight."""
    base = grouped(Layout(4, 32, symmetric=False), rows=24, columns=64).requires_grad_(False)
    exact = float_copy(base).float().requires_grad_(False)
    if packed:
        base.pack()
    x, target = torch.randn(32, 64), torch.randn(32, 24)
    losses = []
    for layer in (base, exact):
        torch.manual_seed(1)
        inner, down = nn.Linear(64, 64), nn.Linear(64, 4, bias=False)
        up = nn.Parameter(torch.zeros(24, 4))
        optimizer = torch.optim.AdamW([*inner.parameters(), *down.parameters(), up], lr=1e-2)
        curve = []
        for _ in range(40):
            hidden = inner(x).tanh()  # below the base: learns only by the gradient through it
            out = layer(hidden) + down(hidden) @ up.t()
            loss = (out - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curve.append(loss.item())
        losses.append(curve)
    assert losses[0][-1] < 0.6 * losses[0][0]
    # worst measured 1e-6 dequantized, 2e-4 packed
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)
    assert all(parameter.grad is None for parameter in base.parameters())


@EVERY_LAYOUT
@pytest.mark.parametrize("packed", [False, pytest.param(True, marks=packing)])
def test_rows_are_those_of_the_table_when_looked_up(layout: Layout, packed: bool) -> None:
    table = nn.Embedding(1100, 64).bfloat16()
    layer = QuantizedEmbedding.from_embedding(table, layout, is_head=True)
    expected = quantize_matrix(table.weight.detach(), layout).dequantize(torch.bfloat16)
    if packed:
        layer.pack()
        assert layer.packed is not None
    ids = torch.randint(0, 1100, (3, 50))
    assert torch.equal(layer(ids), expected[ids])
    assert layer(ids[:0]).shape == (0, 50, 64)
    assert layer.float()(ids).dtype == torch.float32


def test_embedding_stays_as_stored_when_it_is_no_head() -> None:
    layer = QuantizedEmbedding.from_embedding(nn.Embedding(30, 32), Layout(4, 32), is_head=False)
    layer.pack()
    assert layer.packed is None


def test_error_names_the_group_when_columns_are_not_divisible() -> None:
    with pytest.raises(ValueError, match=r"96 columns .* groups of 64: .* use group=32 or group=0"):
        QuantizedLinear(96, 8, Layout(4, 64))
    with pytest.raises(ValueError, match=r"34 columns .* groups of 32: .* use group=0"):
        QuantizedLinear(34, 8, Layout(8, 32))
