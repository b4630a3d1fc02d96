"""The weights of an open checkpoint as a model wants them: its dtype, its bits, its device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from glm_core.checkpoint.files import CheckpointError
from glm_core.checkpoint.mapped import MappedFiles
from glm_core.checkpoint.released import Checkpoint
from glm_core.progress import Progress
from glm_core.quantize.layout import SCALE_SUFFIX, ZERO_SUFFIX, Layout
from glm_core.quantize.matrix import QuantizedMatrix, quantize_matrix
from glm_core.quantize.quantize import replace_
from glm_core.quantize.weight import has_kernel

if TYPE_CHECKING:
    from glm_core.model.transformer import Transformer


class WeightReader:
    """Reads one parameter at a time; the memory beside the model is that of one tensor.

    Args:
        dtype: of what is not quantized.
        layouts: modules whose matrix the model has quantized, by name.
        line: counts the MB that are read.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        dtype: torch.dtype,
        layouts: Mapping[str, Layout],
        device: torch.device,
        line: Progress | None = None,
    ) -> None:
        self.checkpoint, self.dtype, self.device = checkpoint, dtype, device
        self.mapped_bytes = 0
        self._modules = dict(layouts)
        self._layouts = {f"{name}.weight": layout for name, layout in layouts.items()}
        self._line = line
        self._files = MappedFiles()
        self._latest: dict[str, Tensor] = {}

    def empty_model(self) -> Transformer:
        """The model that the weights are for, without storage."""
        from glm_core.model.size import meta_transformer

        model = meta_transformer(self.checkpoint.config).to(self.dtype)
        replace_(model, self._modules)
        return model

    def read(self, name: str) -> dict[str, Tensor]:
        """A parameter on the device: the numbers, or what is stored of a quantized matrix.

        On the CPU what lies in the file as it is needed is mapped, not read.
        """
        found = self._quantized(name) if name in self._layouts else {name: self._numbers(name)}
        self.count(sum(tensor.nbytes for tensor in found.values()))
        return found

    def read_into(self, name: str, out: Tensor) -> None:
        """Fills `out` with what the model has under `name`; see `offload.WeightSource`."""
        matrix = name.removesuffix(SCALE_SUFFIX).removesuffix(ZERO_SUFFIX)
        if matrix not in self._layouts:
            self.checkpoint.read_into(name, out)
        elif not self._is_stored(matrix):
            if name not in self._latest:
                self._latest = self._quantized(matrix)
            out.copy_(self._latest.pop(name))
        elif name == matrix:
            self.checkpoint.read_levels(name, out)
        else:
            out.copy_(self.checkpoint.read_scale(matrix, name.removeprefix(matrix)))

    def check_streamable(self) -> None:
        """Checks that layers can be read again for every token.

        Raises:
            CheckpointError: they would have to be quantized each time.
        """
        if all(map(self._is_stored, self._layouts)):
            return
        bits = next(iter(self._layouts.values())).bits
        raise CheckpointError(
            f"quantize is int{bits}, but {self.checkpoint.folder} is not stored so, and its "
            "layers, which come from the disk for every token, cannot be quantized each time: "
            f"`glm convert {self.checkpoint.folder} OUT --quantize int{bits}` once, and load "
            "OUT"
        )

    def count(self, num_bytes: int) -> None:
        """Tells the progress line of bytes that were read."""
        if self._line is not None:
            self._line.add(num_bytes / 1e6)

    def _numbers(self, name: str) -> Tensor:
        """A parameter in the dtype that the model has it in."""
        info, dtype = self.checkpoint.info(name), self._dtype_of(name)
        if self.device.type != "cpu":
            # crosses to the device as it is stored, seldom wider than what it becomes
            return self.checkpoint.read(name).to(self.device).to(dtype)
        if info.layout is None and info.dtype == dtype:
            mapped = self._mapped(name)
            if mapped is not None:
                self.mapped_bytes += mapped[""].nbytes
                return mapped[""]
        return self.checkpoint.read(name, dtype)

    def _dtype_of(self, name: str) -> torch.dtype:
        is_norm = name.rpartition(".")[0].endswith("norm")
        return torch.float32 if is_norm and self.checkpoint.config.has_single_norms else self.dtype

    def _is_stored(self, name: str) -> bool:
        """Whether a matrix is stored as the model has it."""
        return self.checkpoint.layout(name) == self._layouts[name]

    def _quantized(self, name: str) -> dict[str, Tensor]:
        """What is stored of a quantized matrix: read, or quantized here."""
        layout = self._layouts[name]
        if self._is_stored(name):
            mapped = self._mapped(name) if self.device.type == "cpu" else None
            if mapped is None:
                return self.checkpoint.read_matrix(name).to(self.device).tensors(name)
            if not has_kernel(self.device):  # a kernel has its own copy, in its own order
                self.mapped_bytes += mapped[""].nbytes
            return QuantizedMatrix.of(mapped, layout).tensors(name)
        try:
            matrix = quantize_matrix(self.checkpoint.read(name).to(self.device), layout)
        except ValueError as error:
            raise CheckpointError(f"{self.checkpoint.folder}, {name}: {error}") from error
        return matrix.tensors(name)

    def _mapped(self, name: str) -> dict[str, Tensor] | None:
        """A parameter by the suffixes of its names, the largest as a view of its file."""
        pieces = self.checkpoint.in_one_piece(name)
        view = None if pieces is None else self._files.tensor(pieces[""])
        if pieces is None or view is None:
            return None
        rest = {suffix: piece.read() for suffix, piece in pieces.items() if suffix}
        if rest:
            rest[SCALE_SUFFIX] = rest[SCALE_SUFFIX].half()
        return {"": view} | rest
