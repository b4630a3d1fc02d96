"""The compiled row operations and attention: every instruction set against formulas in fp64.

tests/glm_kernels/fuzz runs them at random shapes and layouts on the best instruction set.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import glm_kernels as kernels
from glm_kernels import VisibleKeys, reference, use_backend
from glm_kernels.cpu import library

SOURCES = str(Path(kernels.__file__).parents[1])
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Worst errors measured over all cases below, relative to the largest value: 5.5e-7, 7.8e-3, 9.8e-4,
# forward; 9.4e-7, 7.5e-3, 9.5e-4 backward.
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 1.2e-2, torch.float16: 1.5e-3}
WIDTHS = (2, 7, 16, 33, 77, 130)


def op_calls(draw, dtype, width):
    """Return {name: (op, tensors)}; each op takes the tensors in any dtype."""
    x, residual = draw(3, 5, width, dtype=dtype), draw(3, 5, width, dtype=dtype)
    weight, bias = draw(width, dtype=dtype), draw(width, dtype=dtype)
    heads = draw(2, 5, 3, 2 * width + 3, dtype=dtype)
    even = draw(2, 5, 3, 4 * width, dtype=dtype)
    gates = draw(3, 5, 2 * width, dtype=dtype, scale=2)
    positions = torch.arange(10).view(2, 5) * 3
    cos, sin = kernels.rope_tables(positions, 2 * width, 1e4)
    return {
        "rms_norm": (lambda x, w: kernels.rms_norm(x, w, 1e-5), [x, weight]),
        "layer_norm": (lambda x, w, b: kernels.layer_norm(x, w, b, 1e-5), [x, weight, bias]),
        "add_rms_norm": (
            lambda x, r, w: kernels.add_rms_norm(x, r, w, 1e-5),
            [x, residual, weight],
        ),
        "add_layer_norm": (
            lambda x, r, w, b: kernels.add_layer_norm(x, r, w, b, 1e-5),
            [x, residual, weight, bias],
        ),
        "rope_halves": (lambda x: kernels.apply_rope(x, cos, sin, False), [heads]),
        "rope_pairs": (lambda x: kernels.apply_rope(x, cos, sin, True), [heads]),
        "rope_2d": (lambda x: kernels.apply_rope_2d(x, cos, sin, sin, cos), [even]),
        "gelu_tanh": (lambda x: kernels.gelu(x, "tanh"), [gates]),
        "gelu_quick": (lambda x: kernels.gelu(x, "quick"), [gates]),
        "geglu": (lambda x: kernels.geglu(x, "second", "none"), [gates]),
        "swiglu": (kernels.swiglu, [gates]),
    }


OPS = tuple(op_calls(lambda *shape, **_: torch.zeros(shape), torch.float32, 2))


def run(op, tensors: list[Tensor]) -> list[Tensor]:
    """Return the results and the gradients for seeded gradients of the results."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    outs = op(*leaves)
    outs = list(outs) if isinstance(outs, tuple) else [outs]
    generator = torch.Generator().manual_seed(3)
    given = [torch.randn(out.shape, generator=generator).bfloat16() for out in outs]
    given = [grad.to(out.dtype) for grad, out in zip(given, outs, strict=True)]
    return [*(out.detach() for out in outs), *torch.autograd.grad(outs, leaves, given)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPS)
def test_op_is_right_when_widths_are_odd(isa, random, worst, name, dtype):
    for width in WIDTHS:
        op, tensors = op_calls(random, dtype, width)[name]
        with use_backend("cpu"):
            ours = run(op, tensors)
        with use_backend("reference"):
            exact = run(op, [tensor.double() for tensor in tensors])
        for found, expected in zip(ours, exact, strict=True):
            size = max(1.0, float(expected.abs().max()))
            assert found.dtype == dtype
            assert worst(found.double().numpy(), expected.numpy(), size) < TOLERANCE[dtype]


