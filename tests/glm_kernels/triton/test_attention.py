"""Attention over intervals of keys against its formula, forward and backward."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

import glm_kernels
from glm_kernels import VisibleKeys, use_backend
from glm_kernels.triton import tuning

from .conftest import DTYPES, error


def blocks(rows, keys):
    """Launch every kernel with these block sizes."""
    config = {"BLOCK_M": rows, "BLOCK_N": keys, "num_warps": 4, "num_stages": 1}
    stack = ExitStack()
    for op in ("attention_forward", "attention_grad_q", "attention_grad_kv"):
        stack.enter_context(tuning.use_config(op, config))
    return stack


T = 37
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

# Worst measured, output and gradient: fp32 3.4e-7, 4.5e-7; fp16 4.4e-4, 6.1e-4.
TOLERANCES = {torch.float32: 1e-6, torch.float16: 1.5e-3}


def bounds(rows):
    """start and stop of each row of the batch, from functions of the query."""
    start = [[begin(t) for t in range(T)] for begin, _ in rows]
    stop = [[end(t) for t in range(T)] for _, end in rows]
    return torch.tensor(start, dtype=torch.int32), torch.tensor(stop, dtype=torch.int32)


MASKS = {
    "causal": (bounds([(lambda t: 0, lambda t: t + 1)]), 0),
    "full": (bounds([(lambda t: 0, lambda t: T)]), 0),
    "prefix": (
        bounds([(lambda t: 0, lambda t: max(t + 1, 20)), (lambda t: 0, lambda t: max(t + 1, 3))]),
        0,
    ),
    "packed": (
        bounds(
            [
                (lambda t: 0 if t < 18 else 18, lambda t: max(t + 1, 9 if t < 18 else 30)),
                (lambda t: t // 12 * 12, lambda t: t + 1),
            ]
        ),
        0,
    ),
    "empty_rows": (bounds([(lambda t: 0, lambda t: t % 5), (lambda t: t, lambda t: t - 3)]), 0),
    "sink": (bounds([(lambda t: max(0, t - 6), lambda t: t + 1)]), 5),
    "beyond": (bounds([(lambda t: t - 100, lambda t: t + 50)]), 99),
}


def call(mask, device):
    (start, stop), sink = MASKS[mask]
    visible = VisibleKeys(start.to(device), stop.to(device), sink)
    return lambda q, k, v: glm_kernels.attention(q, k, v, visible, 0.3)


def draw(random, heads, kv_heads, size, dtype, keys=T):
    shapes = (T, heads), (keys, kv_heads), (keys, kv_heads)
    return [random(2, *shape, size, dtype=dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mask", MASKS)
def test_attention_equals_formula_for_every_mask(random, compare, device, mask, dtype):
    with blocks(16, 16):
        errors = compare(call(mask, device), *draw(random, 2, 1, 10, dtype))
    assert max(errors) < TOLERANCES[dtype]


@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(3, 1, 40), (2, 2, 16), (6, 2, 5)])
def test_attention_equals_formula_when_heads_are_grouped(
    random, compare, device, heads, kv_heads, size
):
    errors = compare(call("prefix", device), *draw(random, heads, kv_heads, size, torch.float32))
    assert max(errors) < TOLERANCES[torch.float32]


@pytest.mark.parametrize("mask", ["causal", "sink", "empty_rows"])
def test_attention_equals_formula_when_blocks_are_not_square(random, compare, device, mask):
    for sizes in ((32, 16), (16, 32)):
        with blocks(*sizes):
            errors = compare(call(mask, device), *draw(random, 2, 2, 8, torch.float32))
        assert max(errors) < TOLERANCES[torch.float32]


@pytest.mark.parametrize("sink", [0, 3])
def test_keys_are_shared_out_when_one_token_is_decoded(random, compare, device, sink):
    start, stop = (
        torch.tensor([[x], [y]], dtype=torch.int32) for x, y in ((0, 1000), (1100, 1061))
    )
    visible = VisibleKeys(start.to(device), stop.to(device), sink)
    q, k, v = random(2, 1, 4, 8), random(2, 1100, 1, 8), random(2, 1100, 1, 8)
    errors = compare(lambda q, k, v: glm_kernels.attention(q, k, v, visible, 0.3), q, k, v)
    assert max(errors) < TOLERANCES[torch.float32]


@settings(max_examples=12, deadline=None, derandomize=True)
@drawn(
    queries=st.integers(1, 40),
    keys=st.integers(1, 40),
    group=st.sampled_from([1, 3]),
    sink=st.integers(0, 9),
    rows=st.sampled_from([16, 32]),
    seed=st.integers(0, 1000),
)
def test_attention_equals_formula_when_intervals_are_arbitrary(
    queries, keys, group, sink, rows, seed
):
    generator = torch.Generator().manual_seed(seed)
    bounds = torch.randint(-3, keys + 4, (2, 1, queries), generator=generator, dtype=torch.int32)
    bounds[1, :, queries // 2 :] = keys  # so that whole blocks are visible too
    bounds[0, :, queries // 2 :] //= 4
    tensors = [
        torch.randn(1, length, heads, 6, generator=generator, dtype=torch.float64)
        for length, heads in ((queries, group), (keys, 1), (keys, 1))
    ]
    results = []
    for backend, dtype in (("triton", torch.float32), ("reference", torch.float64)):
        given = [x.to(DEVICE, dtype).requires_grad_() for x in tensors]
        with use_backend(backend), blocks(rows, 48 - rows):
            visible = VisibleKeys(*bounds.to(DEVICE), sink)
            out = glm_kernels.attention(*given, visible, 0.4)
        weights = torch.linspace(-1, 1, out.numel(), device=DEVICE, dtype=dtype).view(out.shape)
        results.append((out, *torch.autograd.grad((out * weights).sum(), given)))
    for ours, expected in zip(*results, strict=True):
        # measured worst 2.2e-6; a gradient may be 0 but for rounding, where one key alone is seen
        torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-5)


def test_views_are_taken_as_they_are(random, device):
    fused = random(1, T, 2, 3 * 8).to(device)
    q, k, v = fused.split(8, dim=-1)
    with use_backend("triton"):
        out = call("causal", device)(q, k, v)
    with use_backend("reference"):
        expected = call("causal", device)(*(part.double() for part in (q, k, v)))
    assert error(out, expected) < 1e-6


def test_torch_backend_equals_formula(random):
    tensors = draw(random, 4, 2, 8, torch.float32)
    for mask in MASKS:
        results = []
        for backend in ("torch", "reference"):
            with use_backend(backend):
                results.append(call(mask, "cpu")(*tensors))
        assert error(*results) < 1e-6, mask


def test_attention_traces_in_one_graph_when_compiled(random, device):
    torch._dynamo.reset()
    tensors = [x.to(device).requires_grad_() for x in draw(random, 2, 1, 8, torch.float32)]
    with use_backend("triton", "attention"):
        eager = call("prefix", device)
        traced = torch.compile(eager, fullgraph=True, backend="aot_eager")
        results = [
            torch.autograd.grad(function(*tensors).square().sum(), tensors)
            for function in (traced, eager)
        ]
    for ours, expected in zip(*results, strict=True):
        assert torch.equal(ours, expected)


def test_custom_ops_keep_their_promises_when_checked_by_torch(random, device):
    from glm_kernels.triton import attention

    q, k, v = (random(1, 3, heads, 8).to(device) for heads in (4, 2, 2))
    start = torch.zeros(1, 3, dtype=torch.int32, device=device)
    bounds = (start, start + 2, 1, 0.3)
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    torch.library.opcheck(attention._forward_op, (*leaves, *bounds))
    out, lse = attention._forward_op(q, k, v, *bounds)
    torch.library.opcheck(attention._backward_op, (out, q, k, v, *bounds, out, lse))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("size", [64, 80, 128, 256])
def test_attention_equals_formula_when_on_a_gpu(random, compare, device, size, dtype):
    t = torch.arange(1000, dtype=torch.int32, device=device)[None]
    visible = VisibleKeys(t // 400 * 400, torch.maximum(t + 1, t // 400 * 400 + 100), 2)
    tensors = [random(2, 1000, heads, size, dtype=dtype) for heads in (8, 2, 2)]
    errors = compare(lambda *qkv: glm_kernels.attention(*qkv, visible, size**-0.5), *tensors)
    assert max(errors) < (1.5e-2 if dtype == torch.bfloat16 else TOLERANCES[dtype])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": torch.zeros(1, T, 3, 8), "v": torch.zeros(1, T, 3, 8)}, "must be a multiple"),
        ({"q": torch.zeros(1, T, 2, 8).half()}, "they must be of one floating-point dtype"),
        ({"v": torch.zeros(1, T, 2, 7)}, r"they must be \[B, T, N, H\]"),
        ({"q": torch.zeros(1, 4, 2, 8)}, r"start is torch.int32 of shape \[1, 37\]: it must be"),
    ],
)
def test_tensors_that_do_not_belong_together_are_refused(change, message):
    tensors = {name: torch.zeros(1, T, 2, 8) for name in "qkv"} | change
    with pytest.raises(ValueError, match=message):
        call("causal", "cpu")(**tensors)
