"""An open checkpoint: whatever its format, our parameters by our names, read one at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from glm_core.checkpoint.files import CheckpointError
from glm_core.checkpoint.folder import WeightFolder, open_folder
from glm_core.checkpoint.formats import Format, detect, format_named
from glm_core.checkpoint.formats.glm_lab import parameter_shapes
from glm_core.checkpoint.inspection import Inspection, TensorInfo
from glm_core.checkpoint.keymap import (
    Split,
    Table,
    entries,
    expand,
    slots,
)
from glm_core.checkpoint.stored import StoredTensor
from glm_core.model.config import TransformerConfig
from glm_core.quantize.layout import GROUPS, SCALE_SUFFIX, Layout
from glm_core.quantize.matrix import QuantizedMatrix
from glm_core.quantize.rows import dequantize_rows, row_chunks

_CHUNK_ELEMENTS = 1 << 21


class Checkpoint:
    """A folder of weights, checked from end to end before the first weight is read.

    Args:
        folder: its files.
        format: what they are.

    Raises:
        CheckpointError: a tensor is missing, unknown, or of the wrong shape or dtype.
    """

    def __init__(self, folder: WeightFolder, format: Format) -> None:
        self.folder = folder.path
        self.files = folder
        self.format = format
        self.config: TransformerConfig = format.config_of(folder)
        self.table: Table = expand(format.table(self.config), self.config.num_layers, format.prefix)
        self.shapes = parameter_shapes(self.config)
        self._entries = entries(self.table)
        inspection = Inspection(folder, format, self.config, self.table, self._entries)
        self._info = inspection.run(self.shapes)
        self._layouts: dict[str, Layout | None] = {}

    @property
    def num_ranks(self) -> int:
        """Number of tensor-parallel ranks; 1 where the format knows none."""
        return len(self.files.ranks)

    @property
    def bits(self) -> int | None:
        """8 or 4 when the linears are stored quantized."""
        return next((info.bits for info in self._info.values() if info.bits), None)

    def names(self) -> list[str]:
        """Our names of all parameters."""
        return list(self.shapes)

    def info(self, name: str) -> TensorInfo:
        """Shape and dtype of a parameter, known without reading it."""
        return self._info[name]

    def layout(self, name: str) -> Layout | None:
        """How a matrix is quantized once its shards are joined; None where it is not.

        Ranks that shared its columns before they were quantized gave each row a scale of their own.
        Such a row is one of groups that have the same scale, with the same numbers.
        """
        if name not in self._layouts:
            layout = self._info[name].layout
            if (
                layout is not None
                and layout.is_released
                and not same_scales(self.read_scales(name))
            ):
                share = self._info[name].shape[1] // self.num_ranks
                layout = Layout(layout.bits, max((g for g in GROUPS if share % g == 0), default=0))
            self._layouts[name] = layout
        return self._layouts[name]

    def read(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """Reads a parameter into fresh memory: its shards joined, quantized rows as numbers.

        Args:
            name: one of `names()`.
            dtype: what to convert it to; None leaves it as it is stored.
        """
        info = self._info[name]
        if info.bits is None and dtype in (None, info.dtype) and self._is_in_one_piece(name):
            return self._sources(name)[0].read()
        out = torch.empty(info.shape, dtype=dtype or info.dtype)
        self.read_into(name, out)
        return out

    def read_into(self, name: str, out: Tensor) -> None:
        """Reads a parameter into `out`, converted to its dtype and device."""
        info = self._info[name]
        if info.layout is not None and not info.layout.is_released:
            out.copy_(self.read_matrix(name).dequantize(out.dtype))
            return
        for stored, scale, views in self._slots(name, out):
            if info.bits is None or scale is None:
                _load(stored, views)
            else:
                _fill(views, dequantize_rows(stored.read(), scale.read(), info.bits, out.dtype))

    def read_matrix(self, name: str) -> QuantizedMatrix:
        """Reads a parameter that is stored quantized, its shards joined.

        Raises:
            CheckpointError: as `read_scale`.
        """
        layout = self.layout(name)
        assert layout is not None, f"{name} is not quantized"
        scales = {suffix: self.read_scale(name, suffix) for suffix in layout.suffixes[1:]}
        return QuantizedMatrix.of({"": self.read_levels(name)} | scales, layout)

    def read_levels(self, name: str, out: Tensor | None = None) -> Tensor:
        """The levels of quantized rows, int8 [out, in * bits / 8]; into `out` if it is given."""
        info = self._info[name]
        assert info.bits is not None, f"{name} is not quantized"
        rows, columns = info.shape
        shape = (rows, columns * info.bits // 8)
        levels = torch.empty(shape, dtype=torch.int8) if out is None else out
        assert levels.shape == shape
        for stored, _, views in self._slots(name, levels):
            _load(stored, views)
        return levels

    def read_scale(self, name: str, suffix: str = SCALE_SUFFIX) -> Tensor:
        """The scales of a quantized matrix, or with the suffix of these its zero points.

        Raises:
            CheckpointError: ranks share its columns, each with a scale of its own, and their shares
                are not made of groups.
        """
        stored, layout = self._info[name].layout, self.layout(name)
        assert stored is not None and layout is not None, f"{name} is not quantized"
        if not stored.is_released:
            return self.files.tensors[self._entries[name].names[0] + suffix].read()
        scales = self.read_scales(name)
        if same_scales(scales):
            return scales[0]
        share = self._info[name].shape[1] // len(scales)
        if not layout.group:
            raise CheckpointError(
                f"{name} was quantized after {self.num_ranks} ranks had shared its columns, so "
                f"each row has several scales, one for {share} columns, which {GROUPS[0]} does not "
                "divide: read it as numbers (--quantize none)"
            )
        return torch.stack(scales, dim=1).repeat_interleave(share // layout.group, dim=1)

    def read_scales(self, name: str) -> list[Tensor]:
        """The scales of quantized rows, each fp16 [out]: one for every share of their columns."""
        if self._entries[name].split == Split.columns:
            theirs = self._entries[name].names[0] + SCALE_SUFFIX
            return [_read_scale(tensors[theirs], theirs) for tensors in self.files.ranks]
        scale = torch.empty(self._info[name].shape[0], dtype=torch.float16)
        for _, stored, views in self._slots(name, scale):
            assert stored is not None
            _fill(views, _read_scale(stored, name))
        return [scale]

    def in_one_piece(self, name: str) -> dict[str, StoredTensor] | None:
        """Where a parameter lies as it is needed, so that it can be mapped rather than read.

        Returns:
            By the suffix of the name: the numbers, or what is stored of a quantized matrix; None
            for a parameter that has to be joined from several tensors, or turned.
        """
        if not self._is_in_one_piece(name):
            return None
        theirs, layout = self._entries[name].names[0], self._info[name].layout
        suffixes = ("",) if layout is None else layout.suffixes
        return {suffix: self.files.tensors[theirs + suffix] for suffix in suffixes}

    def _slots(
        self, name: str, out: Tensor
    ) -> Iterator[tuple[StoredTensor, StoredTensor | None, list[Tensor]]]:
        """Each stored tensor of a parameter, its scale, and where in `out` it goes."""
        entry = self._entries[name]
        for rank, theirs, views in slots(entry, self.config, out, self.num_ranks):
            if entry.split == Split.whole and rank > 0:
                return
            tensors = self.files.ranks[rank]
            yield tensors[theirs], tensors.get(theirs + SCALE_SUFFIX), views

    def _is_in_one_piece(self, name: str) -> bool:
        return len(self._sources(name)) == 1 and not self._entries[name].transposed

    def _sources(self, name: str) -> list[StoredTensor]:
        entry = self._entries[name]
        ranks = self.files.ranks if entry.split != Split.whole else self.files.ranks[:1]
        return [tensors[theirs] for tensors in ranks for theirs in entry.names]


def open_checkpoint(folder: Path | str, format: str | None = None) -> Checkpoint:
    """Opens a folder of weights in any released format.

    Args:
        folder: holds the weights, and config.json where the format has one.
        format: name of the format; None recognises it by config.json and the names of the tensors.

    Raises:
        CheckpointError: the folder cannot be read, or its format is unknown.
        ValueError: there is no such format.
    """
    files = open_folder(folder)
    return Checkpoint(files, format_named(format) if format else detect(files))


def same_scales(scales: list[Tensor]) -> bool:
    """Whether what shares the columns of quantized rows shares their scales too, bitwise."""
    return all(torch.equal(scales[0].view(torch.int16), one.view(torch.int16)) for one in scales)


def _read_scale(stored: StoredTensor, name: str) -> Tensor:
    scale = stored.read()
    half = scale.half()
    if stored.dtype != torch.float16 and not torch.equal(half.to(scale.dtype), scale):
        raise CheckpointError(
            f"{stored.path} has scales of {name} that fp16 cannot hold: read it as numbers "
            "(--quantize none)"
        )
    return half


def _load(stored: StoredTensor, views: list[Tensor]) -> None:
    """Reads a stored tensor into the views that it lists from top to bottom.

    What has to be converted or moved on the way goes through a few MB that are used again.
    """
    if not stored.is_contiguous:
        _fill(views, stored.read())
        return
    begin, columns = 0, math.prod(stored.shape[1:])
    for view in views:
        if stored.fits(view):
            stored.read_rows_into(begin, view)
        else:
            for rows in row_chunks(view.shape[0], columns, _CHUNK_ELEMENTS):
                view[rows].copy_(stored.read_rows(begin + rows.start, begin + rows.stop))
        begin += view.shape[0]


def _fill(views: list[Tensor], piece: Tensor) -> None:
    """Copies a stored tensor into the views that it lists from top to bottom."""
    begin = 0
    for view in views:
        end = begin + view.shape[0]
        view.copy_(piece[begin:end])
        begin = end