@pytest.mark.parametrize("name", OPS)
def test_gradients_change_nothing_when_they_are_recorded(random, name):
    op, tensors = op_calls(random, torch.float32, 33)[name]
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    for plain, recorded in zip(as_list(op(*tensors)), as_list(op(*leaves)), strict=True):
        assert torch.equal(plain, recorded) and recorded.requires_grad


def as_list(outs) -> list[Tensor]:
    return list(outs) if isinstance(outs, tuple) else [outs]


@pytest.mark.parametrize("name", OPS)
def test_threads_change_nothing_when_rows_are_shared_out(random, name):
    op, tensors = op_calls(random, torch.float32, 77)[name]
    big = [tensor.repeat(40, *[1] * (tensor.dim() - 1)) for tensor in tensors[:1]]
    big += [tensor.repeat(40, 1, 1) if tensor.dim() > 1 else tensor for tensor in tensors[1:]]
    if name.startswith("rope"):
        big = tensors  # tables belong to the shape
    before, results = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        results.append(run(op, big))
    torch.set_num_threads(before)
    for one, three in zip(*results, strict=True):
        assert torch.equal(one, three)


@pytest.mark.parametrize("name", OPS)
def test_result_is_empty_when_there_are_no_rows(isa, random, name):
    if name.startswith("rope"):
        pytest.skip("tables belong to the shape: below")
    op, tensors = op_calls(random, torch.float32, 16)[name]
    tensors = [tensor[:0] if tensor.dim() > 1 else tensor for tensor in tensors]
    for found in run(op, tensors)[: len(as_list(op(*tensors)))]:
        assert found.shape[0] == 0


def test_rope_is_empty_when_there_are_no_tokens(isa):
    cos, sin = kernels.rope_tables(torch.zeros(2, 0), 8, 1e4)
    assert kernels.apply_rope(torch.zeros(2, 0, 3, 8), cos, sin).shape == (2, 0, 3, 8)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["rms_norm", "layer_norm", "geglu", "swiglu", "gelu_tanh"])
def test_row_is_not_finite_when_it_holds_a_number_that_is_not(isa, random, name, bad):
    op, (x, *weights) = op_calls(random, torch.float32, 33)[name]
    expected = op(x, *weights)
    x = x.clone()
    x[1, 2, 20] = bad
    with use_backend("reference"):
        formula = op(x, *weights)
    found = op(x, *weights)
    assert torch.equal(found.isnan(), formula.isnan())
    rest = torch.ones(3, 5, dtype=torch.bool)
    rest[1, 2] = False
    assert torch.equal(found[rest], expected[rest])


@pytest.mark.parametrize("scale", [1e-30, 1e4, 1e12, 1e18])
@pytest.mark.parametrize("name", ["geglu", "swiglu", "gelu_tanh", "gelu_quick"])
def test_activation_saturates_when_its_input_is_huge(isa, random, name, scale):
    op, (x,) = op_calls(random, torch.float32, 33)[name]
    x = x * scale
    x[..., 33:] /= scale if name == "swiglu" else 1
    if name == "geglu":
        x[..., :33] /= scale
    ours = run(op, [x])
    with use_backend("reference"):
        exact = run(op, [x.double()])
    for found, expected in zip(ours, exact, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=2e-6, atol=1e-6)


def test_sums_do_not_cancel_when_the_mean_is_large(isa, random):
    x = random(4, 1000) + 1000
    weight, bias = random(1000), random(1000)
    found = kernels.layer_norm(x, weight, bias, 1e-5)
    exact = reference.layer_norm(x.double(), weight.double(), bias.double(), 1e-5)
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=2e-4)  # measured 7e-5


@pytest.mark.parametrize("name", OPS)
def test_op_falls_to_the_formula_when_dtype_is_double(random, name):
    op, tensors = op_calls(random, torch.float64, 7)[name]
    with use_backend("reference"):
        expected = as_list(op(*tensors))
    for found, plain in zip(as_list(op(*tensors)), expected, strict=True):
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, plain)


