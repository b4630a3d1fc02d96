"""What a checkpoint becomes in another format: every tensor's name, shape and dtype, and its rows.

No more than one parameter, and what one rank stores of it, is in memory at any moment.
"""

from __future__ import annotations

from dataclasses import fields
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from glm_core.checkpoint.files import CheckpointError
from glm_core.checkpoint.folder import WeightFolder
from glm_core.checkpoint.formats import Format
from glm_core.checkpoint.formats.base import OURS, UNSTORED, lost_fields
from glm_core.checkpoint.keymap import (
    Computed,
    Copy,
    Entry,
    Split,
    Table,
    entries,
    expand,
    same_names,
    shape_on_rank,
    slots,
)
from glm_core.checkpoint.released import Checkpoint, same_scales
from glm_core.checkpoint.stored import StoredTensor, contiguous_stride
from glm_core.checkpoint.writer import Kind, ShardedWriter
from glm_core.model.config import TransformerConfig
from glm_core.progress import Progress
from glm_core.quantize.layout import SCALE_SUFFIX, packed_columns
from glm_core.quantize.rows import quantize_rows

LINEARS = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
"""What the released quantized checkpoints store as int8 rows."""
KEPT = (
    "_name_or_path",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "mask_token_id",
    "gmask_token_id",
)
"""What of config.json goes along into every format: it says nothing of the weights."""


