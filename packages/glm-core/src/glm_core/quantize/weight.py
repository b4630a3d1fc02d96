"""A quantized matrix as a module: stored under the names of files, computed with in two ways.

As it is stored, it is multiplied block by block, packed or dequantized on the way. `pack()` brings
it into the order that the kernels of this machine read; the stored form is then gone from memory,
and `state_dict` computes it back.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from glm_core.quantize.layout import SCALE_SUFFIX, ZERO_SUFFIX, Layout
from glm_core.quantize.matrix import QuantizedMatrix
from glm_core.quantize.product import product_by_blocks, product_packing
from glm_core.quantize.rows import CHUNK_ELEMENTS, pack_int4
from glm_kernels import (
    ActivationBits,
    PackedWeight,
    available_backends,
    dequantize_packed,
    dispatch,
    linear_weight_only,
    pack_weight,
)

_OP = "linear_weight_only"
_UNCOMPILED = {"torch", "reference"}
_BLOCK = 16
"""Rows of a block of a `PackedWeight`."""
PROMPT_ROWS = 32
"""Tokens that are multiplied together from which on they count as a prompt."""


def has_kernel(device: torch.device) -> bool:
    """Whether the kernel in use for a device reads packed weights as they are."""
    known = set(available_backends(_OP, device.type)) & _UNCOMPILED
    chosen = dispatch(_OP, device.type)
    return all(chosen is not dispatch(_OP, device.type, name) for name in known)


def _may_pack(x: Tensor, bias: Tensor | None) -> bool:
    """Whether packing what is multiplied pays: on CUDA dequantizing is as fast, and gradients and
    tracing want formulas."""
    if x.device.type != "cpu" or torch.compiler.is_compiling() or not has_kernel(x.device):
        return False
    wants_gradient = x.requires_grad or (bias is not None and bias.requires_grad)
    return not (wants_gradient and torch.is_grad_enabled())


class QuantizedWeight(nn.Module):
    """Base of the quantized layers: holds a matrix [out, in], which is not trained.

    Its buffers are `weight`, `weight_scale` and, where the layout has zero points, `weight_zero`;
    see layout.py. While it is packed, they are None. `prompt_activation_bits` is what the compiled
    kernels round the activations of a prompt to; see `set_prompt_activation_bits`.

    Args:
        rows: of the matrix.
        columns: of the matrix.
        layout: of the matrix.

    Raises:
        ValueError: the columns cannot be laid out so.
    """

    weight: Tensor | None
    weight_scale: Tensor | None
    weight_zero: Tensor | None
    packed: PackedWeight | None
    prompt_activation_bits: ActivationBits

    def __init__(
        self, rows: int, columns: int, layout: Layout, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        self.layout, self._size = layout, (rows, columns)
        self.packed, self.prompt_activation_bits = None, 15
        for name in ("weight_zero", *_PACKED.values()):
            self.register_buffer(name, None, persistent=name == "weight_zero")
        for suffix, tensor in layout.empty(rows, columns, device).items():
            self.register_buffer(f"weight{suffix}", tensor.zero_())

    @property
    def bits(self) -> int:
        """8 or 4."""
        return self.layout.bits

    @property
    def num_bytes(self) -> int:
        """Bytes of the matrix as it lies in memory now."""
        return sum(buffer.nbytes for buffer in self.buffers(recurse=False))

    def matrix(self) -> QuantizedMatrix:
        """The matrix as it is stored; computed back where it is packed."""
        if self.packed is not None:
            return _unpack(self.packed, self.layout)
        assert self.weight is not None and self.weight_scale is not None
        return QuantizedMatrix(self.weight, self.weight_scale, self.weight_zero, self.layout)

    def set_matrix(self, matrix: QuantizedMatrix) -> None:
        """Makes a matrix of the same size and layout this one's; nothing is copied."""
        assert matrix.layout == self.layout
        self._clear_packed()
        self.weight, self.weight_scale = matrix.levels, matrix.scale
        self.weight_zero = matrix.zero

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """The matrix as numbers, [out, in]."""
        return self.matrix().dequantize(dtype)

    def pack(self) -> None:
        """Brings the matrix into the kernels' order, if there are kernels and it has values."""
        if self.packed is not None or self.weight is None or self.weight.is_meta:
            return
        if not has_kernel(self.weight.device):
            return
        matrix = self.matrix()
        layout = self.layout
        packed = pack_weight(
            matrix.levels,
            matrix.scale,
            matrix.zero,
            bits=layout.bits,
            group=layout.group or None,
        )
        self.weight = self.weight_scale = self.weight_zero = None
        self._set_packed(packed)

    def unpack(self) -> None:
        """Undoes `pack`."""
        if self.packed is not None:
            self.set_matrix(self.matrix())

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x W^T + b, [..., out], for x [..., in]; gradients reach x and the bias."""
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        if bias is not None:
            bias = bias.to(x.dtype)
        is_prompt = x.numel() >= PROMPT_ROWS * x.shape[-1]
        activation_bits = self.prompt_activation_bits if is_prompt else 15
        if self.packed is not None:
            return linear_weight_only(x, self.packed, bias, activation_bits=activation_bits)
        matrix = self.matrix()
        parts = matrix.levels, matrix.scale, matrix.zero, self.bits
        if _may_pack(x, bias):
            return product_packing(x, *parts, bias, activation_bits)
        out = product_by_blocks(x, *parts)
        return out if bias is None else out + bias

    def _set_packed(self, packed: PackedWeight) -> None:
        self.packed = packed
        for field, name in _PACKED.items():
            setattr(self, name, getattr(packed, field))

    def _clear_packed(self) -> None:
        self.packed = None
        for name in _PACKED.values():
            setattr(self, name, None)

    def _apply(self, fn: Any, recurse: bool = True) -> QuantizedWeight:
        """Moves the module; a change of dtype, as in `model.bfloat16()`, leaves the scales fp16."""
        scales = {name: self._buffers[name] for name in _SCALES}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, before in scales.items():
            after = self._buffers[name]
            if before is not None and after is not None and after.dtype != before.dtype:
                self._buffers[name] = before.to(after.device)
        if self.packed is not None:
            moved = {field: getattr(self, name) for field, name in _PACKED.items()}
            self.packed = replace(self.packed, **moved)
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.packed is not None:
            destination.update(self.matrix().tensors(f"{prefix}weight"))

    def _load_from_state_dict(self, *arguments: Any) -> None:
        was_packed = self.packed is not None
        self.unpack()
        super()._load_from_state_dict(*arguments)
        if was_packed:
            self.pack()


_PACKED = {"levels": "packed_levels", "scales": "packed_scales", "zeros": "packed_zeros"}
"""Buffer of each tensor of a `PackedWeight`."""
_SCALES = ("weight_scale", "packed_scales")


def _unpack(packed: PackedWeight, layout: Layout) -> QuantizedMatrix:
    """The stored form of a packed weight, bit for bit."""
    rows = packed.out_features
    # with scales of 1 the kernels' own inverse gives the levels themselves
    plain = replace(packed, scales=torch.ones_like(packed.scales), zeros=None)
    parts = layout.empty(rows, packed.in_features, packed.levels.device)
    step = max(1, CHUNK_ELEMENTS // (_BLOCK * packed.in_features))
    for begin in range(0, len(packed.levels), step):
        blocks = slice(begin, begin + step)
        levels = dequantize_packed(plain, torch.float32, blocks).to(torch.int8)
        at = slice(begin * _BLOCK, begin * _BLOCK + len(levels))
        parts[""][at] = levels if layout.bits == 8 else pack_int4(levels)
    for suffix, values in ((SCALE_SUFFIX, packed.scales), (ZERO_SUFFIX, packed.zeros)):
        if values is not None:
            by_row = values.transpose(1, 2).flatten(0, 1)[:rows]
            parts[suffix] = by_row.reshape(parts[suffix].shape).clone()
    return QuantizedMatrix.of(parts, layout)