def attention_case(draw, dtype, batch, queries, columns, heads, kv_heads, head_dim):
    q = draw(batch, queries, heads, head_dim, dtype=dtype)
    cache = draw(2, batch, columns + 9, kv_heads, head_dim, dtype=dtype)
    k, v = cache[:, :, :columns]  # as a cache hands them out: rows with room behind
    last = torch.arange(columns - queries, columns)
    pads = (torch.arange(batch) * 5 % max(1, columns - queries))[:, None]
    start = pads.expand(batch, queries).int().contiguous()
    stop = (last[None] + 1).expand(batch, queries).int().contiguous()
    return q, k, v, start, stop


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("batch", "queries", "columns", "heads", "kv_heads", "head_dim"),
    [
        (1, 1, 1, 1, 1, 16),
        (3, 1, 130, 8, 2, 64),
        (2, 3, 70, 5, 5, 32),
        (2, 5, 200, 6, 2, 80),
        (1, 2, 65, 32, 2, 128),
        (2, 1, 64, 3, 1, 256),
    ],
)
@pytest.mark.parametrize("sink", [0, 3])
def test_attention_is_right_when_texts_are_padded(
    isa, random, batch, queries, columns, heads, kv_heads, head_dim, dtype, sink
):
    case = attention_case(random, dtype, batch, queries, columns, heads, kv_heads, head_dim)
    q, k, v, start, stop = case
    found = kernels.attention(q, k, v, VisibleKeys(start, stop, sink), 0.2)
    exact = reference.attention(q.double(), k.double(), v.double(), start, stop, sink, 0.2)
    assert found.dtype == dtype
    # measured 9.5e-7, 7.8e-3, 9.8e-4: rounding of the result
    tolerance = {torch.float32: 4e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}[dtype]
    assert (found.double() - exact).abs().max() < tolerance


def test_attention_is_zero_when_a_query_sees_nothing(isa, random):
    q, k, v, start, stop = attention_case(random, torch.float32, 2, 3, 100, 4, 2, 32)
    stop[1, 1] = start[1, 1] = 40
    stop[0] = 0
    found = kernels.attention(q, k, v, VisibleKeys(start, stop), 0.2)
    exact = reference.attention(q.double(), k.double(), v.double(), start, stop, 0, 0.2)
    assert not found[0].any() and not found[1, 1].any()
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-6)


def test_attention_ignores_what_is_not_seen_when_the_cache_holds_rubbish(isa, random):
    q, k, v, start, stop = attention_case(random, torch.float32, 1, 1, 100, 4, 2, 32)
    start[0, 0] = 64
    expected = kernels.attention(q, k, v, VisibleKeys(start, stop), 0.2)
    k[:, :64], v[:, :64] = float("nan"), float("nan")
    assert torch.equal(kernels.attention(q, k, v, VisibleKeys(start, stop), 0.2), expected)


@pytest.mark.parametrize("queries", [1, 3])
def test_attention_splits_over_threads_when_told(random, queries):
    q, k, v, start, stop = attention_case(random, torch.float32, 3, queries, 3000, 8, 2, 64)
    before, results = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        results.append(kernels.attention(q, k, v, VisibleKeys(start, stop), 0.1))
    torch.set_num_threads(before)
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-6)


def test_attention_is_the_formula_when_gradients_are_wanted(random):
    q, k, v, start, stop = attention_case(random, torch.float32, 2, 3, 20, 4, 2, 32)
    q.requires_grad_()
    out = kernels.attention(q, k, v, VisibleKeys(start, stop), 0.2)
    assert torch.autograd.grad(out.sum(), q)[0].shape == q.shape


class Sample(torch.nn.Module):
    """Every operation once."""

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        y = kernels.rms_norm(x, weight, 1e-5)
        y, stream = kernels.add_rms_norm(y, x, weight, 1e-5)
        y = kernels.layer_norm(y, weight, None, 1e-5)
        y, stream = kernels.add_layer_norm(y, stream, weight, weight, 1e-5)
        tables = kernels.rope_tables(torch.arange(5)[None], 8, 1e4)
        y = kernels.apply_rope(y, *tables) + kernels.apply_rope_2d(stream, *tables, *tables)
        y = torch.cat((kernels.swiglu(y), kernels.geglu(y, "second", "none")), -1)
        return kernels.gelu(y, "tanh")


