"""What the benchmarks compare: our op and the formula of common model code, on the same inputs.

The peers are written as transformers 5 writes them in its Llama, Glm and GPT-2 code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

import glm_kernels

Op = Callable[..., Tensor]


@dataclass(kw_only=True, slots=True)
class Case:
    """One comparison: two functions of the same inputs."""

    op: str
    shape: str
    dtype: str
    ours: Op
    peer: Op
    inputs: tuple[Tensor, ...]
    autocast: bool = False
    time: bool = True
    memory: bool = False

    def step(self, function: Op) -> Callable[[], None]:
        """Return a closure that runs forward and backward once."""
        leaves = [tensor for tensor in self.inputs if tensor.requires_grad]
        with self.context(), torch.no_grad():
            grad = torch.ones(()) if self.memory else torch.randn_like(function(*self.inputs))

        def run() -> None:
            with self.context():
                out = function(*self.inputs)
            out.backward(grad)
            for leaf in leaves:
                leaf.grad = None

        return run

    def context(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.autocast)


def peer_rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    x32 = x.to(torch.float32)
    variance = x32.pow(2).mean(-1, keepdim=True)
    return weight * (x32 * torch.rsqrt(variance + 1e-5)).to(x.dtype)


def peer_rotate_half(x: Tensor) -> Tensor:
    first, second = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return torch.cat((-second, first), dim=-1)


def peer_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    cos, sin = (torch.cat((t, t), dim=-1).to(x.dtype).unsqueeze(2) for t in (cos, sin))
    return (x * cos) + (peer_rotate_half(x) * sin)


def peer_rotate_pairs(x: Tensor) -> Tensor:
    return torch.stack((-x[..., 1::2], x[..., 0::2]), dim=-1).flatten(-2)


def peer_rope_interleaved(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    cos, sin = (t.repeat_interleave(2, dim=-1).to(x.dtype).unsqueeze(2) for t in (cos, sin))
    rotary, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    return torch.cat((rotary * cos + peer_rotate_pairs(rotary) * sin, rest), dim=-1)


def peer_rope_2d(
    x: Tensor, cos: Tensor, sin: Tensor, block_cos: Tensor, block_sin: Tensor
) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((peer_rope(first, cos, sin), peer_rope(second, block_cos, block_sin)), dim=-1)


def peer_swiglu(x: Tensor) -> Tensor:
    gate, value = x.chunk(2, dim=-1)
    return value * F.silu(gate)


def peer_geglu(x: Tensor) -> Tensor:
    value, gate = x.chunk(2, dim=-1)
    return value * F.gelu(gate)


def peer_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    additive = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(scores.dtype).min)
    scores = scores * 0.125 + additive.to(scores.dtype)
    return F.softmax(scores, dim=-1, dtype=torch.float32).to(scores.dtype)


def peer_cross_entropy(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden, weight).float(), labels, reduction="sum")


def our_cross_entropy(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    return glm_kernels.fused_linear_cross_entropy(hidden, weight, labels)


def leaf(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, dtype=dtype).requires_grad_()


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def norm_case(op: str, tokens: int, hidden: int, dtype: torch.dtype) -> Case:
    inputs: tuple[Tensor, ...] = (leaf(tokens, hidden, dtype=dtype), leaf(hidden, dtype=dtype))
    ours: Op = partial(glm_kernels.rms_norm, eps=1e-5)
    peer: Op = peer_rms_norm
    if op == "layer_norm":
        inputs = (*inputs, leaf(hidden, dtype=dtype))
        ours = partial(glm_kernels.layer_norm, eps=1e-5)
        peer = partial(layer_norm_module, eps=1e-5)
    shape = f"{tokens}x{hidden}"
    return Case(op=op, shape=shape, dtype=name_of(dtype), ours=ours, peer=peer, inputs=inputs)


def layer_norm_module(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, (x.shape[-1],), weight, bias, eps)


def rope_case(kind: str, batch: int, heads: int, dtype: torch.dtype) -> Case:
    length, head_dim = 512, 64
    rotary_dim = head_dim if kind == "halves" else head_dim // 2
    positions = torch.arange(length).expand(batch, -1)
    tables = glm_kernels.rope_tables(positions, rotary_dim, 1e4)
    peers: dict[str, Op] = {
        "halves": peer_rope,
        "interleaved": peer_rope_interleaved,
        "2d": peer_rope_2d,
    }
    ours: Op = partial(glm_kernels.apply_rope, interleaved=kind == "interleaved")
    if kind == "2d":
        tables, ours = (*tables, *tables), glm_kernels.apply_rope_2d
    return Case(
        op=f"rope_{kind}",
        shape=f"{batch}x{length}x{heads}x{head_dim}",
        dtype=name_of(dtype),
        ours=ours,
        peer=peers[kind],
        inputs=(leaf(batch, length, heads, head_dim, dtype=dtype), *tables),
    )


def activation_case(op: str, tokens: int, ffn: int, dtype: torch.dtype) -> Case:
    width = ffn if op.startswith("gelu") else 2 * ffn
    pairs: dict[str, tuple[Op, Op]] = {
        "gelu_tanh": (
            partial(glm_kernels.gelu, approximate="tanh"),
            partial(F.gelu, approximate="tanh"),
        ),
        "gelu_erf": (partial(glm_kernels.gelu, approximate="none"), F.gelu),
        "swiglu": (glm_kernels.swiglu, peer_swiglu),
        "geglu_erf": (
            partial(glm_kernels.geglu, activated="second", approximate="none"),
            peer_geglu,
        ),
    }
    ours, peer = pairs[op]
    inputs = (leaf(tokens, width, dtype=dtype),)
    shape = f"{tokens}x{width}"
    return Case(op=op, shape=shape, dtype=name_of(dtype), ours=ours, peer=peer, inputs=inputs)


def softmax_case(batch: int, heads: int, dtype: torch.dtype) -> Case:
    mask = torch.ones(512, 512, dtype=torch.bool).tril().expand(batch, 1, 512, 512)
    return Case(
        op="scale_mask_softmax",
        shape=f"{batch}x{heads}x512x512",
        dtype=name_of(dtype),
        ours=partial(glm_kernels.scale_mask_softmax, scale=0.125),
        peer=peer_softmax,
        inputs=(leaf(batch, heads, 512, 512, dtype=dtype), mask),
    )


def cross_entropy_case(
    tokens: int, hidden: int, vocab: int, autocast: bool, time: bool = True, memory: bool = False
) -> Case:
    weight = torch.randn(vocab, hidden).mul_(0.02).requires_grad_()
    return Case(
        op="cross_entropy",
        shape=f"{tokens}x{hidden}x{vocab}",
        dtype="bf16-autocast" if autocast else "float32",
        ours=our_cross_entropy,
        peer=peer_cross_entropy,
        inputs=(leaf(tokens, hidden), weight, torch.randint(vocab, (tokens,))),
        autocast=autocast,
        time=time,
        memory=memory,
    )


def build_cases() -> dict[str, Callable[[], Case]]:
    """Return the cases by name, each built when it is asked for."""
    cases: dict[str, Callable[[], Case]] = {}
    for tag, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        for op in ("rms_norm", "layer_norm"):
            for tokens, hidden in ((2048, 320), (8192, 768)):
                name = f"{op}-{tokens}x{hidden}-{tag}"
                cases[name] = partial(norm_case, op, tokens, hidden, dtype)
        for kind in ("halves", "interleaved", "2d"):
            for batch, heads in ((4, 5), (8, 12)):
                cases[f"rope_{kind}-{batch}-{tag}"] = partial(rope_case, kind, batch, heads, dtype)
        for op in ("gelu_tanh", "gelu_erf", "swiglu", "geglu_erf"):
            for tokens, ffn in ((2048, 1280), (4096, 2048)):
                cases[f"{op}-{tokens}-{tag}"] = partial(activation_case, op, tokens, ffn, dtype)
        cases[f"scale_mask_softmax-{tag}"] = partial(softmax_case, 4, 5, dtype)
        for tokens, hidden, vocab in ((2048, 320, 8192), (2048, 512, 32768)):
            name = f"cross_entropy-{vocab}-{tag}"
            autocast = dtype == torch.bfloat16
            cases[name] = partial(cross_entropy_case, tokens, hidden, vocab, autocast)
        name = f"cross_entropy-65536-{tag}"
        cases[name] = partial(
            cross_entropy_case, 2048, 512, 65536, dtype == torch.bfloat16, tag == "bf16", True
        )
    return cases


CASES = build_cases()
