"""Linear layers whose weight is held in 4 or 8 bits: packed once, multiplied without unpacking.

    packed = pack_weight(levels, scales, bits=4, group=32)
    y = linear_weight_only(x, packed, bias)

The weight is ``scale * (level - zero)``. Levels come as checkpoints hold them: int8 [N, K], or two
columns to a byte with 4 bits, the even one in the high half, both two's complement. Scales are fp16
[N], one for each row (the layout of the released GLM weights), or [N, K / group].

Letters: M rows of x, K columns of the weight (inputs), N rows of it (outputs), R some of these,
G groups of a row, C columns of a group.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from glm_kernels.memory import empty_on_huge_pages
from glm_kernels.registry import dispatch

BLOCK = 16
"""Rows of the weight that are stored interleaved, 4 bytes of each at a time."""
UNIT = 32
"""The columns of packed weights are a multiple of this."""
GROUPS = (32, 64, 128)
ActivationBits = Literal[15, 8]
_DTYPES = frozenset({torch.float32, torch.bfloat16, torch.float16, torch.float64})
_CHUNK_ELEMENTS = 1 << 20
_LOW_HALVES = 0x0F0F0F0F


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedWeight:
    """A weight in the order in which the kernels read it; see native/weight_only.h."""

    levels: Tensor
    """uint8 [blocks, bytes of a block]."""
    scales: Tensor
    """fp16 [blocks, groups, 16], groups = 1 for whole rows."""
    zeros: Tensor | None
    """int8 of the shape of scales; None when the weight is symmetric."""
    out_features: int
    in_features: int
    bits: int
    group: int | None
    """Columns that share a scale; None for whole rows."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory, padding included."""
        tensors = (self.levels, self.scales, self.zeros)
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)


