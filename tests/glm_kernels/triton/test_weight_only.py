"""Products with int4 and int8 weights against their formula, in every layout."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from glm_kernels import (
    PackedWeight,
    dequantize_packed,
    linear_weight_only,
    pack_weight,
    use_backend,
)
from glm_kernels.triton import tuning

from .conftest import DTYPES, error

LAYOUTS = [
    (4, 32, False),
    (4, 64, True),
    (4, 128, False),
    (4, None, False),
    (4, None, True),
    (8, 32, True),
    (8, 128, False),
    (8, None, False),
]

# Worst measured, output and gradient: fp32 2.6e-7, 2.2e-7; fp16 4.5e-4, 4.9e-4.
TOLERANCES = {torch.float32: (1e-6, 1e-6), torch.float16: (1e-3, 1e-3)}


def quantized(rows, columns, bits, group, zero_points, device) -> PackedWeight:
    generator = torch.Generator().manual_seed(rows + columns)
    top = 1 << (bits - 1)
    levels = torch.randint(-128, 128, (rows, columns * bits // 8), generator=generator)
    shape = (rows,) if group is None else (rows, columns // group)
    scales = torch.rand(shape, generator=generator).half() * 0.02 - 0.01
    zeros = torch.randint(-top, top, shape, generator=generator).to(torch.int8)
    packed = pack_weight(
        levels.to(torch.int8), scales, zeros if zero_points else None, bits=bits, group=group
    )
    return on_device(packed, device)


def on_device(packed, device):
    zeros = None if packed.zeros is None else packed.zeros.to(device)
    return replace(
        packed, levels=packed.levels.to(device), scales=packed.scales.to(device), zeros=zeros
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_product_equals_formula_when_shapes_are_odd(random, compare, device, layout, dtype):
    # one row and many; rows of the weight that end inside a block of 16
    for rows, columns, outputs in [(1, 256, 37), (5, 128, 19)]:
        packed = quantized(outputs, columns, *layout, device)
        x, bias = random(rows, columns, dtype=dtype), random(outputs, dtype=dtype)
        out, grad = compare(lambda x, b, w=packed: linear_weight_only(x, w, b), x, bias)
        assert out < TOLERANCES[dtype][0] and grad < TOLERANCES[dtype][1]


@pytest.mark.parametrize(("bits", "columns"), [(4, 2), (4, 34), (8, 1), (8, 151)])
def test_product_equals_formula_when_whole_rows_fill_no_unit(
    random, compare, device, bits, columns
):
    packed = quantized(19, columns, bits, None, bits == 8, device)
    for rows in (1, 3):
        x = random(rows, 1, columns)
        assert max(compare(lambda x: linear_weight_only(x, packed), x)) < 2e-6


def test_product_equals_formula_when_blocks_are_small(random, compare, device):
    packed = quantized(50, 384, 4, 32, True, device)
    config = {"BLOCK_M": 16, "BLOCK_N": 16, "BLOCK_K": 64, "num_warps": 4, "num_stages": 1}
    with tuning.use_config("weight_only_matrix", config):
        assert max(compare(lambda x: linear_weight_only(x, packed), random(21, 384))) < 1e-6
    with tuning.use_config("weight_only_vector", {"BLOCK_W": 16, "num_warps": 1}):
        assert max(compare(lambda x: linear_weight_only(x, packed), random(384))) < 1e-6


def test_gradient_equals_formula_when_the_weight_is_dequantized_in_parts(
    random, compare, device, monkeypatch
):
    from glm_kernels.triton import weight_only

    monkeypatch.setattr(weight_only, "CHUNK_BYTES", 4 * 16 * 64)
    packed = quantized(37, 64, 4, 32, True, device)
    assert max(compare(lambda x: linear_weight_only(x, packed), random(3, 64))) < 1e-6


def test_rows_are_taken_as_they_are_when_x_is_a_view_or_empty(random, device):
    packed = quantized(20, 64, 4, 32, False, device)
    weight = dequantize_packed(packed).double()
    x = random(64, 3, 2).to(device).transpose(0, 2)
    with use_backend("triton"):
        assert error(linear_weight_only(x, packed), x.double() @ weight.T) < 1e-6
        assert linear_weight_only(x[:0], packed).shape == (0, 3, 20)


def test_nan_stays_in_its_row(random, device):
    packed = quantized(20, 64, 4, 32, False, device)
    x = random(3, 64).to(device)
    x[1, 5] = float("nan")
    with use_backend("triton"):
        rows = linear_weight_only(x, packed).isnan().any(1)
    assert rows.tolist() == [False, True, False]


def test_product_traces_in_one_graph_when_compiled(random, device):
    torch._dynamo.reset()
    packed = quantized(20, 64, 4, 32, True, device)
    x, bias = random(3, 64).to(device).requires_grad_(), random(20).to(device).requires_grad_()
    with use_backend("triton", "linear_weight_only"):
        traced = torch.compile(linear_weight_only, fullgraph=True, backend="aot_eager")
        results = []
        for function in (traced, linear_weight_only):
            out = function(x, packed, bias)
            results.append((out, *torch.autograd.grad(out.square().sum(), (x, bias))))
    for ours, expected in zip(*results, strict=True):
        assert torch.equal(ours, expected)


def test_custom_ops_keep_their_promises_when_checked_by_torch(random, device):
    from glm_kernels.triton import weight_only

    packed = quantized(20, 64, 4, 32, True, device)
    weight = (packed.levels, packed.scales, packed.zeros)
    x, bias = random(2, 1, 64).to(device).requires_grad_(), random(20).to(device).requires_grad_()
    torch.library.opcheck(weight_only._linear_op, (x, *weight, bias, 20, 64, 4, 32))
    grad = random(3, 20).to(device)
    torch.library.opcheck(weight_only._linear_grad_op, (grad, *weight, 64, 4, 32))


@pytest.mark.gpu
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rows", [1, 2, 16, 50, 300])
def test_product_equals_formula_when_on_a_gpu(random, compare, device, rows, layout):
    packed = quantized(1000, 4096, *layout, device)
    for dtype, tolerance in ((torch.bfloat16, 8e-3), (torch.float16, 1e-3)):
        x = random(rows, 4096, dtype=dtype)
        assert max(compare(lambda x: linear_weight_only(x, packed), x)) < tolerance
