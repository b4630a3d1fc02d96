"""What is stored of every parameter, checked against what the config asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from glm_core.checkpoint.files import CheckpointError
from glm_core.checkpoint.folder import REMEDY, WeightFolder
from glm_core.checkpoint.formats import Format
from glm_core.checkpoint.keymap import Entry, Table, ignores, shape_on_rank
from glm_core.checkpoint.stored import StoredTensor
from glm_core.model.config import TransformerConfig
from glm_core.quantize.layout import GROUPS, SCALE_SUFFIX, ZERO_SUFFIX, Layout

STATE_DICT = "module."
"""What DeepSpeed, Megatron and SwissArmyTransformer keep the weights under."""
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a parameter is once it is read."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    """As stored; fp16 for quantized rows."""
    layout: Layout | None
    """How it is stored when it is quantized."""

    @property
    def bits(self) -> int | None:
        """8 or 4 when it is stored quantized."""
        return None if self.layout is None else self.layout.bits

    @property
    def num_elements(self) -> int:
        """Elements of the parameter."""
        return torch.Size(self.shape).numel()

    @property
    def num_bytes(self) -> int:
        """Bytes of the parameter once it is read."""
        return self.num_elements * self.dtype.itemsize


@dataclass(frozen=True)
class Inspection:
    """The files of a checkpoint beside its table.

    Args:
        files: the open folder.
        format: what it is.
        config: of the model.
        table: of the format, for this model.
        entries: the parameters in it, by our names.
    """

    files: WeightFolder
    format: Format
    config: TransformerConfig
    table: Table
    entries: Mapping[str, Entry]

    def run(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, TensorInfo]:
        """Checks every tensor.

        Args:
            shapes: of the model's parameters.

        Raises:
            CheckpointError: a tensor is missing, unknown, or of the wrong shape or dtype.
        """
        found = {name: self._parameter(name, shape) for name, shape in shapes.items()}
        self._check_extra(found)
        return found

    def _parameter(self, name: str, shape: tuple[int, ...]) -> TensorInfo:
        entry, folder = self.entries.get(name), self.files.path
        if entry is None:
            raise CheckpointError(
                f"format {self.format} has no place for {name}: {folder} is of another format, "
                "name it with --from"
            )
        try:
            wanted = shape_on_rank(entry, self.config, shape, len(self.files.ranks))
        except ValueError as error:
            raise CheckpointError(f"{folder}: {error}") from error
        found = [
            self._stored(rank, theirs, size, may_be_rows=not entry.transposed)
            for rank in range(len(self.files.ranks))
            for theirs, size in wanted.items()
        ]
        if len(set(found)) > 1:
            kinds = sorted({str(layout) if layout else _name(dtype) for dtype, layout in found})
            raise CheckpointError(
                f"{folder} stores the parts of {name} as {' and '.join(kinds)}: they must be of "
                f"one kind; {REMEDY}"
            )
        return TensorInfo(shape, *found[0])

    def _stored(
        self, rank: int, theirs: str, wanted: tuple[int, ...], may_be_rows: bool
    ) -> tuple[torch.dtype, Layout | None]:
        """Dtype and layout of what a rank stores of a parameter."""
        tensors, ranks = self.files.ranks[rank], len(self.files.ranks)
        where = f"{self.files.path} (rank {rank})" if ranks > 1 else str(self.files.path)
        if theirs not in tensors:
            raise CheckpointError(f"{where} lacks the tensor {theirs}: {REMEDY}")
        stored, scale = tensors[theirs], tensors.get(theirs + SCALE_SUFFIX)
        layout = None
        is_quantized = stored.dtype == torch.int8 and scale is not None and len(wanted) == 2
        if is_quantized and may_be_rows:
            assert scale is not None
            bits = _bits(stored, wanted)
            zero = tensors.get(theirs + ZERO_SUFFIX) if self.format.holds_groups else None
            if bits and self.format.holds_groups and (zero or len(scale.shape) == 2):
                layout = _grouped(bits, scale, zero, theirs, wanted, where)
            else:
                _check_scale(scale, theirs, wanted, where)
                layout = Layout(bits) if bits else None
        elif stored.dtype not in _FLOATS:
            raise CheckpointError(
                f"{where} stores {theirs} as {_name(stored.dtype)}: weights must be float16, "
                f"bfloat16, float32 or float64, or int8 with {theirs}{SCALE_SUFFIX} beside them; "
                f"{REMEDY}"
            )
        if layout is None and stored.shape != wanted:
            is_shared = self.files.is_tensor_parallel
            of_ranks = f", from {ranks} ranks (is a file missing?)," if is_shared else ""
            raise CheckpointError(
                f"{where} stores {theirs} with shape {list(stored.shape)}: config.json and the "
                f"other tensors{of_ranks} ask for {list(wanted)}; {REMEDY}"
            )
        return (torch.float16 if layout else stored.dtype), layout

    def _check_extra(self, found: Mapping[str, TensorInfo]) -> None:
        known: set[str] = set()
        for name, info in found.items():
            names = self.entries[name].names
            known.update(names)
            for suffix in info.layout.suffixes if info.layout else ():
                known.update(theirs + suffix for theirs in names)
        for rank, tensors in enumerate(self.files.ranks):
            for name in tensors:
                if name not in known and not self._is_ignored(name):
                    raise CheckpointError(self._why_extra(name, rank))

    def _is_ignored(self, name: str) -> bool:
        is_training_state = self.format.is_tensor_parallel and not name.startswith(STATE_DICT)
        return is_training_state or ignores(self.table, name.removesuffix(SCALE_SUFFIX))

    def _why_extra(self, name: str, rank: int) -> str:
        where = f" (rank {rank})" if len(self.files.ranks) > 1 else ""
        return (
            f"{self.files.path} has the tensor {name}{where}, which is no part of a {self.format} "
            f"model with {self.config.num_layers} layers: the files are of another format (name it "
            "with --from) or of another config.json"
        )


def _bits(stored: StoredTensor, wanted: tuple[int, ...]) -> int | None:
    """8 or 4, by how many columns share a byte."""
    if stored.shape[:1] != wanted[:1] or len(stored.shape) != 2:
        return None
    return {wanted[1]: 8, wanted[1] / 2: 4}.get(stored.shape[1])


def _grouped(
    bits: int,
    scale: StoredTensor,
    zero: StoredTensor | None,
    theirs: str,
    wanted: tuple[int, ...],
    where: str,
) -> Layout:
    """The layout of a matrix whose columns have several scales, or whose scales zero points."""
    group = wanted[1] // max(1, scale.shape[1]) if len(scale.shape) == 2 else 0
    if group in (0, *GROUPS):
        layout = Layout(bits, group, zero is None)
        kinds = layout.kinds(*wanted) if group == 0 or wanted[1] % group == 0 else {}
        stored = {SCALE_SUFFIX: scale} | ({} if zero is None else {ZERO_SUFFIX: zero})
        if kinds and all((t.dtype, t.shape) == kinds[name] for name, t in stored.items()):
            return layout
    zeros = "" if zero is None else f" and {theirs}{ZERO_SUFFIX} as {_name(zero.dtype)} "
    raise CheckpointError(
        f"{where} stores {theirs}{SCALE_SUFFIX} as {_name(scale.dtype)} {list(scale.shape)}"
        f"{zeros}{'' if zero is None else list(zero.shape)}: for {list(wanted)} scales must be "
        f"float16 [{wanted[0]}] or [{wanted[0]}, groups of 32, 64 or 128], zero points int8 of "
        f"the same shape; {REMEDY}"
    )


def _check_scale(scale: StoredTensor, theirs: str, wanted: tuple[int, ...], where: str) -> None:
    if scale.shape != (wanted[0],) or scale.dtype not in _FLOATS:
        raise CheckpointError(
            f"{where} stores {theirs}{SCALE_SUFFIX} as {_name(scale.dtype)} {list(scale.shape)}: "
            f"it must be float16 [{wanted[0]}], one scale per row; {REMEDY}"
        )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
