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
from glm_core.quantize.layout import SCALE_SUFFIX

STATE_DICT = "module."
"""What DeepSpeed, Megatron and SwissArmyTransformer keep the weights under."""
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a parameter is once it is read."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    """As stored; fp16 for quantized rows."""
    bits: int | None
    """8 or 4 when it is stored as quantized rows."""

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
            self._stored(rank, theirs, size)
            for rank in range(len(self.files.ranks))
            for theirs, size in wanted.items()
        ]
        if len(set(found)) > 1:
            kinds = sorted({f"int{bits} rows" if bits else _name(dtype) for dtype, bits in found})
            raise CheckpointError(
                f"{folder} stores the parts of {name} as {' and '.join(kinds)}: they must be of "
                f"one kind; {REMEDY}"
            )
        return TensorInfo(shape, *found[0])

    def _stored(
        self, rank: int, theirs: str, wanted: tuple[int, ...]
    ) -> tuple[torch.dtype, int | None]:
        """Dtype and bits of what a rank stores of a parameter."""
        tensors, ranks = self.files.ranks[rank], len(self.files.ranks)
        where = f"{self.files.path} (rank {rank})" if ranks > 1 else str(self.files.path)
        if theirs not in tensors:
            raise CheckpointError(f"{where} lacks the tensor {theirs}: {REMEDY}")
        stored, scale = tensors[theirs], tensors.get(theirs + SCALE_SUFFIX)
        bits = None
        if stored.dtype == torch.int8 and scale is not None and len(wanted) == 2:
            bits = _bits(stored, wanted)
            _check_scale(scale, theirs, wanted, where)
        elif stored.dtype not in _FLOATS:
            raise CheckpointError(
                f"{where} stores {theirs} as {_name(stored.dtype)}: weights must be float16, "
                f"bfloat16, float32 or float64, or int8 with {theirs}{SCALE_SUFFIX} beside them; "
                f"{REMEDY}"
            )
        if bits is None and stored.shape != wanted:
            of_ranks = f", from {ranks} ranks," if self.files.is_tensor_parallel else ""
            raise CheckpointError(
                f"{where} stores {theirs} with shape {list(stored.shape)}: config.json and the "
                f"other tensors{of_ranks} ask for {list(wanted)}; {REMEDY}"
            )
        return (torch.float16 if bits else stored.dtype), bits

    def _check_extra(self, found: Mapping[str, TensorInfo]) -> None:
        known: set[str] = set()
        for name, info in found.items():
            names = self.entries[name].names
            known.update(names)
            if info.bits:
                known.update(theirs + SCALE_SUFFIX for theirs in names)
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


def _check_scale(scale: StoredTensor, theirs: str, wanted: tuple[int, ...], where: str) -> None:
    if scale.shape != (wanted[0],) or scale.dtype not in _FLOATS:
        raise CheckpointError(
            f"{where} stores {theirs}{SCALE_SUFFIX} as {_name(scale.dtype)} {list(scale.shape)}: "
            f"it must be float16 [{wanted[0]}], one scale per row; {REMEDY}"
        )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
