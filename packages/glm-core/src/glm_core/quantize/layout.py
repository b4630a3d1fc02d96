"""How a quantized matrix is laid out, and which matrices of a model are quantized.

A matrix [out, in] of a parameter `NAME.weight` is stored, in files and in `state_dict`, as

    NAME.weight         int8 [out, in * bits / 8]  levels
    NAME.weight_scale   fp16 [out]                 one scale per row (group 0), or
                        fp16 [out, in / group]     one per `group` columns that lie side by side
    NAME.weight_zero    int8, shape of the scale   only asymmetric: the level that stands for 0

With 4 bits a byte holds two columns, the even one in its high half, the odd one in its low half,
both two's complement. It means weight = scale * (level - zero). Per row and symmetric is the layout
of released GLM weights, bit for bit. Groups lie along the input, so that a share of the columns
that is a multiple of the group, or any share of the rows, has the same levels whether the matrix is
quantized before or after it is split among tensor-parallel ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

BITS = (8, 4)
GROUPS = (32, 64, 128)
SCALE_SUFFIX = "_scale"
"""After the name of a quantized matrix: the name of its scales."""
ZERO_SUFFIX = "_zero"
"""After the name of a quantized matrix: the name of its zero points."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How one matrix is laid out.

    Raises:
        ValueError: bits is not 8 or 4, or there is no such group.
    """

    bits: int
    group: int = 0
    """Columns that share a scale: 32, 64, 128, or 0 for whole rows."""
    symmetric: bool = True
    """Whether level 0 stands for 0; otherwise every scale has a zero point."""

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise ValueError(f"bits is {self.bits}: a quantized matrix has 8 or 4 bits per weight")
        if self.group not in (0, *GROUPS):
            raise ValueError(
                f"group is {self.group}: it can be 32, 64 or 128 columns, or 0 for one scale per "
                "row"
            )

    @property
    def is_released(self) -> bool:
        """Whether released GLM weights are laid out so."""
        return self.group == 0 and self.symmetric

    @property
    def bytes_per_scale(self) -> int:
        """Bytes of a scale with its zero point."""
        return 2 if self.symmetric else 3

    @property
    def suffixes(self) -> tuple[str, ...]:
        """What stands after the name of the matrix in the names of what is stored of it."""
        return ("", SCALE_SUFFIX) if self.symmetric else ("", SCALE_SUFFIX, ZERO_SUFFIX)

    @property
    def bits_per_weight(self) -> float:
        """Bits of a weight with its share of scale and zero point; those of whole rows count 0."""
        if not self.group:
            return float(self.bits)
        return self.bits + 8 * self.bytes_per_scale / self.group

    def groups(self, columns: int) -> int:
        """How many scales a row of so many columns has.

        Raises:
            ValueError: the columns cannot be laid out so.
        """
        packed_columns(columns, self.bits)
        if self.group and columns % self.group:
            fitting = [group for group in GROUPS if columns % group == 0]
            remedy = f"group={fitting[-1]} or " if fitting else ""
            raise ValueError(
                f"a matrix with {columns} columns (input features) cannot have groups of "
                f"{self.group}: they must divide it; use {remedy}group=0, one scale per row"
            )
        return columns // self.group if self.group else 1

    def kinds(self, rows: int, columns: int) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """Dtype and shape of what is stored of a matrix, by the suffix of its name.

        Raises:
            ValueError: the matrix cannot be laid out so.
        """
        scale = (rows, self.groups(columns)) if self.group else (rows,)
        kinds: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
            "": (torch.int8, (rows, packed_columns(columns, self.bits))),
            SCALE_SUFFIX: (torch.float16, scale),
        }
        return kinds if self.symmetric else kinds | {ZERO_SUFFIX: (torch.int8, scale)}

    def empty(
        self, rows: int, columns: int, device: torch.device | str | None = None
    ) -> dict[str, Tensor]:
        """Memory for what is stored of a matrix, by the suffix of its name."""
        return {
            suffix: torch.empty(shape, dtype=dtype, device=device)
            for suffix, (dtype, shape) in self.kinds(rows, columns).items()
        }

    def __str__(self) -> str:
        where = f"groups of {self.group}" if self.group else "rows"
        return f"int{self.bits} {where}{'' if self.symmetric else ', asymmetric'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeConfig:
    """What of a model is quantized, and how.

    Raises:
        ValueError: bits is not 8 or 4, or there is no such group.
    """

    bits: int
    group: int = 0
    """Columns that share a scale: 32, 64, 128, or 0 for whole rows, as released weights have it."""
    symmetric: bool = True
    """Whether level 0 stands for 0; otherwise every scale has a zero point."""
    embeddings: bool = False
    """Whether the word embeddings are quantized; where the head is the same matrix, so is the
    head."""
    head: bool = False
    """Whether the head is quantized; where it is the word embeddings, so are they."""
    skip: tuple[str, ...] = ()
    """Modules to leave, with all that is below them: names or patterns, "layers.0",
    "layers.*.mlp.dense_4h_to_h"."""

    def __post_init__(self) -> None:
        Layout(self.bits, self.group, self.symmetric)
        if isinstance(self.skip, str) or not all(isinstance(name, str) for name in self.skip):
            raise ValueError(f"skip is {self.skip!r}: it must be a tuple of names or patterns")

    @property
    def layout(self) -> Layout:
        """How each matrix is laid out."""
        return Layout(self.bits, self.group, self.symmetric)

    def skips(self, name: str) -> bool:
        """Whether a module is left as it is."""
        return any(matches(name, pattern) for pattern in self.skip)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self) | {"skip": list(self.skip)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> QuantizeConfig:
        """Undoes `to_dict`.

        Raises:
            ValueError: there is a field that is unknown, missing or of the wrong kind.
        """
        kinds = {"bits": int, "group": int, "skip": list}
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown or "bits" not in values:
            raise ValueError(f"{unknown[0]!r} is unknown" if unknown else "'bits' is missing")
        for name, value in values.items():
            if type(value) is not kinds.get(name, bool):
                raise ValueError(f"{name} is {value!r}: that is of the wrong kind")
        return cls(**{**values, "skip": tuple(values.get("skip", ()))})


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern names a module or one above it."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def packed_columns(columns: int, bits: int) -> int:
    """Returns how many bytes a row of so many columns takes.

    Raises:
        ValueError: bits is neither 8 nor 4, or the columns do not fill whole bytes.
    """
    if bits not in BITS:
        raise ValueError(f"bits is {bits}: a quantized matrix has 8 or 4 bits per weight")
    if columns * bits % 8:
        raise ValueError(
            f"a matrix with {columns} columns cannot have 4 bits per weight, two columns to a "
            "byte: the number of columns must be even; use bits=8"
        )
    return columns * bits // 8
