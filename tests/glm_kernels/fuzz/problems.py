"""What the fuzzing draws: tensors of any shape, dtype, memory layout and size of their values, and
for each op a call of its public function.

An op that is registered without an entry in `PROBLEMS` fails a test (test_ops.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

import glm_kernels
from glm_kernels import VisibleKeys

LAYOUTS = ("dense", "transposed", "every second", "odd offset", "expanded")
SIZES = (0, 1, 2, 3, 5, 7, 16, 33, 130)
"""The last dimension, from 2 on where its mean is taken: that leaves nothing of one number."""
LOW = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class Problem:
    """A call that is differentiated by each of its inputs."""

    call: Callable[..., Any]
    inputs: Sequence[Tensor]
    slope: float = 0.0
    """Size of the gradient's parts, which may cancel to nothing: errors are relative to them."""
    slack: float = 0.0
    """How far an output may be off beside, by what the op's documentation says."""
    rounding: float = 0.0
    """What the compiled kernels round the first input to, as a share of the largest of a row."""


class Draw:
    """Draws from hypothesis, so that a failing example becomes a small one.

    Args:
        data: the `st.data()` of a test.
        dtypes: of the tensors.
    """

    def __init__(self, data: Any, dtypes: Sequence[torch.dtype]) -> None:
        self._data = data
        self.generator = torch.Generator().manual_seed(self.number(0, 1000))
        self.dtype = self.one_of(dtypes)

    def number(self, first: int, last: int) -> int:
        return int(self._data.draw(st.integers(first, last)))

    def one_of(self, values: Sequence[Any]) -> Any:
        return self._data.draw(st.sampled_from(values))

    def shape(self, *last: int, dims: int = 2) -> tuple[int, ...]:
        """Up to `dims` sizes, which may be 0, and those at the end."""
        count = self.number(0, dims)
        return (*(self.one_of((0, 1, 2, 3, 5)) for _ in range(count)), *last)

    def tensor(
        self, *shape: int, scales: Sequence[float] = (1.0,), dtype: torch.dtype | None = None
    ) -> Tensor:
        """Normal numbers, or zeros, of the problem's dtype, somehow laid out in memory."""
        values = torch.randn(shape, generator=self.generator, dtype=torch.float64)
        values *= self.one_of((*scales, *scales, 0.0))
        return laid_out(values.to(dtype or self.dtype), self.one_of(LAYOUTS))

    def weight(self, *shape: int) -> Tensor:
        """Of the problem's dtype, or fp32 where that is a low one."""
        dtypes = (self.dtype, torch.float32) if self.dtype in LOW else (self.dtype,)
        return self.tensor(*shape, dtype=self.one_of(dtypes))


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The same tensor with other strides; "expanded" repeats its first part along a dimension."""
    if x.dim() == 0 or x.numel() == 0 or layout == "dense":
        return x
    if layout == "transposed":
        return x.permute(*reversed(range(x.dim()))).contiguous().permute(*reversed(range(x.dim())))
    if layout == "expanded":
        return x[:1].expand(x.shape)
    step = 2 if layout == "every second" else 1
    wide = x.new_full((*x.shape[:-1], x.shape[-1] * step + 3), math.nan)
    view = wide[..., 3:][..., ::step]
    view.copy_(x)
    return view


def _slope(rows: Tensor, weight: Tensor, eps: float) -> float:
    """The largest ``weight / deviation`` of a norm over the last dimension."""
    if not rows.numel() or not weight.numel():
        return 0.0
    variance = rows.double().var(-1, correction=0).min()
    return float(weight.double().abs().max() * (variance + eps).rsqrt())


def _norm(draw: Draw, name: str) -> Problem:
    has_mean = name.endswith("layer_norm")
    size = draw.one_of(SIZES[2:] if has_mean else SIZES[1:])
    shape = draw.shape(size)
    added, with_bias = name.startswith("add_"), has_mean and draw.number(0, 1)
    streams = [draw.tensor(*shape, scales=(1.0, 1e-6, 5e3)) for _ in range(1 + added)]
    weights = [draw.weight(size) for _ in range(1 + with_bias)]
    eps = draw.one_of((1e-5, 1e-6, 1e-12))
    function = getattr(glm_kernels, name)

    def call(*given: Tensor) -> Any:
        arguments = [*given]
        if has_mean and not with_bias:
            arguments.append(None)  # type: ignore[arg-type]
        return function(*arguments, eps)

    return Problem(call, [*streams, *weights], _slope(sum(streams), weights[0], eps))


def _rope(draw: Draw, name: str) -> Problem:
    pairs, length = draw.one_of((1, 2, 3, 8, 17)), draw.one_of((0, 1, 2, 5, 40))
    lead = draw.shape(dims=1)
    heads = draw.one_of((0, 1, 3))
    positions = torch.randint(0, 1000, (*lead, length), generator=draw.generator)
    if draw.number(0, 1):
        positions = positions[:1] if lead else positions  # broadcast over the batch
    dtype = draw.one_of((torch.float32, draw.dtype))
    tables = glm_kernels.rope_tables(positions, 2 * pairs, 1e4, dtype)
    if name == "apply_rope_2d":
        x = draw.tensor(*lead, length, heads, 4 * pairs)
        blocks = glm_kernels.rope_tables(positions // 3, 2 * pairs, 1e4, dtype)
        return Problem(lambda x: glm_kernels.apply_rope_2d(x, *tables, *blocks), [x])
    x = draw.tensor(*lead, length, heads, 2 * pairs + draw.one_of((0, 0, 1, 6)))
    interleaved = bool(draw.number(0, 1))
    return Problem(lambda x: glm_kernels.apply_rope(x, *tables, interleaved), [x])


_TAIL = 1e-14
"""Far on the left tanh is -1 even in fp64, and the formula 0, where a sigmoid still has a rest."""


def _gelu(draw: Draw) -> Problem:
    form = draw.one_of(("tanh", "none", "quick"))
    x = draw.tensor(*draw.shape(draw.one_of(SIZES)), scales=(1.0, 1e-6, 30.0))
    return Problem(lambda x: glm_kernels.gelu(x, form), [x], _TAIL, _TAIL)


def _gated(draw: Draw, name: str) -> Problem:
    x = draw.tensor(*draw.shape(2 * draw.one_of(SIZES)), scales=(1.0, 1e-6, 30.0))
    if name == "swiglu":
        return Problem(glm_kernels.swiglu, [x])
    half, form = draw.one_of(("first", "second")), draw.one_of(("tanh", "none"))
    return Problem(lambda x: glm_kernels.geglu(x, half, form), [x], _TAIL, _TAIL)


def _softmax(draw: Draw) -> Problem:
    batch, heads, queries = (draw.one_of((0, 1, 2, 3)) for _ in range(3))
    keys = draw.one_of((1, 2, 7, 40, 130))
    scores = draw.tensor(batch, heads, queries, keys, scales=(1.0, 30.0))
    mask = None
    if draw.number(0, 2):
        sizes = [draw.one_of((1, full)) for full in scores.shape][draw.number(0, 3) :]
        mask = torch.rand(sizes, generator=draw.generator) < draw.one_of((0.0, 0.3, 0.9, 1.0))
    scale = draw.one_of((1.0, 0.125, 3.0))
    return Problem(lambda s: glm_kernels.scale_mask_softmax(s, mask, scale), [scores], scale)


def _attention(draw: Draw) -> Problem:
    batch, queries, keys = draw.one_of((0, 1, 2)), draw.one_of((0, 1, 5, 33)), draw.number(0, 40)
    kv_heads, group, size = draw.one_of((1, 2)), draw.one_of((1, 3)), draw.one_of((1, 4, 16, 24))
    q = draw.tensor(batch, queries, kv_heads * group, size, scales=(1.0, 5.0))
    k, v = (draw.tensor(batch, keys, kv_heads, size) for _ in range(2))
    rows = draw.one_of((1, batch)) if batch else 1
    start, stop = torch.randint(
        -3, keys + 4, (2, rows, queries), generator=draw.generator, dtype=torch.int32
    )
    if draw.number(0, 1):
        start, stop = torch.zeros_like(start), torch.full_like(stop, keys)
    visible = VisibleKeys(start, stop, draw.one_of((0, 0, 2, 50)))
    scale = size**-0.5
    return Problem(lambda *qkv: glm_kernels.attention(*qkv, visible, scale), [q, k, v], scale)


def _cross_entropy(draw: Draw) -> Problem:
    rows, size, vocab = draw.one_of((0, 1, 3, 70)), draw.one_of((1, 4, 33)), draw.one_of((1, 2, 50))
    hidden, weight = draw.tensor(rows, size), draw.tensor(vocab, size, scales=(1.0, 5.0))
    bias = [draw.tensor(vocab)] if draw.number(0, 1) else []
    labels = torch.randint(0, vocab, (rows,), generator=draw.generator)
    labels[torch.rand(rows, generator=draw.generator) < draw.one_of((0.0, 0.3, 1.0))] = -100
    chunk = draw.one_of((None, 1, 7, 64))

    def call(hidden: Tensor, weight: Tensor, *bias: Tensor) -> Tensor:
        return glm_kernels.fused_linear_cross_entropy(
            hidden, weight, labels, bias=bias[0] if bias else None, chunk_size=chunk
        )

    # of low precision the probability of each label is rounded
    slack = rows * torch.finfo(draw.dtype).eps if draw.dtype in LOW else 0.0
    return Problem(call, [hidden, weight, *bias], slack=slack)


def _group_norm_silu(draw: Draw) -> Problem:
    groups, width = draw.one_of((1, 2, 5)), draw.one_of((2, 3, 8))
    batch, channels = draw.one_of((0, 1, 3)), groups * width
    x = draw.tensor(batch, channels, *draw.shape(dims=2), scales=(1.0, 1e-6, 50.0))
    shape = (channels,) if draw.number(0, 1) else (batch, channels)
    weights = [draw.weight(*shape)]
    weights.append(draw.tensor(*shape, dtype=weights[0].dtype))
    rows = x.reshape(batch, groups, math.prod(x.shape[1:]) // groups)

    def call(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return glm_kernels.group_norm_silu(x, groups, weight, bias, 1e-5)

    return Problem(call, [x, *weights], _slope(rows, weights[0], 1e-5))


def _modulate(draw: Draw, name: str) -> Problem:
    batch, size = draw.one_of((0, 1, 3)), draw.one_of(SIZES[2:])
    shape = (batch, *draw.shape(size, dims=2))
    count = 2 if name == "gate_modulate" else 1
    streams = [draw.tensor(*shape, scales=(1.0, 1e-6, 50.0)) for _ in range(count)]
    conditions = [draw.weight(batch, size) for _ in range(count + 1)]
    function = getattr(glm_kernels, name)
    slope = _slope(streams[0], 1 + conditions[-2], 1e-5)
    return Problem(lambda *given: function(*given, 1e-5), [*streams, *conditions], slope)


def _weight_only(draw: Draw) -> Problem:
    bits, group = draw.one_of((4, 8)), draw.one_of((None, 32, 64, 128))
    columns = draw.number(1, 6) * (group or 2 * draw.number(1, 40))
    outputs = draw.number(1, 70)
    levels = torch.randint(-128, 128, (outputs, columns * bits // 8), generator=draw.generator)
    shape = (outputs,) if group is None else (outputs, columns // group)
    scales = (torch.rand(shape, generator=draw.generator) * 0.04 - 0.02).half()
    top = 1 << (bits - 1)
    zeros = torch.randint(-top, top, shape, generator=draw.generator).to(torch.int8)
    packed = glm_kernels.pack_weight(
        laid_out(levels.to(torch.int8), draw.one_of(("dense", "transposed"))),
        laid_out(scales, draw.one_of(("dense", "transposed"))),
        zeros if draw.number(0, 1) else None,
        bits=bits,
        group=group,
    )
    x = draw.tensor(*draw.shape(columns), scales=(1.0, 1e-6, 5e3))
    bias = [draw.weight(outputs)] if draw.number(0, 1) else []
    return Problem(
        lambda x, *bias: glm_kernels.linear_weight_only(x, packed, *bias),
        [x, *bias],
        rounding=2.0**-15,
    )


PROBLEMS: dict[str, Callable[[Draw], Problem]] = {
    **{
        name: lambda draw, name=name: _norm(draw, name)  # type: ignore[misc]
        for name in ("rms_norm", "layer_norm", "add_rms_norm", "add_layer_norm")
    },
    "apply_rope": lambda draw: _rope(draw, "apply_rope"),
    "apply_rope_2d": lambda draw: _rope(draw, "apply_rope_2d"),
    "gelu": _gelu,
    "geglu": lambda draw: _gated(draw, "geglu"),
    "swiglu": lambda draw: _gated(draw, "swiglu"),
    "scale_mask_softmax": _softmax,
    "attention": _attention,
    "fused_linear_cross_entropy": _cross_entropy,
    "group_norm_silu": _group_norm_silu,
    "modulate": lambda draw: _modulate(draw, "modulate"),
    "gate_modulate": lambda draw: _modulate(draw, "gate_modulate"),
    "linear_weight_only": _weight_only,
}
"""A problem for each registered op."""