class Attend(torch.nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, start: Tensor, stop: Tensor) -> Tensor:
        return kernels.attention(q, k, v, VisibleKeys(start, stop), 0.2)


def test_compiled_graph_holds_the_operations_when_they_are_chosen_by_name(random):
    torch._dynamo.reset()
    x, weight = random(2, 5, 3, 16).requires_grad_(), random(16).requires_grad_()
    compiled = torch.compile(Sample(), fullgraph=True, backend="aot_eager")
    with use_backend("cpu"):
        results = []
        for function in (compiled, Sample()):
            out = function(x, weight)
            results.append((out, *torch.autograd.grad(out.square().sum(), (x, weight))))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_exported_program_holds_the_operations_when_they_are_chosen_by_name(random):
    x, weight = random(2, 5, 3, 16), random(16)
    case = attention_case(random, torch.float32, 2, 1, 40, 4, 2, 32)
    with use_backend("cpu"):
        sample = torch.export.export(Sample(), (x, weight))
        attend = torch.export.export(Attend(), case)
    code = str(sample.graph) + str(attend.graph)
    for name in ("norm", "add_norm", "rotate", "gate", "decode_attention"):
        assert f"torch.ops.glm_kernels.{name}.default" in code
    torch.testing.assert_close(sample.module()(x, weight), Sample()(x, weight))
    assert torch.equal(attend.module()(*case), Attend()(*case))


def test_compiler_fuses_the_formula_itself_when_nothing_is_chosen(random):
    exported = torch.export.export(Sample(), (random(2, 5, 3, 16), random(16)))
    assert "torch.ops.glm_kernels" not in str(exported.graph)


def test_custom_ops_keep_their_promises_when_checked_by_torch(random):
    if library.unavailable() is not None:
        pytest.skip(f"no compiled kernels: {library.unavailable()}")
    ops = torch.ops.glm_kernels
    x, y = random(4, 3, 8).requires_grad_(), random(4, 3, 8).bfloat16().requires_grad_()
    weight, bias = random(8).requires_grad_(), random(8).requires_grad_()
    heads, tables = random(2, 3, 2, 16).requires_grad_(), (random(2, 3, 4), random(2, 3, 4))
    case = attention_case(random, torch.float32, 2, 1, 20, 4, 2, 32)
    for op, arguments in (
        (ops.norm, (x, weight, None, 1e-5, False)),
        (ops.norm, (y, weight, bias, 1e-5, True)),
        (ops.add_norm, (x, y, weight, None, 1e-5, False)),
        (ops.add_norm, (x, y, weight, bias, 1e-5, True)),
        (ops.rotate, (heads, *tables, None, None, True, False)),
        (ops.rotate, (heads, *tables, *tables, False, False)),
        (ops.gate, (x, "silu", "first")),
        (ops.gate, (x, "quick", None)),
        (ops.gate_grad, (random(4, 3, 4), x.detach(), "tanh", "second")),
        (ops.decode_attention, (*case, 0, 0.2)),
    ):
        torch.library.opcheck(op.default, arguments)


def test_torch_serves_with_one_warning_when_the_library_is_missing(tmp_path):
    program = (
        "import logging, torch, glm_kernels as k\n"
        "logging.basicConfig(format='%(message)s')\n"
        "x, w = torch.tensor([[3.0, 4.0]]), torch.ones(2)\n"
        "for _ in range(2):\n"
        "    print(k.rms_norm(x, w, 1e-5).mul(1e3).round().tolist(), k.swiglu(x).shape)\n"
    )
    environment = {library.LIBRARY_VARIABLE: str(tmp_path / "none.so"), "PYTHONPATH": SOURCES}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["[[849.0, 1131.0]] torch.Size([1, 1])"] * 2
    assert done.stderr.splitlines() == [
        "rms_norm: falling back from backend 'cpu': the compiled part is not there; "
        "install the package again where there is a C++ compiler (g++ or clang)"
    ]
