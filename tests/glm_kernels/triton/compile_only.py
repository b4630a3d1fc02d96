"""Compiles each launched kernel for a GPU that need not be there, and runs none of them.

    python compile_only.py cuda:90 bfloat16 [norms|elementwise|attention|decode|...]

The ops are called on CPU tensors; in place of a launch the kernel is compiled for the target with
the types and block sizes of that call. Prints a line for each: shared memory, registers, spills.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction, mangle_type

TARGETS = {
    "cuda:80": GPUTarget("cuda", 80, 32),
    "cuda:90": GPUTarget("cuda", 90, 32),
    "hip:gfx942": GPUTarget("hip", "gfx942", 64),
}
OPTIONS = ("num_warps", "num_stages")
seen: set[str] = set()


def compile_for(target: GPUTarget) -> None:
    """Make every launch of this process a compilation for the target."""

    def run(self: JITFunction[Any], *args: Any, grid: Any, warmup: bool, **named: Any) -> None:
        options = {name: named.pop(name) for name in OPTIONS if name in named}
        bound = self.signature.bind(*args, **named).arguments
        constants = {
            (i,): bound[param.name]
            for i, param in enumerate(self.params)
            if param.is_constexpr or bound[param.name] is None or _is_one(bound[param.name])
        }
        signature = {
            param.name: "constexpr" if (i,) in constants else mangle_type(bound[param.name])
            for i, param in enumerate(self.params)
        }
        aligned = {
            (i,): [["tt.divisibility", 16]]
            for i, param in enumerate(self.params)
            if (i,) not in constants and _aligned(bound[param.name])
        }
        source = ASTSource(self, signature, constants, aligned)
        kernel = triton.compile(source, target=target, options=options)
        report(self.__name__, kernel, {**options, **_sizes(bound)})

    JITFunction.run = run  # type: ignore[method-assign]


def _is_one(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value == 1


def _aligned(value: object) -> bool:
    if isinstance(value, torch.Tensor):
        return value.data_ptr() % 16 == 0
    return isinstance(value, int) and value % 16 == 0


def _sizes(bound: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in bound.items() if name.isupper() and len(name) > 1}


def report(name: str, kernel: Any, sizes: dict[str, Any]) -> None:
    line = f"{name} shared={kernel.metadata.shared} {_resources(kernel)} {sizes}"
    if line not in seen:
        seen.add(line)
        print(line)


def _resources(kernel: Any) -> str:
    """Registers and spilled bytes of a thread, where it is code for NVIDIA."""
    if "cubin" not in kernel.asm:
        return ""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", text))
    return f"registers={found.get('REG')} spilled={found.get('STACK')}"


def with_backward(function: Any, *inputs: torch.Tensor) -> None:
    """Call forward and backward; what comes out is whatever the memory held."""
    leaves = [tensor.requires_grad_() for tensor in inputs]
    out = function(*leaves)
    outs = [part for part in (out if isinstance(out, tuple) else (out,)) if part.requires_grad]
    torch.autograd.grad(outs, leaves, [torch.zeros_like(part) for part in outs])


def call_norms(dtype: torch.dtype) -> None:
    from glm_kernels.triton import norm

    for size in (4096, 320):
        x, residual = torch.zeros(2, 8, size, dtype=dtype)
        weight, bias = torch.zeros(2, size, dtype=dtype)
        with_backward(lambda x, r, w: norm.add_rms_norm(x, r, w, 1e-5), x, residual, weight)
        with_backward(lambda x, w, b: norm.layer_norm(x, w, b, 1e-5), x, weight, bias)


def call_elementwise(dtype: torch.dtype) -> None:
    from glm_kernels.triton import activation, rope, softmax

    x = torch.zeros(4, 8192, dtype=dtype)
    for form in ("tanh", "none", "quick"):
        with_backward(lambda x, form=form: activation.gelu(x, form), x)
    with_backward(activation.swiglu, x)
    with_backward(lambda x: activation.geglu(x, "second", "none"), x)
    heads, (cos, sin) = torch.zeros(1, 4, 32, 128, dtype=dtype), torch.zeros(2, 1, 4, 32)
    for interleaved in (False, True):
        with_backward(lambda x, i=interleaved: rope.apply_rope(x, cos, sin, i), heads)
    with_backward(lambda x: rope.apply_rope_2d(x, cos, sin, cos, sin), heads)
    mask = torch.ones(4, 4096, dtype=torch.bool)
    scores = torch.zeros(1, 2, 4, 4096, dtype=dtype)
    with_backward(lambda s: softmax.scale_mask_softmax(s, mask, 0.1), scores)


def call_attention(dtype: torch.dtype, shapes: Any = ((2, 2, 64),)) -> None:
    from glm_kernels.triton import attention

    bounds = torch.zeros(2, 1, 64, dtype=torch.int32)
    for heads, kv_heads, size in shapes:
        q, k, v = (torch.zeros(1, 64, n, size, dtype=dtype) for n in (heads, kv_heads, kv_heads))
        with_backward(lambda *qkv: attention.attention(*qkv, *bounds, 2, 0.1), q, k, v)


def call_decode(dtype: torch.dtype, shapes: Any = ((2, 2, 64),)) -> None:
    from glm_kernels.triton import attention

    bounds = torch.zeros(2, 1, 1, dtype=torch.int32)
    for heads, kv_heads, size in shapes:
        q = torch.zeros(1, 1, heads, size, dtype=dtype)
        k = torch.zeros(1, 1024, kv_heads, size, dtype=dtype)
        attention.attention(q, k, k, *bounds, 0, 0.1)


def call_wide_attention(dtype: torch.dtype) -> None:
    for call in (call_attention, call_decode):
        call(dtype, ((32, 2, 128), (2, 2, 80), (2, 2, 256)))


def call_weight_only(dtype: torch.dtype) -> None:
    import glm_kernels
    from glm_kernels.triton import weight_only

    for bits, group, zero in ((4, 32, False), (4, 128, True), (4, None, False), (8, None, False)):
        levels = torch.zeros(256, 1024 * bits // 8, dtype=torch.int8)
        scales = torch.zeros(256, dtype=torch.float16)
        scales = scales if group is None else scales[:, None].repeat(1, 1024 // group)
        zeros = scales.to(torch.int8) if zero else None
        packed = glm_kernels.pack_weight(levels, scales, zeros, bits=bits, group=group)
        for rows in (1, 16, 64, 512):
            x = torch.zeros(rows, 1024, dtype=dtype)
            with_backward(lambda x, p=packed: weight_only.linear_weight_only(x, p, None, 15), x)


def call_cross_entropy(dtype: torch.dtype) -> None:
    from glm_kernels.triton import cross_entropy

    labels = torch.zeros(4, dtype=torch.int64)
    hidden, weight = torch.zeros(4, 32, dtype=dtype), torch.zeros(65024, 32, dtype=dtype)
    loss = cross_entropy.fused_linear_cross_entropy
    with_backward(lambda h, w: loss(h, w, labels, None, -100, None), hidden, weight)


def call_diffusion(dtype: torch.dtype) -> None:
    from glm_kernels.triton import group_norm, modulate

    x = torch.zeros(2, 320, 8, 8, dtype=dtype)
    weight, bias = torch.zeros(2, 320, dtype=dtype)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        ordered = x.contiguous(memory_format=memory_format)
        norm = group_norm.group_norm_silu
        with_backward(
            lambda *given, f=norm: f(given[0], 32, *given[1:], 1e-5), ordered, weight, bias
        )
    tokens, residual = torch.zeros(2, 2, 8, 1152, dtype=dtype)
    conditions = torch.zeros(3, 2, 1152, dtype=dtype).unbind()
    with_backward(
        lambda *given: modulate.gate_modulate(*given, 1e-6), tokens, residual, *conditions
    )


CALLS = {
    "norms": call_norms,
    "elementwise": call_elementwise,
    "attention": call_attention,
    "decode": call_decode,
    "wide_attention": call_wide_attention,
    "weight_only": call_weight_only,
    "cross_entropy": call_cross_entropy,
    "diffusion": call_diffusion,
}

if __name__ == "__main__":
    target, dtype_name, *chosen = sys.argv[1:]
    compile_for(TARGETS[target])
    if target.startswith("hip"):
        torch.version.hip = "as on the target"
    for name in chosen or CALLS:
        CALLS[name](getattr(torch, dtype_name))
