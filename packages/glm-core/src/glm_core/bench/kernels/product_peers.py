"""torch's own quantized products, and plain linear layers, on the same shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from glm_core.bench.clock import Call
from glm_core.bench.kernels.contest import Contender, peer
from glm_core.bench.kernels.goal import TORCH_INT4

INNER_TILES = 8
"""How torch's int4 weights are interleaved on a GPU: 2, 4 or 8 tiles of 16 columns."""
_NO_ROWS = "torch's int4 product has no scales of whole rows"


class Peers:
    """Weights of one shape for the peers, made when they are asked for and kept."""

    def __init__(
        self, shape: tuple[int, int], megabytes: int, device: torch.device, with_compile: bool
    ) -> None:
        self.columns, self.outputs = shape
        self.megabytes, self.device, self.with_compile = megabytes, device, with_compile
        self._weights: dict[str, list[tuple[Tensor, ...]]] = {}

    def contenders(
        self, x: Tensor, bits: int, group: int | None, operations: float | None
    ) -> list[Contender]:
        """Everything that can take the place of a product with weights of so many bits.

        Args:
            x: [M, K].
            bits: of our weight.
            group: of our weight, None for whole rows.
            operations: of a product; None to count the bytes of the weight instead.
        """
        names = ["torch int4" if bits == 4 else "torch int8"]
        names += ["bf16 linear"] if operations is None else ["torch._int_mm", "bf16 linear"]
        if operations is not None and self.device.type == "cpu":
            names.append("fp32 linear")
        return [self._contender(name, x, group, operations) for name in names]

    def _contender(
        self, name: str, x: Tensor, group: int | None, operations: float | None
    ) -> Contender:
        goal = None
        if name == "torch int4":
            if group is None:
                return Contender(name, [], reason=_NO_ROWS)
            if self.device.type == "cuda":
                name, goal = ("torch.compile int4" if self.with_compile else name), TORCH_INT4
        if self.device.type == "cpu" and name in ("torch int4", "torch int8"):
            name += ", bf16 activations"  # with fp32 ones it is ten times slower
        contender = peer(name, lambda: self._calls(name, x, group), goal=goal)
        if not contender.reason:
            kept = self._weights[_kind(name, group)][0]
            nbytes = float(sum(tensor.nbytes for tensor in kept))
            contender.work = nbytes if operations is None else operations
        return contender

    def _calls(self, name: str, x: Tensor, group: int | None) -> list[Call]:
        product, x = self._product(name, x, group)
        kind = _kind(name, group)
        if kind not in self._weights:
            self._weights[kind] = self._copies(self._make(kind, group))
        return [partial(product, x, *weights) for weights in self._weights[kind]]

    def _product(
        self, name: str, x: Tensor, group: int | None
    ) -> tuple[Callable[..., Tensor], Tensor]:
        """The function of x and a weight, and x as it wants it."""
        if name == "torch._int_mm":  # the product alone: rounding x and scaling cost nothing here
            return lambda x, levels, _: torch._int_mm(x, levels.t()), (x * 40).to(torch.int8)
        if name == "fp32 linear":
            return F.linear, x.float()
        x = x.bfloat16()
        if name == "bf16 linear":
            return F.linear, x
        aten = torch.ops.aten
        if name.startswith("torch int8"):
            return aten._weight_int8pack_mm, x
        run: Any = aten._weight_int4pack_mm
        if self.device.type == "cpu":
            run = aten._weight_int4pack_mm_for_cpu

        def int4(x: Tensor, levels: Tensor, scales: Tensor) -> Tensor:
            out: Tensor = run(x, levels, group, scales)
            return out

        return torch.compile(int4, dynamic=False) if "compile" in name else int4, x

    def _make(self, kind: str, group: int | None) -> tuple[Tensor, ...]:
        """One weight with its scales, random."""
        rows, columns, device = self.outputs, self.columns, self.device
        if kind in ("float32", "bfloat16"):
            return (torch.randn(rows, columns, dtype=getattr(torch, kind), device=device),)
        if kind == "int8":
            levels = torch.randint(-128, 128, (rows, columns), dtype=torch.int8, device=device)
            return levels, torch.rand(rows, device=device).bfloat16()
        assert group is not None
        scales = torch.rand(columns // group, rows, 2, device=device).bfloat16()
        if device.type == "cpu":
            return torch.randint(0, 256, (rows, columns // 2), dtype=torch.uint8), scales
        shape = (rows // 8, columns // (INNER_TILES * 16), 32, INNER_TILES // 2)
        return torch.randint(2**31 - 1, shape, dtype=torch.int32, device=device), scales

    def _copies(self, weights: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
        nbytes = sum(tensor.nbytes for tensor in weights)
        more = (self.megabytes << 20) // nbytes
        copies: Sequence[tuple[Tensor, ...]] = [
            tuple(tensor.clone() for tensor in weights) for _ in range(more)
        ]
        return [weights, *copies]


def _kind(name: str, group: int | None) -> str:
    """What a peer multiplies by: several share it."""
    if name.endswith(" linear"):
        return {"bf16": "bfloat16", "fp32": "float32"}[name.removesuffix(" linear")]
    return "int8" if "int8" in name or "int_mm" in name else f"int4 {group}"
