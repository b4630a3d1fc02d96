"""Weight-only products: every instruction set and the fallback against numpy in float64.

Errors are relative to |x| |w| of the row and the column, which bounds what rounding x may do.
"""

from __future__ import annotations

import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import glm_kernels
from glm_kernels import linear_weight_only, use_backend
from glm_kernels.cpu import library, weight_only

from .conftest import draw

LAYOUTS = [
    (4, 32, False),
    (4, 64, True),
    (4, 128, False),
    (4, None, False),
    (4, None, True),
    (8, 32, True),
    (8, 64, False),
    (8, 128, True),
    (8, None, False),
]
SHAPES = [(1, 128, 1), (3, 256, 37), (8, 384, 16), (9, 128, 50), (21, 640, 33)]
TOLERANCE = {
    (torch.float32, 15): 1e-4,  # measured 1.7e-5, with AMX 3.9e-5
    (torch.float32, 8): 5e-3,  # measured 2.4e-3
    (torch.bfloat16, 15): 2e-3,  # measured 9.6e-4: rounding of the result
    (torch.float16, 15): 2e-4,  # measured 1.1e-4
}


def error(actual: torch.Tensor, x: torch.Tensor, values: np.ndarray, bias=None) -> float:
    """Largest error relative to |x| |w|."""
    x_MK = x.double().numpy().reshape(-1, x.shape[-1])
    expected = x_MK @ values.T
    if bias is not None:
        expected += bias.double().numpy()
    size = np.linalg.norm(x_MK, axis=1)[:, None] * np.linalg.norm(values, axis=1)
    found = actual.double().numpy().reshape(expected.shape)
    return float((np.abs(found - expected) / (size + 1e-30)).max(initial=0))


@pytest.mark.parametrize(("bits", "group", "zero_points"), LAYOUTS)
@pytest.mark.parametrize("activation_bits", [15, 8])
def test_product_is_right_when_shapes_are_odd(
    isa, random, quantized, bits, group, zero_points, activation_bits
):
    for rows, columns, outputs in SHAPES:
        weight = quantized(outputs, columns, bits, group, zero_points)
        x = random(rows, columns)
        y = linear_weight_only(x, weight.packed, activation_bits=activation_bits)
        assert y.shape == (rows, outputs) and y.dtype == torch.float32
        assert error(y, x, weight.values) < TOLERANCE[torch.float32, activation_bits]


@pytest.mark.parametrize(("bits", "columns"), [(4, 2), (4, 34), (8, 1), (8, 33), (8, 151)])
def test_product_is_right_when_whole_rows_fill_no_unit(isa, random, quantized, bits, columns):
    weight = quantized(19, columns, bits, None, bits == 8)
    x = random(2, 3, columns)
    y = linear_weight_only(x, weight.packed)
    assert y.shape == (2, 3, 19)
    assert error(y, x, weight.values) < 6e-5  # measured 2.6e-5: few columns average little


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias_dtype", [torch.float32, None])
def test_product_is_right_when_dtype_is_low(isa, random, quantized, dtype, bias_dtype):
    weight = quantized(45, 256, 4, 32, False)
    x, bias = random(5, 256, dtype=dtype), random(45, dtype=bias_dtype or dtype)
    y = linear_weight_only(x, weight.packed, bias)
    assert y.dtype == dtype
    assert error(y, x, weight.values, bias) < TOLERANCE[dtype, 15]


@pytest.mark.parametrize(("bits", "group", "zero_points"), LAYOUTS)
@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_product_is_right_without_the_library(random, quantized, bits, group, zero_points, backend):
    weight = quantized(37, 256, bits, group, zero_points)
    x, bias = random(3, 256), random(37)
    with use_backend(backend):
        y = linear_weight_only(x, weight.packed, bias)
    assert error(y, x, weight.values, bias) < 1e-6  # measured 2e-7


def test_threads_change_nothing_when_rows_and_blocks_are_shared_out(isa, random, quantized):
    weight, x = quantized(2000, 1024, 4, 32, False), random(40, 1024)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(linear_weight_only(x, weight.packed))
    torch.set_num_threads(before)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_product_is_right_when_rows_exceed_one_chunk(isa, random, quantized):
    weight = quantized(17, 4096, 8, None, False)
    x = random(300, 4096)  # 1 MiB of activations holds 128 rows
    assert error(linear_weight_only(x, weight.packed), x, weight.values) < 4e-5


