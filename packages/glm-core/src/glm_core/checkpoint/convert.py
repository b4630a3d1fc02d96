"""From one released format to another, a tensor at a time.

No more than one parameter, and what one rank stores of it, is in memory at any moment.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from glm_core.checkpoint.files import CheckpointError, publish_folder, write_json
from glm_core.checkpoint.folder import WeightFolder
from glm_core.checkpoint.formats import Format, format_named
from glm_core.checkpoint.formats.base import UNSTORED
from glm_core.checkpoint.keymap import (
    SCALE_SUFFIX,
    Computed,
    Copy,
    Entry,
    Table,
    entries,
    expand,
    same_names,
    shape_on_rank,
    slots,
)
from glm_core.checkpoint.released import Checkpoint, open_checkpoint
from glm_core.checkpoint.stored import StoredTensor, contiguous_stride
from glm_core.checkpoint.writer import Kind, ShardedWriter, size_of
from glm_core.model.config import TransformerConfig
from glm_core.progress import Progress
from glm_core.quantize.rows import quantize_rows

logger = logging.getLogger(__name__)

DEFAULT_SHARD_BYTES = 5 * 10**9
LINEARS = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
"""What the released quantized checkpoints store as int8 rows."""


@dataclass(frozen=True, slots=True)
class Converted:
    """What a conversion wrote."""

    folder: Path
    source_format: str
    format: str
    parameters: int
    bytes: int
    """Of the weight files."""


class Conversion:
    """One checkpoint on its way into another format.

    Args:
        source: the open checkpoint.
        format: what to write.
        ranks: number of tensor-parallel ranks to write.
        dtype: of the floating-point tensors; None keeps each as it is.
        bits: 8 or 4 to quantize the linears, 0 to store numbers, None to keep what is stored.

    Raises:
        ValueError: the format cannot hold the model, or not in so many ranks.
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
        _check_holds(source, format)
        self.table: Table = expand(format.table(self.config), self.config.num_layers, format.prefix)
        self.entries = entries(self.table)

    def kinds(self) -> list[dict[str, Kind]]:
        """Dtype and shape of every tensor that every rank will store, in the model's order."""
        ranks: list[dict[str, Kind]] = [{} for _ in range(self.ranks)]
        for name in self.source.names():
            for kinds in ranks:
                kinds |= self._kinds_of(name)
        for row in self.table:
            for kinds in ranks:
                if isinstance(row, Computed):
                    value = row.value(self.config, self._embedding_dtype)
                    kinds[row.theirs] = (value.dtype, tuple(value.shape))
                elif isinstance(row, Copy):
                    kinds |= self._kinds_of_copy(row)
        return ranks

    def write(self, writer: ShardedWriter, progress: Progress) -> None:
        """Writes every tensor."""
        copies = {row.ours: row for row in self.table if isinstance(row, Copy)}
        for name in self.source.names():
            self._write_parameter(name, copies.get(name), writer)
            progress.add(self.source.info(name).dtype.itemsize * _count(self.source, name) / 1e9)
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

    def _kinds_of(self, name: str) -> dict[str, Kind]:
        info, bits = self.source.info(name), self._bits_of(name)
        dtype = self.dtype or info.dtype
        kinds: dict[str, Kind] = {}
        shapes = shape_on_rank(self.entries[name], self.config, info.shape, self.ranks)
        for theirs, shape in shapes.items():
            if bits:
                kinds[theirs] = (torch.int8, (shape[0], shape[1] * bits // 8))
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
        entry, bits = self.entries[name], self._bits_of(name)
        targets = [entry] if copy is None else [entry, Entry(name, copy.theirs)]
        if bits and bits == self.source.info(name).bits:
            levels, scale = self.source.read_rows(name)
            self._check_rows_fit(entry)
            for target in targets:
                self._write_slots(target, levels, writer, "")
                self._write_slots(target, scale, writer, SCALE_SUFFIX)
            return
        tensor = self.source.read(name, self.dtype)
        for target in targets:
            if bits:
                self._write_quantized(target, tensor, bits, writer)
            else:
                self._write_slots(target, tensor, writer, "")

    def _write_slots(
        self, entry: Entry, tensor: Tensor, writer: ShardedWriter, suffix: str
    ) -> None:
        for rank, theirs, views in slots(entry, self.config, tensor, self.ranks):
            writer.write(rank, theirs + suffix, views)

    def _write_quantized(
        self, entry: Entry, tensor: Tensor, bits: int, writer: ShardedWriter
    ) -> None:
        """Quantizes what each rank has, as the originals did after splitting."""
        for rank, theirs, views in slots(entry, self.config, tensor, self.ranks):
            levels, scales = zip(*(quantize_rows(view, bits) for view in views), strict=True)
            writer.write(rank, theirs, levels)
            writer.write(rank, theirs + SCALE_SUFFIX, scales)

    def _check_rows_fit(self, entry: Entry) -> None:
        if entry.split == "columns" and self.ranks > 1:
            raise CheckpointError(
                f"{entry.ours} is stored as quantized rows, and splitting its columns among "
                f"{self.ranks} ranks would change them: add --quantize none to store numbers"
            )


def convert(
    source: Path | str,
    target: Path | str,
    to: str,
    *,
    source_format: str | None = None,
    ranks: int = 1,
    dtype: torch.dtype | None = None,
    bits: int | None = None,
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
) -> Converted:
    """Converts a folder of weights, with its tokenizer, into another format.

    Args:
        source: folder to read.
        target: folder to write; must not exist, or be empty. It appears whole or not at all.
        to: name of the format to write.
        source_format: name of the format to read; None recognises it.
        ranks: number of tensor-parallel ranks to write.
        dtype: of the floating-point tensors; None keeps each as it is.
        bits: 8 or 4 to quantize the linears, 0 to store numbers, None to keep what is stored.
        max_shard_bytes: largest file, in bytes, where files are not one per rank.

    Raises:
        CheckpointError: the source is damaged or does not fit its config.
        ValueError: the format cannot hold the model, or the target is in the way.
        OSError: the disk is full.
    """
    target = Path(target)
    check_target(target)
    opened = open_checkpoint(source, source_format)
    conversion = Conversion(opened, format_named(to), ranks, dtype, bits)
    kinds = conversion.kinds()
    size = sum(size_of(kind) for rank in kinds for kind in rank.values())
    _check_disk(target, size)
    logger.info(
        "%s: %s, %.2f GB -> %s, %d file(s) or more", source, opened.format, size / 1e9, to, ranks
    )
    with _temporary_folder(target) as folder:
        writer = ShardedWriter(folder, kinds, conversion.format.is_tensor_parallel, max_shard_bytes)
        try:
            total = sum(
                opened.info(name).dtype.itemsize * _count(opened, name) for name in opened.names()
            )
            conversion.write(writer, Progress("converting", total / 1e9, "GB"))
            writer.close()
        finally:
            writer.abandon()
        if writer.weight_map:
            index = {"metadata": {"total_size": size}, "weight_map": writer.weight_map}
            write_json(folder / "model.safetensors.index.json", index)
        write_json(folder / "config.json", _config_json(conversion, opened.files))
        copy_tokenizer(opened.folder, folder)
        publish_folder(folder, target)
    count = sum(_count(opened, name) for name in opened.names())
    return Converted(target, opened.format.name, to, count, size)


def check_target(target: Path) -> None:
    """Refuses to write where something is.

    Raises:
        ValueError: `target` is a file, or a folder that is not empty.
    """
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise ValueError(f"{target} exists already: choose another folder, or delete it first")


def _config_json(conversion: Conversion, files: WeightFolder) -> dict[str, object]:
    """config.json of the target, with the ids and the name that the source's had."""
    written = conversion.format.write_config(conversion.config)
    kept = ("_name_or_path", "bos_token_id", "eos_token_id", "pad_token_id", "gmask_token_id")
    for name in kept:
        if name in files.config:
            written[name] = files.config[name]
    bits = conversion.source.bits if conversion.bits is None else conversion.bits
    if bits:
        written["quantization_bit"] = bits
    return written


def copy_tokenizer(source: Path, target: Path) -> None:
    """Brings the tokenizer along; without one the weights go alone, and the log says so."""
    from glm_core.tokenizer.loading import load_tokenizer

    try:
        load_tokenizer(source).save(target)
    except ValueError as error:
        logger.warning("no tokenizer goes along: %s", error)


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


def _check_holds(source: Checkpoint, format: Format) -> None:
    """Whether what the format writes of the config reads back as the same config.

    Raises:
        ValueError: it does not; names the field.
    """
    ours = source.config
    try:
        theirs = format.read_config(_imagined(source, format))
    except CheckpointError as error:
        raise ValueError(f"format {format} cannot hold this model: {error}") from error
    table = expand(format.table(ours), ours.num_layers, format.prefix)
    fault = same_names(table, source.shapes)
    for field in fields(TransformerConfig):
        mine, other = getattr(ours, field.name), getattr(theirs, field.name)
        if mine != other and field.name not in UNSTORED:
            raise ValueError(
                f"format {format} ({format.holds}) cannot hold this model: it means "
                f"{field.name}={other}, and the model has {mine}"
            )
    if fault:
        raise ValueError(f"format {format} ({format.holds}) cannot hold this model: {fault}")


def _imagined(source: Checkpoint, format: Format) -> WeightFolder:
    """The folder that would be written, without anything in its files."""
    config, tensors = source.config, {}
    for entry in entries(expand(format.table(config), config.num_layers, format.prefix)).values():
        if entry.ours not in source.shapes:
            continue
        info = source.info(entry.ours)
        for name, shape in shape_on_rank(entry, config, info.shape, 1).items():
            stride = contiguous_stride(shape)
            tensors[name] = StoredTensor(source.folder, shape, info.dtype, 0, stride)
    return WeightFolder(
        source.folder, (tensors,), format.is_tensor_parallel, format.write_config(config)
    )


@contextmanager
def _temporary_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target` that is gone afterwards unless it was renamed."""
    folder = target.with_name(f".writing-{target.name}-{os.getpid()}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write {target} ({error.strerror or error}): free some space or choose another "
            "folder; nothing is left behind",
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_disk(target: Path, size: int) -> None:
    parent = target.absolute().parent
    while not parent.is_dir():
        parent = parent.parent
    free = shutil.disk_usage(parent).free
    if free < size:
        raise ValueError(
            f"{target} needs {size / 1e9:.1f} GB and its disk has {free / 1e9:.1f} GB free: free "
            "some space or choose another folder"
        )


def _count(source: Checkpoint, name: str) -> int:
    return torch.Size(source.info(name).shape).numel()
