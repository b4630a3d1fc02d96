"""The fused ops as cases: ours, the formula, and torch's own op where it has one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import glm_kernels
from glm_core.bench.kernels import formulas, liger
from glm_core.bench.kernels.case import Case, Op
from glm_core.bench.kernels.formulas import EPS, GROUPS
from glm_core.bench.kernels.sizes import Sizes

TORCH = "torch"


class Maker:
    """Makes cases of one dtype on one device."""

    def __init__(self, sizes: Sizes, dtype: torch.dtype, device: torch.device) -> None:
        self.sizes, self.dtype, self.device = sizes, dtype, device

    def leaf(self, *shape: int) -> Tensor:
        """Random numbers that want a gradient."""
        return torch.randn(shape, dtype=self.dtype, device=self.device).requires_grad_()

    def case(
        self,
        op: str,
        inputs: tuple[Tensor, ...],
        ours: Op,
        kernel: str = "",
        shape: str = "",
        torch_op: Op | None = None,
    ) -> Case:
        """A case whose formula is the one in `formulas` of the same name.

        Args:
            kernel: op of glm_kernels, where its name is another.
            shape: of the inputs, where it is not that of the first one.
            torch_op: torch's own fused op.
        """
        code = glm_kernels.dispatch(kernel or op, self.device.type).__module__
        case = Case(
            op=op,
            shape=shape or "x".join(map(str, inputs[0].shape)),
            dtype=self.dtype,
            inputs=inputs,
            ours=ours,
            code=code.removeprefix("glm_kernels."),
            formula=getattr(formulas, op),
            peers={} if torch_op is None else {TORCH: torch_op},
        )
        if self.device.type == "cuda":
            liger.add(case)
        return case


def rms_norm(make: Maker) -> Case:
    inputs = (make.leaf(make.sizes.tokens, make.sizes.hidden), make.leaf(make.sizes.hidden))
    ours = partial(glm_kernels.rms_norm, eps=EPS)
    return make.case("rms_norm", inputs, ours, torch_op=_torch_rms_norm)


def add_rms_norm(make: Maker) -> Case:
    shape = (make.sizes.tokens, make.sizes.hidden)
    inputs = (make.leaf(*shape), make.leaf(*shape), make.leaf(make.sizes.hidden))
    ours = partial(glm_kernels.add_rms_norm, eps=EPS)
    return make.case("add_rms_norm", inputs, ours, torch_op=_torch_add_rms_norm)


def layer_norm(make: Maker) -> Case:
    hidden = make.sizes.hidden
    inputs = (make.leaf(make.sizes.tokens, hidden), make.leaf(hidden), make.leaf(hidden))
    return make.case("layer_norm", inputs, partial(glm_kernels.layer_norm, eps=EPS))


def add_layer_norm(make: Maker) -> Case:
    shape, hidden = (make.sizes.tokens, make.sizes.hidden), make.sizes.hidden
    inputs = (make.leaf(*shape), make.leaf(*shape), make.leaf(hidden), make.leaf(hidden))
    return make.case("add_layer_norm", inputs, partial(glm_kernels.add_layer_norm, eps=EPS))


def rope(make: Maker, kind: str) -> Case:
    """Queries and keys, as a layer rotates them."""
    sizes = make.sizes
    dim = sizes.head_dim if kind == "rope" else sizes.head_dim // 2
    positions = torch.arange(sizes.tokens, device=make.device)[None]
    cos, sin = glm_kernels.rope_tables(positions, dim, 1e4)
    tables = (cos, sin, cos, sin) if kind == "rope_2d" else (cos, sin)
    q, k = (
        make.leaf(1, sizes.tokens, heads, sizes.head_dim) for heads in (sizes.heads, sizes.kv_heads)
    )
    kernel = "apply_rope_2d" if kind == "rope_2d" else "apply_rope"
    one: Op = getattr(glm_kernels, kernel)
    if kind == "rope_interleaved":
        one = partial(one, interleaved=True)

    def ours(q: Tensor, k: Tensor, *tables: Tensor) -> tuple[Tensor, Tensor]:
        return one(q, *tables), one(k, *tables)

    shape = f"{sizes.tokens}x{sizes.heads}+{sizes.kv_heads}x{sizes.head_dim}"
    return make.case(kind, (q, k, *tables), ours, kernel=kernel, shape=shape)


def swiglu(make: Maker) -> Case:
    inputs = (make.leaf(make.sizes.tokens, 2 * make.sizes.ffn),)
    return make.case("swiglu", inputs, glm_kernels.swiglu)


def geglu(make: Maker) -> Case:
    inputs = (make.leaf(make.sizes.tokens, 2 * make.sizes.ffn),)
    ours = partial(glm_kernels.geglu, activated="second", approximate="none")
    return make.case("geglu", inputs, ours)


def gelu(make: Maker, approximate: Any) -> Case:
    inputs = (make.leaf(make.sizes.tokens, make.sizes.ffn),)
    ours = partial(glm_kernels.gelu, approximate=approximate)
    name = "gelu_erf" if approximate == "none" else "gelu_tanh"
    return make.case(name, inputs, ours, kernel="gelu")


def scale_mask_softmax(make: Maker) -> Case:
    heads, length = make.sizes.scores
    mask = torch.ones(length, length, dtype=torch.bool, device=make.device).tril()
    inputs = (make.leaf(1, heads, length, length), mask.expand(1, 1, length, length))
    ours = partial(glm_kernels.scale_mask_softmax, scale=0.125)
    return make.case("scale_mask_softmax", inputs, ours)


def group_norm_silu(make: Maker) -> Case:
    batch, channels, side = make.sizes.image
    inputs = (make.leaf(batch, channels, side, side), make.leaf(channels), make.leaf(channels))

    def ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return glm_kernels.group_norm_silu(x, GROUPS, weight, bias, EPS)

    return make.case("group_norm_silu", inputs, ours)


def modulate(make: Maker) -> Case:
    batch, _, width = make.sizes.patches
    inputs = (make.leaf(*make.sizes.patches), make.leaf(batch, width), make.leaf(batch, width))
    return make.case("modulate", inputs, partial(glm_kernels.modulate, eps=EPS))


def gate_modulate(make: Maker) -> Case:
    batch, _, width = make.sizes.patches
    conditions = (make.leaf(batch, width) for _ in range(3))
    inputs = (make.leaf(*make.sizes.patches), make.leaf(*make.sizes.patches), *conditions)
    return make.case("gate_modulate", inputs, partial(glm_kernels.gate_modulate, eps=EPS))


def cross_entropy(make: Maker) -> Case:
    rows, hidden, vocab = make.sizes.loss
    weight = (make.leaf(vocab, hidden).detach() * 0.02).requires_grad_()
    labels = torch.randint(vocab, (rows,), device=make.device)
    case = make.case(
        "cross_entropy",
        (make.leaf(rows, hidden), weight, labels),
        glm_kernels.fused_linear_cross_entropy,
        kernel="fused_linear_cross_entropy",
        shape=f"{rows}x{hidden}x{vocab}",
    )
    if hasattr(F, "linear_cross_entropy"):
        case.peers[TORCH] = _torch_cross_entropy
    else:
        case.refused[TORCH] = f"torch {torch.__version__} has no linear_cross_entropy"
    return case


def _torch_rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), weight, EPS)


def _torch_add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    stream = residual + x
    return _torch_rms_norm(stream, weight), stream


def _torch_cross_entropy(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """In chunks of rows, as ours."""
    nn: Any = torch.nn
    functional: Any = F
    options = nn.LinearCrossEntropyOptions()
    out: Tensor = functional.linear_cross_entropy(
        hidden, weight, labels, reduction="sum", options=options
    )
    return out


CASES: dict[str, Callable[[Maker], Case]] = {
    "rms_norm": rms_norm,
    "add_rms_norm": add_rms_norm,
    "layer_norm": layer_norm,
    "add_layer_norm": add_layer_norm,
    "rope": partial(rope, kind="rope"),
    "rope_interleaved": partial(rope, kind="rope_interleaved"),
    "rope_2d": partial(rope, kind="rope_2d"),
    "swiglu": swiglu,
    "geglu": geglu,
    "gelu_tanh": partial(gelu, approximate="tanh"),
    "gelu_erf": partial(gelu, approximate="none"),
    "scale_mask_softmax": scale_mask_softmax,
    "group_norm_silu": group_norm_silu,
    "modulate": modulate,
    "gate_modulate": gate_modulate,
    "cross_entropy": cross_entropy,
}