def test_strided_input_is_read_in_place_when_rows_are_apart(isa, random, quantized):
    weight, wide = quantized(20, 128, 4, 64, False), random(4, 300)
    dense = linear_weight_only(wide[:, 5:133].contiguous(), weight.packed)
    assert torch.equal(linear_weight_only(wide[:, 5:133], weight.packed), dense)
    assert torch.equal(linear_weight_only(wide.T[5:133].T, weight.packed), dense)
    columns = wide[:, 5:133].T.contiguous().T  # its last dimension is not dense
    assert torch.equal(linear_weight_only(columns, weight.packed), dense)


def test_result_is_empty_when_there_are_no_rows(isa, quantized):
    weight = quantized(20, 64, 4, 32, False)
    assert linear_weight_only(torch.zeros(0, 64), weight.packed).shape == (0, 20)
    assert linear_weight_only(torch.zeros(2, 0, 64), weight.packed).shape == (2, 0, 20)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("bits", [4, 8])
def test_row_is_nan_when_it_holds_a_number_that_is_not_finite(isa, random, quantized, bits, bad):
    weight, x = quantized(33, 128, bits, 32, False), random(10, 128)
    expected = linear_weight_only(x, weight.packed)
    x[3, 77] = bad
    y = linear_weight_only(x, weight.packed)
    assert y[3].isnan().all()
    rest = torch.arange(10) != 3
    assert torch.equal(y[rest], expected[rest])


def test_result_is_zero_when_input_is(isa, quantized):
    weight = quantized(33, 128, 8, 32, True)
    assert torch.equal(linear_weight_only(torch.zeros(3, 128), weight.packed), torch.zeros(3, 33))


@pytest.mark.parametrize("scale", [1e-36, 1e-25, 1e25, 1e36])
def test_product_is_right_when_input_is_tiny_or_huge(isa, random, quantized, scale):
    weight, x = quantized(20, 128, 4, 32, False), random(2, 128)
    y = linear_weight_only(x * scale, weight.packed)
    if scale < 1e-30:  # below 2^-100 it counts as zero: an error of less than 1e-30
        assert y.abs().max() < 1e-30
    else:
        assert error(y / scale, x, weight.values) < 4e-5


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_product_is_right_when_fuzzed(data):
    if library.unavailable() is not None:
        pytest.skip(f"no compiled kernels: {library.unavailable()}")
    bits = data.draw(st.sampled_from([4, 8]))
    group = data.draw(st.sampled_from([None, 32, 64, 128]))
    columns = data.draw(st.integers(1, 8)) * (group or 2 * data.draw(st.integers(1, 40)))
    rows, outputs = data.draw(st.integers(0, 20)), data.draw(st.integers(1, 70))
    weight = draw(outputs, columns, bits, group, data.draw(st.booleans()), seed=rows)
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
    x = torch.from_numpy(np.random.default_rng(rows).standard_normal((rows, columns))).to(dtype)
    bias = torch.linspace(-1, 1, outputs).to(dtype) if data.draw(st.booleans()) else None
    activation_bits = data.draw(st.sampled_from([15, 8]))
    with library.use_isa(data.draw(st.sampled_from(library.available_isas()))):
        y = linear_weight_only(x, weight.packed, bias, activation_bits=activation_bits)
    assert y.shape == (rows, outputs) and y.dtype == dtype
    limit = (1e-4 if activation_bits == 15 else 1e-2) + TOLERANCE.get((dtype, 15), 0)
    size = 0 if bias is None else torch.finfo(dtype).eps * 1e4  # the bias may outgrow |x| |w|
    assert error(y, x, weight.values, bias) < limit + size


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_gradients_are_right_when_the_input_and_the_bias_need_them(random, quantized, backend):
    if backend == "cpu" and library.unavailable() is not None:
        pytest.skip(f"no compiled kernels: {library.unavailable()}")
    weight = quantized(37, 128, 4, 32, True)
    x, bias = random(2, 3, 128).requires_grad_(), random(37).requires_grad_()
    grad = random(2, 3, 37)
    with use_backend(backend, "linear_weight_only"):
        y = linear_weight_only(x, weight.packed, bias)
    grad_x, grad_bias = torch.autograd.grad(y, (x, bias), grad)
    expected = grad.double().numpy() @ weight.values
    assert np.abs(grad_x.numpy() - expected).max() < 1e-5 * np.abs(expected).max()
    torch.testing.assert_close(grad_bias, grad.sum((0, 1)))