@torch.no_grad()
def pack_weight(
    levels: Tensor,
    scales: Tensor,
    zeros: Tensor | None = None,
    *,
    bits: int,
    group: int | None = None,
) -> PackedWeight:
    """Brings a quantized weight into the order that `linear_weight_only` reads.

    Args:
        levels: int8 [N, K * bits / 8].
        scales: fp16 [N] when group is None, else [N, K / group].
        zeros: int8, of the shape of scales: the level that stands for 0. None: it is 0.
        bits: 8 or 4.
        group: columns that share a scale: 32, 64, 128, or None for whole rows.

    Raises:
        ValueError: shapes or dtypes do not belong together, K is not divisible by the group, or a
            scale is not finite.
    """
    rows, columns = _check_weight(levels, scales, zeros, bits, group)
    blocks, units = -(-rows // BLOCK), -(-columns // UNIT)
    shape = (blocks, units * UNIT * BLOCK * bits // 8)
    packed = _empty(shape, torch.uint8, levels.device)
    _pack_levels(levels, bits, packed)
    return PackedWeight(
        levels=packed,
        scales=_by_block(scales),
        zeros=None if zeros is None else _by_block(zeros),
        out_features=rows,
        in_features=columns,
        bits=bits,
        group=group,
    )


def dequantize_packed(
    packed: PackedWeight, dtype: torch.dtype = torch.float32, blocks: slice | None = None
) -> Tensor:
    """Computes the weight [N, K] back, or the rows of some of its blocks of 16.

    Args:
        packed: of `pack_weight`.
        dtype: of the result; fp32 gives the exact products.
        blocks: which blocks; None for all.
    """
    which = slice(None) if blocks is None else blocks
    levels = _levels_of(packed.levels[which], packed.bits)
    if packed.group is None:
        levels = levels[:, : packed.in_features]
    scales_RG1 = _by_row(packed.scales[which]).float()[..., None]
    weight_RGC = levels.float().view(len(levels), scales_RG1.shape[1], -1)
    if packed.zeros is not None:
        weight_RGC -= _by_row(packed.zeros[which]).float()[..., None]
    weight_RGC *= scales_RG1
    first = which.indices(len(packed.levels))[0] * BLOCK
    return weight_RGC.flatten(1)[: packed.out_features - first].to(dtype)


def linear_weight_only(
    x: Tensor,
    packed: PackedWeight,
    bias: Tensor | None = None,
    *,
    activation_bits: ActivationBits = 15,
) -> Tensor:
    """``x W^T + b``; gradients reach x and the bias.

    The compiled kernels round each group of activations to integers with one scale: of 15 bits,
    practically exact (relative error 1e-4), or of 8 bits, faster for many rows (5e-3); more rows
    than 24 to 128, depending on the group, always have 15 where there is AMX. NaN or infinity in
    a row of x gives NaN in all of that row of the result.

    Args:
        x: [..., K], fp32, bf16 or fp16.
        packed: of `pack_weight`.
        bias: [N], of the dtype of x or fp32.
        activation_bits: 15 or 8; backends other than the compiled one do not round.

    Returns:
        [..., N], dtype of x.

    Raises:
        ValueError: x or the bias does not fit the weight.
    """
    _check_call(x, packed, bias, activation_bits)
    out: Tensor = dispatch("linear_weight_only", x.device.type)(x, packed, bias, activation_bits)
    return out


def some_blocks(packed: PackedWeight, blocks: slice) -> PackedWeight:
    """Some blocks of 16 rows of a weight, where they are."""
    rows = min(blocks.stop * BLOCK, packed.out_features) - blocks.start * BLOCK
    zeros = None if packed.zeros is None else packed.zeros[blocks]
    return replace(
        packed,
        levels=packed.levels[blocks],
        scales=packed.scales[blocks],
        zeros=zeros,
        out_features=rows,
    )


def some_columns(packed: PackedWeight, columns: slice) -> PackedWeight:
    """A copy of some columns of a weight; they begin at a multiple of `UNIT` and of the group."""
    begin, end = columns.start, min(columns.stop, packed.in_features)
    bytes_per_column = BLOCK * packed.bits // 8
    last = -(-end // UNIT) * UNIT
    levels = packed.levels[:, begin * bytes_per_column : last * bytes_per_column].contiguous()
    tables = [packed.scales, packed.zeros]
    if packed.group is not None:
        groups = slice(begin // packed.group, end // packed.group)
        tables = [None if table is None else table[:, groups] for table in tables]
    scales, zeros = tables
    assert scales is not None
    return replace(packed, levels=levels, scales=scales, zeros=zeros, in_features=end - begin)


def block_chunks(packed: PackedWeight, elements: int = _CHUNK_ELEMENTS) -> list[slice]:
    """Cut the blocks of a weight into slices of about so many elements."""
    blocks = len(packed.levels)
    step = max(1, elements // (BLOCK * packed.in_features))
    return [slice(begin, min(begin + step, blocks)) for begin in range(0, blocks, step)]


def _pack_levels(levels: Tensor, bits: int, out: Tensor) -> None:
    from glm_kernels.cpu.pack import pack_levels  # it registers products that are made of this file

    if levels.device.type == "cpu" and pack_levels(levels, bits, out):
        return
    columns = out.shape[1] * 8 // bits // BLOCK
    step = max(1, _CHUNK_ELEMENTS // (BLOCK * columns))
    for begin in range(0, len(out), step):
        chunk = levels[begin * BLOCK : (begin + step) * BLOCK].contiguous()
        out[begin : begin + step] = _interleave(chunk, bits, columns)


def _interleave(levels: Tensor, bits: int, columns: int) -> Tensor:
    """int8 [rows, K * bits / 8] to uint8 [blocks, bytes]; the padding stands for level 0."""
    width = columns * bits // 8
    missing = (-len(levels)) % BLOCK
    levels = torch.nn.functional.pad(levels, (0, width - levels.shape[1], 0, missing))
    if bits == 4:
        raw = levels.view(torch.uint8) ^ 0x88  # level + 8 in both halves
        nibbles = torch.stack((raw >> 4, raw & 15), dim=-1).view(len(levels), -1, 2, 4)
        levels = (nibbles[:, :, 0] | (nibbles[:, :, 1] << 4)).flatten(1)
    vectors = levels.contiguous().view(torch.int32).view(-1, BLOCK, width // 4)
    return vectors.transpose(1, 2).flatten(1).contiguous().view(torch.uint8)


def _levels_of(packed: Tensor, bits: int) -> Tensor:
    """Undo `_interleave`: uint8 [blocks, bytes] to int8 [rows, columns]."""
    # 4 bytes of a row are moved as one int32
    vectors = packed.view(torch.int32).view(len(packed), -1, BLOCK).transpose(1, 2)
    vectors = vectors.flatten(0, 1).contiguous()
    if bits == 8:
        return vectors.view(torch.int8)
    halves = torch.stack((vectors & _LOW_HALVES, (vectors >> 4) & _LOW_HALVES), dim=-1)
    return halves.flatten(1).view(torch.int8).sub_(8)


def _empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    if device.type == "cpu":
        return empty_on_huge_pages(shape, dtype)
    return torch.empty(shape, dtype=dtype, device=device)


def _by_block(values: Tensor) -> Tensor:
    """[N] or [N, G] to [blocks, G, 16], zeros for missing rows."""
    table = values if values.dim() == 2 else values[:, None]
    table = torch.nn.functional.pad(table, (0, 0, 0, (-len(table)) % BLOCK))
    blocks = table.view(-1, BLOCK, table.shape[1]).transpose(1, 2)
    return _empty(tuple(blocks.shape), values.dtype, values.device).copy_(blocks)


def _by_row(values: Tensor) -> Tensor:
    """Undo `_by_block`: [blocks, G, 16] to [rows, G]."""
    return values.transpose(1, 2).flatten(0, 1)


def _check_weight(
    levels: Tensor, scales: Tensor, zeros: Tensor | None, bits: int, group: int | None
) -> tuple[int, int]:
    """Return N and K."""
    if bits not in (4, 8):
        raise ValueError(f"bits is {bits}: a packed weight has 8 or 4 bits per level")
    if group is not None and group not in GROUPS:
        raise ValueError(f"group is {group}: it can be 32, 64, 128, or None for whole rows")
    if levels.dtype != torch.int8 or levels.dim() != 2 or levels.numel() == 0:
        raise ValueError(
            f"levels are {levels.dtype} of shape {list(levels.shape)}: they must be int8, "
            "[out, in] with 8 bits or [out, in / 2] with 4, and not empty"
        )
    rows, columns = levels.shape[0], levels.shape[1] * 8 // bits
    if group is not None and columns % group:
        raise ValueError(
            f"a weight of {columns} input features cannot have groups of {group}: the number must "
            "be divisible by the group; take a smaller group, or group=None for whole rows"
        )
    shape = [rows] if group is None else [rows, columns // group]
    for name, tensor, dtype in (("scales", scales, torch.float16), ("zeros", zeros, torch.int8)):
        if tensor is None:
            continue
        if tensor.dtype != dtype or list(tensor.shape) != shape or tensor.device != levels.device:
            raise ValueError(
                f"{name} are {tensor.dtype} of shape {list(tensor.shape)} on {tensor.device}: with "
                f"levels {list(levels.shape)} of {bits} bits on {levels.device} and group={group} "
                f"they must be {dtype} of shape {shape} there"
            )
    if not bool(scales.isfinite().all()):
        row = int(scales.isfinite().logical_not().nonzero()[0, 0])
        raise ValueError(f"a scale of row {row} is not finite: quantize a weight without NaN again")
    return rows, columns


def _check_call(x: Tensor, packed: PackedWeight, bias: Tensor | None, activation_bits: int) -> None:
    if x.dim() == 0 or x.shape[-1] != packed.in_features or x.dtype not in _DTYPES:
        raise ValueError(
            f"x is {x.dtype} of shape {list(x.shape)}: the packed weight has "
            f"{packed.in_features} input features, x must be floating point [..., that number]"
        )
    if x.device != packed.levels.device:
        raise ValueError(
            f"x is on {x.device} but the packed weight is on {packed.levels.device}: move one of "
            "them"
        )
    if activation_bits not in (15, 8):
        raise ValueError(f"activation_bits is {activation_bits}: it can be 15 or 8")
    if bias is not None and (
        bias.shape != (packed.out_features,)
        or bias.dtype not in (x.dtype, torch.float32)
        or bias.device != x.device
    ):
        raise ValueError(
            f"bias is {bias.dtype} of shape {list(bias.shape)} on {bias.device}: it must have "
            f"shape [{packed.out_features}] and the dtype of x ({x.dtype}) or torch.float32, on "
            f"{x.device}"
        )
