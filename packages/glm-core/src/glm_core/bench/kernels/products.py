"""Weight-only products as contests: one row of x (GEMV) against reading memory, and more rows.

For one row a result is in GB/s of the weight with its scales, which every token has to read; for
more it is in Gop/s, two operations for each weight and row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from glm_core.bench.clock import Call
from glm_core.bench.kernels.contest import Contender, Contest
from glm_core.bench.kernels.goal import READ_BANDWIDTH
from glm_core.bench.kernels.product_peers import Peers
from glm_core.bench.kernels.sizes import Sizes
from glm_kernels import PackedWeight, dequantize_packed, dispatch, linear_weight_only
from glm_kernels.memory import empty_on_huge_pages
from glm_kernels.weight_only import BLOCK, UNIT, ActivationBits

OP = "linear_weight_only"
FORMATS: dict[str, tuple[int, int | None]] = {
    "linear_int4_g32": (4, 32),
    "linear_int4_g128": (4, 128),
    "linear_int4_rows": (4, None),
    "linear_int8_rows": (8, None),
}
"""Bits of a weight, and columns that share a scale; whole rows are the released layout."""
CHECKED_BLOCKS = 64
"""Of 16 rows each: the part of a result whose error is measured."""
READ_PIECE = 1 << 28
"""Bytes read by one call of the limit."""


def contests(
    ops: Sequence[str], sizes: Sizes, device: torch.device, with_compile: bool
) -> Iterator[Contest]:
    """A contest for each shape, number of rows and format."""
    reading = Reading(sizes.megabytes, device)
    for shape in sizes.products:
        # Weights live as long as this call: those of two shapes never stand beside each other.
        yield from _of_shape(shape, ops, sizes, reading, with_compile)


def _of_shape(
    shape: tuple[int, int], ops: Sequence[str], sizes: Sizes, reading: Reading, with_compile: bool
) -> Iterator[Contest]:
    device = reading.device
    peers = Peers(shape, sizes.megabytes, device, with_compile)
    weights = {op: packed_copies(shape, *FORMATS[op], sizes.megabytes, device) for op in ops}
    for rows in sizes.rows:
        if rows * shape[0] * shape[1] > sizes.most_multiplications:
            continue
        x = torch.randn(rows, shape[0], device=device)
        for op, packed in weights.items():
            made = contest(op, x, packed, peers, reading)
            if device.type == "cuda":
                made.record()
            yield made


def count(ops: Sequence[str], sizes: Sizes) -> int:
    """How many contests there will be."""
    return len(ops) * sum(
        rows * columns * outputs <= sizes.most_multiplications
        for columns, outputs in sizes.products
        for rows in sizes.rows
    )


def contest(
    op: str, x: Tensor, packed: Sequence[PackedWeight], peers: Peers, reading: Reading
) -> Contest:
    """Ours with 15-bit activations, and with 8-bit ones for more than one row, against peers."""
    device, rows = x.device, len(x)
    bits, group = FORMATS[op]
    operations = 2.0 * rows * packed[0].in_features * packed[0].out_features
    choices: tuple[ActivationBits, ...] = (15,)
    if device.type == "cuda":
        x = x.bfloat16()
    elif rows > 1:
        choices = (15, 8)
    limits = reading.contenders() if rows == 1 else []
    work = float(packed[0].nbytes) if rows == 1 else operations
    return Contest(
        op=op,
        part="",
        shape=f"{rows}x{packed[0].in_features}x{packed[0].out_features}",
        dtype=str(x.dtype).removeprefix("torch."),
        ours=[our_side(x, packed, bits, work) for bits in choices],
        peers=[*limits, *peers.contenders(x, bits, group, None if rows == 1 else operations)],
        unit="GB/s" if rows == 1 else "Gop/s",
    )


def our_side(
    x: Tensor, packed: Sequence[PackedWeight], activation_bits: ActivationBits, work: float
) -> Contender:
    """Our product, each call with another copy of the weight."""

    def call(weight: PackedWeight) -> Call:
        return lambda: linear_weight_only(x, weight, activation_bits=activation_bits)

    on_cpu = x.device.type == "cpu"
    return Contender(
        name=f"{activation_bits}-bit activations" if on_cpu else "16-bit activations",
        calls=[call(weight) for weight in packed],
        work=work,
        code=dispatch(OP, x.device.type).__module__.removeprefix("glm_kernels."),
        error=relative_error(x, packed[0], activation_bits),
    )


@torch.no_grad()
def relative_error(x: Tensor, packed: PackedWeight, activation_bits: ActivationBits) -> float:
    """Of the first outputs, against the dequantized weight in fp64."""
    weight = dequantize_packed(packed, blocks=slice(0, CHECKED_BLOCKS)).double()
    right = x.double() @ weight.T
    got = linear_weight_only(x, packed, activation_bits=activation_bits)[:, : len(weight)]
    return float((got.double() - right).norm() / right.norm())


def packed_copies(
    shape: tuple[int, int], bits: int, group: int | None, megabytes: int, device: torch.device
) -> list[PackedWeight]:
    """Copies of a weight of random levels, more than `megabytes` together.

    They are made in the order of the kernels: bringing them into it would take minutes.
    """
    columns, rows = shape
    blocks, units = -(-rows // BLOCK), -(-columns // UNIT)
    groups = 1 if group is None else columns // group
    size = (blocks, units * UNIT * BLOCK * bits // 8)
    first = PackedWeight(
        levels=torch.randint(0, 256, size, dtype=torch.uint8, device=device),
        scales=torch.rand((blocks, groups, BLOCK), device=device).half() * 0.01,
        zeros=None,
        out_features=rows,
        in_features=columns,
        bits=bits,
        group=group,
    )
    return [clone(first) for _ in range(num_copies(first.nbytes, megabytes))]


def clone(packed: PackedWeight) -> PackedWeight:
    """A copy, on huge pages as `pack_weight` makes it."""

    def copy(tensor: Tensor) -> Tensor:
        if tensor.device.type != "cpu":
            return tensor.clone()
        return empty_on_huge_pages(tensor.shape, tensor.dtype).copy_(tensor)

    return dataclasses.replace(packed, levels=copy(packed.levels), scales=copy(packed.scales))


def num_copies(nbytes: int, megabytes: int) -> int:
    """How many copies take more than `megabytes`."""
    return (megabytes << 20) // nbytes + 1


class Reading:
    """What the machine reads: two ways in which torch goes once through a lot of memory."""

    def __init__(self, megabytes: int, device: torch.device) -> None:
        self.device = device
        nbytes = min(READ_PIECE, megabytes << 20)
        shape, width = (nbytes // 4 // 4096, 4096), 4096
        self.vector = torch.ones(width, device=device)
        self.pieces = [self._piece(shape) for _ in range(num_copies(nbytes, megabytes))]

    def contenders(self) -> list[Contender]:
        """Both ways; the goal is to keep up with the faster one."""
        nbytes = float(self.pieces[0].nbytes)
        goal = READ_BANDWIDTH[self.device.type]
        return [
            Contender(f"reading memory, {name}", calls, nbytes, goal, is_limit=True)
            for name, calls in (("mv", self._products()), ("sum", self._sums()))
        ]

    def _products(self) -> list[Call]:
        return [lambda piece=piece: torch.mv(piece, self.vector) for piece in self.pieces]  # type: ignore[misc]

    def _sums(self) -> list[Call]:
        return [lambda piece=piece: piece.sum() for piece in self.pieces]  # type: ignore[misc]

    def _piece(self, shape: tuple[int, int]) -> Tensor:
        if self.device.type != "cpu":
            return torch.full(shape, 0.5, device=self.device)
        return empty_on_huge_pages(shape, torch.float32).fill_(0.5)
