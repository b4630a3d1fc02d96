"""Masks as blocks of queries and keys, and attention by calls of xformers' operator.

The operator has no kernel for a CPU. Here it is xformers' own reference of it where xformers is
installed, and always a double of the few masks that are used, written from their documentation.
"""

import sys
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import pytest
import torch

from glm_core.attention import (
    BACKENDS,
    Causal,
    Full,
    LeftPadded,
    MaskRequest,
    Prefixed,
    PrefixLM,
    Scaling,
    prepare_attention,
)
from glm_core.attention import xformers as backend
from glm_core.attention.triton import visible_keys
from glm_core.testing import assert_relative

from .numpy_oracle import attention, visible_matrix
from .test_backends import COLUMNS, MASKS, SHAPES, draw

CPU = torch.device("cpu")


@dataclass
class BlocksDouble:
    """Queries of a block see the keys of the same block."""

    q_sizes: list[int]
    k_sizes: list[int]
    causal: bool = False

    @classmethod
    def from_seqlens(cls, q_sizes, k_sizes, *, device):
        return cls(q_sizes, k_sizes)

    def make_causal_from_bottomright(self):
        return BlocksDouble(self.q_sizes, self.k_sizes, causal=True)

    def visible(self, q_len, k_len):
        assert (sum(self.q_sizes), sum(self.k_sizes)) == (q_len, k_len)
        seen, q, k = torch.zeros(q_len, k_len, dtype=torch.bool), 0, 0
        for q_size, k_size in zip(self.q_sizes, self.k_sizes, strict=True):
            block = torch.ones(q_size, k_size, dtype=torch.bool)
            seen[q : q + q_size, k : k + k_size] = (
                block.tril(k_size - q_size) if self.causal else block
            )
            q, k = q + q_size, k + k_size
        return seen


class CausalDouble:
    """The last query sees the last key."""

    def visible(self, q_len, k_len):
        return torch.ones(q_len, k_len, dtype=torch.bool).tril(k_len - q_len)


def operator_double(q, k, v, attn_bias=None, p=0.0, scale=None):
    assert q.shape[-1] % 8 == 0 and k.shape[:1] == q.shape[:1] and p == 0.0
    if q.dim() == 5:
        assert not q.requires_grad, "no backward knows groups of heads"
        q, k, v = (x.flatten(2, 3) for x in (q, k, v))
        return operator_double(q, k, v, attn_bias, p, scale).unflatten(2, (-1, 1))
    scores = torch.einsum("btnh,bsnh->bnts", q, k) * scale
    if attn_bias is not None:
        visible = attn_bias.visible(q.shape[1], k.shape[1])
        assert visible.any(1).all()
        scores = scores.masked_fill(~visible, float("-inf"))
    return torch.einsum("bnts,bsnh->btnh", scores.softmax(-1), v)


@pytest.fixture(params=["double", "xformers"])
def operator(request, monkeypatch):
    """Puts something that runs on a CPU in the place of xformers' kernels."""
    if request.param == "double":
        names = ("xformers", "xformers.ops", "xformers.ops.fmha")
        modules = {name: ModuleType(name) for name in names}
        biases = ModuleType("xformers.ops.fmha.attn_bias")
        biases.BlockDiagonalMask = BlocksDouble
        biases.LowerTriangularFromBottomRightMask = CausalDouble
        modules["xformers.ops.fmha"].attn_bias = biases
        for name, module in {**modules, biases.__name__: biases}.items():
            monkeypatch.setitem(sys.modules, name, module)
        run = operator_double
    else:
        pytest.importorskip("xformers", reason="xformers is not installed")
        from xformers.attn_bias_utils import ref_attention

        def run(q, k, v, attn_bias=None, p=0.0, scale=None):
            return ref_attention(q, k, v, attn_bias, p=p, scale=scale)

    monkeypatch.setattr(backend, "_operator", lambda: run)


def request_for(spec, q_len=COLUMNS, offset=0, batch=3, device=CPU, dtype=torch.float32):
    return MaskRequest(spec, batch, q_len, offset + q_len, offset, device, dtype)


@pytest.mark.parametrize("offset", [0, 6, 12])
@pytest.mark.parametrize("mask", MASKS)
def test_blocks_hold_each_query_once_and_the_keys_that_it_sees(mask, offset):
    request = request_for(MASKS[mask], COLUMNS - offset, offset)
    expected = visible_matrix(MASKS[mask], 3, COLUMNS - offset, COLUMNS, offset)
    seen, times = np.zeros_like(expected), np.zeros(expected.shape[:2], dtype=int)
    for group in backend.runs(visible_keys(request), 3, COLUMNS):
        q, k = 0, 0
        for q_size, k_size in zip(group.q_sizes, group.k_sizes, strict=True):
            keys = group.k_columns[k : k + k_size].tolist()
            for i, column in enumerate(group.q_columns[q : q + q_size].tolist()):
                row, query = divmod(column, COLUMNS - offset)
                times[row, query] += 1
                for key in keys[: k_size - (q_size - 1 - i)] if group.causal else keys:
                    assert key // COLUMNS == row and not seen[row, query, key % COLUMNS]
                    seen[row, query, key % COLUMNS] = True
            q, k = q + q_size, k + k_size
    assert (times == 1).all()
    np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize("mask", MASKS)
