"""From one released format to another, a tensor at a time.

No more than one parameter, and what one rank stores of it, is in memory at any moment.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from glm_core.checkpoint.conversion import Conversion
from glm_core.checkpoint.device_memory import readable
from glm_core.checkpoint.files import write_json
from glm_core.checkpoint.formats import format_named
from glm_core.checkpoint.released import Checkpoint, open_checkpoint
from glm_core.checkpoint.target import check_disk, check_target, new_folder
from glm_core.checkpoint.writer import ShardedWriter, size_of
from glm_core.progress import Progress

logger = logging.getLogger(__name__)

DEFAULT_SHARD_BYTES = 5 * 10**9


@dataclass(frozen=True, slots=True)
class Converted:
    """What a conversion wrote."""

    folder: Path
    source_format: str
    format: str
    parameters: int
    bytes: int
    """Of the weight files."""


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
    tokenizer_kind: str | None = None,
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
        tokenizer_kind: of the source's vocabulary, where its files do not tell.

    Raises:
        CheckpointError: the source is damaged or does not fit its config.
        ValueError: the format cannot hold the model, or the target is in the way.
        OSError: the disk is full.
    """
    target, format = Path(target), format_named(to)
    check_target(target)
    opened = open_checkpoint(source, source_format)
    conversion = Conversion(opened, format, ranks, dtype, bits)
    kinds = conversion.kinds()
    size = sum(size_of(kind) for rank in kinds for kind in rank.values())
    check_disk(target, size)
    logger.info("%s: %s, writing %s as %s", source, opened.format, readable(size), to)
    infos = [opened.info(name) for name in opened.names()]
    progress = Progress("converting", sum(info.num_bytes for info in infos) / 1e9, "GB")
    with new_folder(target) as folder:
        mention_prefix(opened)
        # before the weights: what is wrong with it shows at once
        copy_tokenizer(opened.folder, folder, tokenizer_kind)
        write_json(folder / "config.json", conversion.config_json)
        writer = ShardedWriter(folder, kinds, format.is_tensor_parallel, max_shard_bytes)
        try:
            conversion.write(writer, progress)
            writer.check_complete()
        finally:
            writer.close()
        if writer.weight_map:
            index = {"metadata": {"total_size": size}, "weight_map": writer.weight_map}
            write_json(folder / "model.safetensors.index.json", index)
    count = sum(info.num_elements for info in infos)
    return Converted(target, opened.format.name, to, count, size)


def mention_prefix(source: Checkpoint) -> None:
    """Says where the source's prefix encoder stays, if it has one."""
    from glm_core.tune.prefix_file import has_prefix

    if has_prefix(source.files):
        logger.warning(
            "the prefix encoder of %s does not go along: use it with --prefix %s",
            source.folder,
            source.folder,
        )


def copy_tokenizer(source: Path, target: Path, kind: str | None = None) -> None:
    """Brings the tokenizer along; without one the weights go alone, and the log says so."""
    from glm_core.errors import MissingExtraError
    from glm_core.tokenizer.loading import load_tokenizer

    try:
        load_tokenizer(source, kind).save(target)
    except (ValueError, MissingExtraError) as error:
        logger.warning("no tokenizer goes along: %s", error)
