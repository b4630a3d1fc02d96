"""Every op traces without a graph break, and gives what it gives outside the compiler."""

from __future__ import annotations

import pytest
import torch

import glm_kernels
from glm_kernels import use_backend


def rope_all(x):
    tables = glm_kernels.rope_tables(torch.arange(x.shape[1])[None], 4, 1e4)
    y = glm_kernels.apply_rope(x, *tables, False) + glm_kernels.apply_rope(x, *tables, True)
    return glm_kernels.apply_rope_2d(y, *tables, *tables)


def softmax(x):
    rows = torch.arange(8)
    return glm_kernels.scale_mask_softmax(x @ x.transpose(-1, -2), rows[:3, None] >= rows[:3], 0.5)


def cross_entropy(x):
    labels = torch.arange(30) % 7
    labels[::4] = -100
    hidden = x.reshape(30, 8)
    return glm_kernels.fused_linear_cross_entropy(hidden, hidden[:9], labels, chunk_size=8)


OPS = {
    "rms_norm": lambda x: glm_kernels.rms_norm(x, x.flatten()[:8], 1e-5),
    "layer_norm": lambda x: glm_kernels.layer_norm(x, x.flatten()[:8], None, 1e-5),
    "rope": rope_all,
    "gelu": lambda x: glm_kernels.gelu(x, "tanh") + glm_kernels.gelu(x, "none"),
    "geglu": lambda x: glm_kernels.geglu(x, "second", "none"),
    "swiglu": glm_kernels.swiglu,
    "softmax": softmax,
    "cross_entropy": cross_entropy,
}


@pytest.mark.parametrize("name", OPS)
def test_op_traces_in_one_graph_when_compiled(random, name):
    torch._dynamo.reset()
    x = random(2, 5, 3, 8).requires_grad_()
    compiled = torch.compile(OPS[name], fullgraph=True, backend="aot_eager")
    results = []
    for function in (compiled, OPS[name]):
        out = function(x)
        results.append((out, *torch.autograd.grad(out.square().sum(), x)))
    for ours, expected in zip(*results, strict=True):
        # measured worst 9.5e-7 relative to the largest value
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_compiled_op_follows_the_choice_when_it_changes(random):
    torch._dynamo.reset()
    x = random(2, 8)
    compiled = torch.compile(glm_kernels.swiglu, fullgraph=True, backend="eager")
    expected = compiled(x)
    with use_backend("reference"):
        torch.testing.assert_close(compiled(x), expected)
    with pytest.raises(Exception, match="torch.compile cannot trace it"), use_backend("triton"):
        compiled(x)


def test_cross_entropy_keeps_its_dtype_when_compiled_under_autocast(random):
    torch._dynamo.reset()
    hidden, weight = random(20, 8).requires_grad_(), random(11, 8).requires_grad_()
    labels = torch.arange(20) % 11

    def loss(hidden, weight):
        with torch.autocast("cpu", torch.bfloat16):
            return glm_kernels.fused_linear_cross_entropy(hidden, weight, labels)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    results = []
    for function in (compiled, loss):
        out = function(hidden, weight)
        results.append((out, *torch.autograd.grad(out * 0.1, (hidden, weight))))
    for ours, expected in zip(*results, strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, expected)