def test_op_traces_in_one_graph_when_compiled(random, quantized):
    torch._dynamo.reset()
    weight = quantized(37, 128, 4, 32, False)
    x, bias = random(3, 128).requires_grad_(), random(37)

    def loss(x):
        return linear_weight_only(x, weight.packed, bias).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for ours, expected in zip(
        (compiled(x), *torch.autograd.grad(compiled(x), x)),
        (loss(x), *torch.autograd.grad(loss(x), x)),
        strict=True,
    ):
        assert torch.equal(ours, expected)


def test_custom_op_keeps_its_promises_when_checked_by_torch(random, quantized):
    if library.unavailable() is not None:
        pytest.skip(f"no compiled kernels: {library.unavailable()}")
    packed = quantized(20, 64, 4, 32, True).packed
    arguments = (random(3, 64).requires_grad_(), packed.levels, packed.scales, packed.zeros)
    op = torch.ops.glm_kernels.linear_weight_only.default
    torch.library.opcheck(op, (*arguments, random(20).requires_grad_(), 20, 4, 32, 2))


def test_product_is_exact_when_the_kernels_have_no_path_for_the_dtype(random, quantized):
    weight, x = quantized(20, 64, 4, 32, True), random(2, 64, dtype=torch.float64).requires_grad_()
    y = linear_weight_only(x, weight.packed)
    assert error(y.detach(), x.detach(), weight.values) < 1e-15  # measured 9e-17
    (grad,) = torch.autograd.grad(y.sum(), x)
    expected = np.broadcast_to(weight.values.sum(0), (2, 64))
    np.testing.assert_allclose(grad.numpy(), expected, rtol=0, atol=1e-14)  # measured 6e-17


def test_torch_serves_with_one_warning_when_the_library_is_missing(tmp_path):
    program = (
        "import logging, torch, glm_kernels as k\n"
        "logging.basicConfig(format='%(message)s')\n"
        "levels = torch.arange(-64, 64, dtype=torch.int8).view(4, 32)\n"
        "packed = k.pack_weight(levels, torch.ones(4).half(), bits=8)\n"
        "x = torch.ones(2, 32)\n"
        "for _ in range(2): print(k.linear_weight_only(x, packed)[1].tolist())\n"
    )
    environment = {library.LIBRARY_VARIABLE: str(tmp_path / "none.so"), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["[-1552.0, -528.0, 496.0, 1520.0]"] * 2
    assert done.stderr.splitlines() == [
        "linear_weight_only: falling back from backend 'cpu': the compiled part is not there; "
        "install the package again where there is a C++ compiler (g++ or clang)"
    ]


def test_no_warning_is_given_when_the_library_is_there(caplog, random, quantized):
    if library.unavailable() is not None:
        pytest.skip(f"no compiled kernels: {library.unavailable()}")
    with caplog.at_level(logging.WARNING):
        linear_weight_only(random(1, 64), quantized(20, 64, 4, 32, False).packed)
    assert not caplog.records
    automatic = glm_kernels.dispatch("linear_weight_only", "cpu")
    assert automatic is glm_kernels.dispatch("linear_weight_only", "cpu", "cpu")


@pytest.mark.parametrize(("name", "rows", "bits"), [("portable", 5, 8), ("avx2", 129, 15)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_many_rows_are_left_to_torch_when_it_is_faster(
    random, quantized, monkeypatch, name, rows, bits, dtype
):
    if library.unavailable() is not None or name not in library.available_isas():
        pytest.skip(f"no compiled kernels of {name}")
    monkeypatch.setattr(weight_only, "_NUMBERS", 256 * 40)  # several chunks, the last one shorter
    weight, bias = quantized(91, 256, 4, 32, True), random(91, dtype=dtype)
    x = random(rows, 256, dtype=dtype)
    with library.use_isa(name):
        y = linear_weight_only(x, weight.packed, bias, activation_bits=bits)
        with monkeypatch.context() as patch:
            patch.setattr(weight_only, "_MOST_ROWS", {})
            rounded = linear_weight_only(x, weight.packed, bias, activation_bits=bits)
    assert y.dtype == dtype and y.shape == (rows, 91) and not torch.equal(y, rounded)
    # nothing is rounded but the results, and bf16 weights where bf16 is multiplied: measured 2.2e-7
    # and 1.3e-3
    assert error(y, x, weight.values, bias) < (1e-6 if dtype == torch.float32 else 4e-3)