def test_calls_give_the_definition_forward_and_backward(mask, operator):
    for shape in SHAPES:
        q, k, v, d_out = draw(shape, torch.float32)
        offset = shape[3]
        visible = visible_matrix(MASKS[mask], 3, COLUMNS - offset, COLUMNS, offset)
        expected = attention(*(x.double().numpy() for x in (q, k, v)), visible, d_out.numpy())
        attend = BACKENDS["xformers"]
        prepared = attend.prepare(request_for(MASKS[mask], COLUMNS - offset, offset))
        leaves = [x.requires_grad_() for x in (q, k, v)]
        out = attend.attend(prepared, *leaves, Scaling(shape[2] ** -0.5, 7.0), 0.0)
        grads = torch.autograd.grad(out, leaves, d_out)
        for what, a, e in zip(("out", "dq", "dk", "dv"), (out, *grads), expected, strict=True):
            # worst measured 4e-7
            assert_relative(a, e, 1e-6, f"{mask} {shape} {what}")


def test_heads_stay_in_groups_when_no_gradient_is_wanted(operator, monkeypatch):
    q, k, v, _ = draw((6, 2, 16, 0), torch.float32)
    run, shapes = backend._operator(), []

    def watched(q, *rest, **settings):
        shapes.append(tuple(q.shape))
        return run(q, *rest, **settings)

    monkeypatch.setattr(backend, "_operator", lambda: watched)
    attend = BACKENDS["xformers"]
    out = attend.attend(attend.prepare(request_for(Causal())), q, k, v, Scaling(0.25), 0.0)
    expected = attention(q.numpy(), k.numpy(), v.numpy(), visible_matrix(Causal(), 3, 13, 13))
    assert_relative(out, expected, 1e-6)  # measured 2e-7
    assert shapes == [(3, 13, 2, 3, 16)]


@pytest.mark.parametrize(
    ("spec", "q_len", "offset", "gathers"),
    [
        (Full(), 13, 0, []),
        (Causal(), 13, 0, []),
        (Causal(), 1, 12, []),
        (PrefixLM((4, 4, 5)), 13, 0, [True, False]),
        (PrefixLM((4, 4, 13)), 13, 0, [True, True]),  # the last row has no causal block
        (PrefixLM((4, 4, 5)), 1, 12, []),
        (LeftPadded(Causal(), (0, 3, 7)), 1, 12, [True]),
        (MASKS["packed"], 13, 0, [True, True]),
    ],
)
def test_keys_are_gathered_only_where_they_do_not_lie_in_order(
    spec, q_len, offset, gathers, operator
):
    mask = BACKENDS["xformers"].prepare(request_for(spec, q_len, offset))
    assert [call.k_columns is not None for call in mask.calls if not call.by_row] == gathers


def test_no_matrix_of_queries_times_keys_is_made():
    request = request_for(PrefixLM((400, 10, 999)), 1000)
    visible = visible_keys(request)
    for group in backend.runs(visible, 3, 1000):
        assert len(group.k_columns) <= 3000 and len(group.q_columns) <= 3000


def test_cpu_and_dtype_and_nested_prefix_are_refused_with_the_reason():
    with pytest.raises(ValueError, match="'xformers' cannot be used: xformers has kernels for GPU"):
        prepare_attention(request_for(Causal()), "xformers")
    why_not = BACKENDS["xformers"].why_not
    cuda = torch.device("cuda")
    assert "not torch.float64" in why_not(request_for(Full(), device=cuda, dtype=torch.float64), 0)
    nested = LeftPadded(Prefixed(Causal(), 2), (0, 1, 2))
    assert "Prefixed mask inside" in why_not(request_for(nested, device=cuda), 0)


def test_missing_xformers_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: None)
    request = request_for(Causal(), device=torch.device("cuda"))
    backend.unavailable.cache_clear()
    message = r'xformers is not installed: pip install -e ".\[xformers\]"; choose auto'
    with pytest.raises(ValueError, match=message):
        prepare_attention(request, "xformers")
    backend.unavailable.cache_clear()


def test_kernels_of_another_torch_are_named(monkeypatch):
    package, ops = ModuleType("xformers"), ModuleType("xformers.ops")
    package._has_cpp_library, package.__version__, package.ops = False, "0.0.35", ops
    monkeypatch.setitem(sys.modules, "xformers", package)
    monkeypatch.setitem(sys.modules, "xformers.ops", ops)
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: object())
    backend.unavailable.cache_clear()
    assert backend.unavailable() == (
        f"the kernels of xformers 0.0.35 do not load in torch {torch.__version__}: "
        "install the xformers that was built for it"
    )
    backend.unavailable.cache_clear()
