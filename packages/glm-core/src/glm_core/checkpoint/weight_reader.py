"""The weights of an open checkpoint as a model wants them: its dtype, its bits, its device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from glm_core.checkpoint.files import CheckpointError
from glm_core.checkpoint.mapped import MappedFiles
from glm_core.checkpoint.released import Checkpoint
from glm_core.progress import Progress
from glm_core.quantize.linear import RowQuantizedLinear
from glm_core.quantize.quantize import quantize_
from glm_core.quantize.layout import SCALE_SUFFIX
from glm_core.quantize.rows import quantize_rows

if TYPE_CHECKING:
    from glm_core.model.transformer import Transformer


class WeightReader:
    """Reads one parameter at a time; the memory beside the model is that of one tensor.

    Args:
        dtype: of what is not quantized.
        bits: of the matrices of the blocks; None for numbers.
        line: counts the MB that are read.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        dtype: torch.dtype,
        bits: int | None,
        device: torch.device,
        line: Progress | None = None,
    ) -> None:
        self.checkpoint, self.dtype, self.bits, self.device = (
            checkpoint,
            dtype,
            bits,
            device,
        )
        self.mapped_bytes = 0
        self._line = line
        self._files = MappedFiles()
        self._latest: dict[str, Tensor] = {}
        self._rows = {
            f"{name}.weight"
            for name, module in self.empty_model().named_modules()
            if isinstance(module, RowQuantizedLinear)
        }

    def empty_model(self) -> Transformer:
        """The model that the weights are for, without storage."""
        from glm_core.model.size import meta_transformer

        model = meta_transformer(self.checkpoint.config).to(self.dtype)
        if self.bits is not None:
            quantize_(model, self.bits)
        return model

    def read(self, name: str) -> dict[str, Tensor]:
        """A parameter on the device: the numbers, or quantized rows and their scales.

        On the CPU what lies in the file as it is needed is mapped, not read.
        """
        found = self._quantized(name) if name in self._rows else {name: self._numbers(name)}
        self.count(sum(tensor.nbytes for tensor in found.values()))
        return found

    def read_into(self, name: str, out: Tensor) -> None:
        """Fills `out` with what the model has under `name`; see `offload.WeightSource`."""
        matrix = name.removesuffix(SCALE_SUFFIX)
        if matrix not in self._rows:
            self.checkpoint.read_into(name, out)
            return
        if self.checkpoint.info(matrix).bits != self.bits:
            if name not in self._latest:
                self._latest = self._quantized(matrix)
            out.copy_(self._latest.pop(name))
        elif name == matrix:
            self.checkpoint.read_levels(name, out)
        else:
            out.copy_(self.checkpoint.read_scale(matrix))

    def check_streamable(self) -> None:
        """Checks that layers can be read again for every token.

        Raises:
            CheckpointError: they would have to be quantized each time.
        """
        if all(self.checkpoint.info(name).bits == self.bits for name in self._rows):
            return
        raise CheckpointError(
            f"quantize is int{self.bits}, but {self.checkpoint.folder} is not stored so, and its "
            "layers, which come from the disk for every token, cannot be quantized each time: "
            f"`glm convert {self.checkpoint.folder} OUT --quantize int{self.bits}` once, and load "
            "OUT"
        )

    def count(self, num_bytes: int) -> None:
        """Tells the progress line of bytes that were read."""
        if self._line is not None:
            self._line.add(num_bytes / 1e6)

    def _numbers(self, name: str) -> Tensor:
        """A parameter in the model's dtype."""
        info = self.checkpoint.info(name)
        if self.device.type != "cpu":
            # crosses to the device as it is stored, seldom wider than what it becomes
            return self.checkpoint.read(name).to(self.device).to(self.dtype)
        if info.bits is None and info.dtype == self.dtype:
            mapped = self._mapped(name)
            if mapped is not None:
                return mapped[0]
        return self.checkpoint.read(name, self.dtype)

    def _quantized(self, name: str) -> dict[str, Tensor]:
        """A matrix as quantized rows: as they are stored, or quantized here."""
        assert self.bits is not None
        if self.checkpoint.info(name).bits != self.bits:
            rows = quantize_rows(self.checkpoint.read(name).to(self.device), self.bits)
        else:
            mapped = self._mapped(name) if self.device.type == "cpu" else None
            rows = self.checkpoint.read_rows(name) if mapped is None else mapped
        levels, scale = rows
        return {
            name: levels.to(self.device),
            f"{name}{SCALE_SUFFIX}": scale.to(self.device),
        }

    def _mapped(self, name: str) -> tuple[Tensor, Tensor] | None:
        """The parameter as a view of its file, and its scales (empty if it has none)."""
        piece = self.checkpoint.in_one_piece(name)
        tensor = None if piece is None else self._files.tensor(piece[0])
        if piece is None or tensor is None:
            return None
        self.mapped_bytes += tensor.nbytes
        scale = torch.empty(0) if piece[1] is None else piece[1].read().half()
        return tensor, scale