class Conversion:
    """One checkpoint on its way into another format.

    Args:
        source: the open checkpoint.
        format: what to write.
        ranks: number of tensor-parallel ranks to write.
        dtype: of the floating-point tensors; None keeps each as it is.
        bits: 8 or 4 to quantize the linears, 0 to store numbers, None to keep what is stored.

    Raises:
        ValueError: the format cannot hold the model, or not in so many ranks or with so few bits.
    """

    def __init__(
        self,
        source: Checkpoint,
        format: Format,
        ranks: int = 1,
        dtype: torch.dtype | None = None,
        bits: int | None = None,
    ) -> None:
        self.source, self.format, self.ranks = source, format, ranks
        self.dtype, self.bits = dtype, bits
        self.config = source.config
        _check_ranks(format, self.config, ranks)
        if bits and source.bits and bits > source.bits:
            raise ValueError(
                f"--quantize is int{bits}, but {source.folder} stores int{source.bits} rows, and "
                "more bits cannot bring back what was rounded: leave it out"
            )
        grouped = [info.layout for info in map(source.info, source.names()) if info.layout]
        for layout in grouped:
            if bits is None and not layout.is_released:
                raise ValueError(
                    f"--quantize is keep, but {source.folder} stores {layout}, which no released "
                    "format has: add --quantize none, or int8 or int4 to round once more, to rows"
                )
        self.config_json = _config_json(source, format, source.bits if bits is None else bits)
        _check_holds(source, format, self.config_json)
        self.table: Table = expand(format.table(self.config), self.config.num_layers, format.prefix)
        self.entries = entries(self.table)
        for name in source.names():
            self._check_shares(name)

    def kinds(self) -> list[dict[str, Kind]]:
        """Dtype and shape of every tensor that every rank will store, in the model's order."""
        kinds: dict[str, Kind] = {}
        for name in self.source.names():
            kinds |= self._kinds_of(name)
        for row in self.table:
            if isinstance(row, Computed):
                value = row.value(self.config, self._embedding_dtype)
                kinds[row.theirs] = (value.dtype, tuple(value.shape))
            elif isinstance(row, Copy):
                kinds |= self._kinds_of_copy(row)
        return [dict(kinds) for _ in range(self.ranks)]

    def write(self, writer: ShardedWriter, progress: Progress) -> None:
        """Writes every tensor."""
        copies = {row.ours: row for row in self.table if isinstance(row, Copy)}
        for name in self.source.names():
            self._write_parameter(name, copies.get(name), writer)
            progress.add(self.source.info(name).num_bytes / 1e9)
        for row in self.table:
            if isinstance(row, Computed):
                value = row.value(self.config, self._embedding_dtype)
                for rank in range(self.ranks):
                    writer.write(rank, row.theirs, [value])

    @property
    def _embedding_dtype(self) -> torch.dtype:
        return self.dtype or self.source.info("word_embeddings.weight").dtype

    def _bits_of(self, name: str) -> int:
        """How a parameter will be stored: 8 or 4 bits, or 0 for numbers."""
        stored = self.source.info(name).bits or 0
        if self.bits is None:
            return stored
        is_linear = name.endswith(".weight") and name.split(".")[-2] in LINEARS
        return self.bits if is_linear else 0

    def _keeps_rows(self, name: str) -> bool:
        """Whether the quantized rows of a parameter pass through as they are."""
        layout = self.source.info(name).layout
        return layout is not None and layout.is_released and layout.bits == self._bits_of(name)

    def _kinds_of(self, name: str) -> dict[str, Kind]:
        info, bits = self.source.info(name), self._bits_of(name)
        dtype = self.dtype or info.dtype
        kinds: dict[str, Kind] = {}
        shapes = shape_on_rank(self.entries[name], self.config, info.shape, self.ranks)
        for theirs, shape in shapes.items():
            if bits:
                kinds[theirs] = (torch.int8, (shape[0], packed_columns(shape[1], bits)))
                kinds[theirs + SCALE_SUFFIX] = (torch.float16, (shape[0],))
            else:
                kinds[theirs] = (dtype, shape)
        return kinds

    def _kinds_of_copy(self, row: Copy) -> dict[str, Kind]:
        original = self.entries[row.ours]
        assert isinstance(original.theirs, str)
        suffixes = {original.theirs: "", original.theirs + SCALE_SUFFIX: SCALE_SUFFIX}
        kinds = self._kinds_of(row.ours)
        return {row.theirs + suffixes[name]: kind for name, kind in kinds.items()}

    def _write_parameter(self, name: str, copy: Copy | None, writer: ShardedWriter) -> None:
        entry = self.entries[name]
        targets = [entry] if copy is None else [entry, Entry(name, copy.theirs)]
        if self._keeps_rows(name):
            levels = self.source.read_levels(name)
            for target in targets:
                self._write_slots(target, levels, writer)
                self._write_scales(target, self.source.read_scales(name), writer)
            return
        tensor = self.source.read(name, self.dtype)
        for target in targets:
            if self._bits_of(name):
                self._write_quantized(target, tensor, writer)
            else:
                self._write_slots(target, tensor, writer)

    def _write_slots(self, entry: Entry, tensor: Tensor, writer: ShardedWriter) -> None:
        for rank, theirs, views in slots(entry, self.config, tensor, self.ranks):
            writer.write(rank, theirs, views)

    def _write_scales(self, entry: Entry, scales: list[Tensor], writer: ShardedWriter) -> None:
        """Writes the scales of rows; shares of their columns inherit those of the whole."""
        if entry.split != Split.columns:
            for rank, theirs, views in slots(entry, self.config, scales[0], self.ranks):
                writer.write(rank, theirs + SCALE_SUFFIX, views)
            return
        for rank in range(self.ranks):
            scale = scales[rank * len(scales) // self.ranks]
            writer.write(rank, entry.names[0] + SCALE_SUFFIX, [scale])

    def _write_quantized(self, entry: Entry, tensor: Tensor, writer: ShardedWriter) -> None:
        """Quantizes what each rank has, as the originals did after splitting."""
        for rank, theirs, views in slots(entry, self.config, tensor, self.ranks):
            rows = [self._quantize(entry.ours, view) for view in views]
            writer.write(rank, theirs, [levels for levels, _ in rows])
            writer.write(rank, theirs + SCALE_SUFFIX, [scale for _, scale in rows])

    def _quantize(self, name: str, weight: Tensor) -> tuple[Tensor, Tensor]:
        try:
            return quantize_rows(weight, self._bits_of(name))
        except ValueError as error:
            raise CheckpointError(f"{self.source.folder}, {name}: {error}") from error

    def _check_shares(self, name: str) -> None:
        """Whether a parameter can be shared among the ranks, in the form that it will have."""
        if self.entries[name].transposed and self._bits_of(name):
            raise ValueError(
                f"--quantize is {_quantize_name(self.bits)}, but format {self.format} stores "
                f"{name} as columns, and only rows can be quantized: add --quantize none"
            )
        try:
            self._kinds_of(name)
        except ValueError as error:
            raise ValueError(
                f"--tp is {self.ranks}, --quantize is {_quantize_name(self.bits)}: {name}: {error}"
            ) from error
        if not self._keeps_rows(name):
            return
        scales = self.source.read_scales(name)
        if not same_scales(scales) and (
            self.entries[name].split != Split.columns or self.ranks % len(scales)
        ):
            raise ValueError(
                f"--tp is {self.ranks}, but {name} was quantized after {len(scales)} ranks had "
                "shared its columns, each with scales of its own: choose a multiple of "
                f"{len(scales)} in a format with tensor-parallel files, or add --quantize none"
            )


def _config_json(source: Checkpoint, format: Format, bits: int | None) -> dict[str, Any]:
    """config.json of the target, with the name and the ids that the source's had."""
    written = format.write_config(source.config)
    for name in KEPT:
        value = source.files.config.get(name)
        if value is not None and written.get(name) is None:
            written[name] = value
    if bits:
        written["quantization_bit"] = bits
    return written


def _check_ranks(format: Format, config: TransformerConfig, ranks: int) -> None:
    if ranks < 1:
        raise ValueError(f"--tp is {ranks}: it must be at least 1")
    if ranks > 1 and not format.is_tensor_parallel:
        raise ValueError(
            f"--tp is {ranks}, but format {format} knows no tensor-parallel files: leave it out"
        )
    if config.num_heads % ranks:
        raise ValueError(
            f"--tp is {ranks}: it must divide the model's {config.num_heads} attention heads"
        )


def _check_holds(source: Checkpoint, format: Format, config_json: dict[str, Any]) -> None:
    """Checks that what will be written reads back as the same config, and completes it.

    Raises:
        ValueError: it does not; names the field.
    """
    ours, refusal = source.config, f"format {format} ({format.holds}) cannot hold this model"
    fault = same_names(expand(format.table(ours), ours.num_layers, format.prefix), source.shapes)
    try:
        theirs = format.read_config(_imagined(source, format, config_json))
    except ValueError as error:
        raise ValueError(f"{refusal}: {fault or error}") from error
    # kinds before numbers: another kind gives the same shapes other sizes
    by_kind = sorted(
        fields(TransformerConfig), key=lambda field: not isinstance(getattr(ours, field.name), Enum)
    )
    for field in by_kind:
        mine, other = getattr(ours, field.name), getattr(theirs, field.name)
        if mine != other and field.name not in UNSTORED:
            raise ValueError(f"{refusal}: it means {field.name}={other}, and the model has {mine}")
    if fault:
        raise ValueError(f"{refusal}: {fault}")
    lost = lost_fields(ours, theirs)
    if lost:
        config_json[OURS] = lost


def _imagined(source: Checkpoint, format: Format, config_json: dict[str, Any]) -> WeightFolder:
    """The folder that would be written, without anything in its files."""
    config, tensors = source.config, {}
    for entry in entries(expand(format.table(config), config.num_layers, format.prefix)).values():
        if entry.ours not in source.shapes:
            continue
        info = source.info(entry.ours)
        for name, shape in shape_on_rank(entry, config, info.shape, 1).items():
            stride = contiguous_stride(shape)
            tensors[name] = StoredTensor(source.folder, shape, info.dtype, 0, stride)
    nowhere = source.folder / "config.json" / "to write"
    return WeightFolder(nowhere, (tensors,), format.is_tensor_parallel, config_json)


def _quantize_name(bits: int | None) -> str:
    return {None: "keep", 0: "none"}.get(bits, f"int{bits}")
