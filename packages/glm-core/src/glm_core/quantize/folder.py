"""A folder of weights quantized into another one, a tensor at a time.

Rounding to nearest takes the memory of the largest tensor. With a calibration text, that of a block
and of the text's hidden states (calibration.py).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from glm_core.checkpoint.conversion import KEPT
from glm_core.checkpoint.convert import DEFAULT_SHARD_BYTES, copy_tokenizer, mention_prefix
from glm_core.checkpoint.device_memory import readable
from glm_core.checkpoint.files import CheckpointError, write_json
from glm_core.checkpoint.formats.glm_lab import GLM_LAB, QUANTIZE
from glm_core.checkpoint.loading import stored_layouts
from glm_core.checkpoint.released import Checkpoint, open_checkpoint
from glm_core.checkpoint.target import check_disk, check_target, new_folder
from glm_core.checkpoint.weight_reader import WeightReader
from glm_core.checkpoint.writer import Kind, ShardedWriter, size_of
from glm_core.model.size import meta_transformer
from glm_core.progress import Progress
from glm_core.quantize.calibration import LayerWalk
from glm_core.quantize.gptq import GptqConfig, gptq, output_error
from glm_core.quantize.layout import Layout, QuantizeConfig
from glm_core.quantize.matrix import QuantizedMatrix, quantize_matrix
from glm_core.quantize.quantize import layouts_of
from glm_core.quantize.rows import row_chunks

if TYPE_CHECKING:
    from glm_core.data.batch import Sample

logger = logging.getLogger(__name__)

METHODS = ("rtn", "gptq")
"""Rounding to nearest, and arXiv 2210.17323."""
_CHUNK_ELEMENTS = 1 << 22


@dataclass(frozen=True, slots=True)
class Calibration:
    """A text that the layers are shown."""

    samples: Sequence[Sample]
    pad_id: int
    dtype: torch.dtype = torch.float32
    """What the layers compute in."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass(frozen=True, slots=True)
class LayerReport:
    """What quantization did to a matrix."""

    name: str
    layout: Layout
    shape: tuple[int, ...]
    num_bytes: int
    """As stored, scales included."""
    weight_error: float
    """Root of the squared error, relative to the weights."""
    output_error: float | None
    """The same of what the layer computes from the calibration text; None without one."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """What was written."""

    folder: Path
    source_format: str
    method: str
    layers: list[LayerReport]
    parameters: int
    source_bytes: int
    """Of the parameters as numbers."""
    bytes: int
    """Of the weight files."""
    seconds: float


def quantize_folder(
    source: Path | str,
    target: Path | str,
    config: QuantizeConfig,
    *,
    method: str = "rtn",
    gptq_config: GptqConfig | None = None,
    calibration: Calibration | None = None,
    source_format: str | None = None,
    tokenizer_kind: str | None = None,
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
) -> Quantized:
    """Quantizes a folder of weights of any format into one of our own, with its tokenizer.

    Args:
        source: folder to read.
        target: folder to write; must not exist, or be empty. It appears whole or not at all.
        config: what is quantized, and how.
        method: "rtn" rounds each weight to the nearest level, "gptq" for the calibration text.
        gptq_config: of the method gptq.
        calibration: needed by gptq; with rtn it tells the errors of the layers' outputs.
        source_format: name of the format to read; None recognises it.
        tokenizer_kind: of the source's vocabulary, where its files do not tell.
        max_shard_bytes: largest file, in bytes.

    Raises:
        CheckpointError: the source is damaged; a weight is NaN (names layer and row).
        ValueError: an argument is not valid, a layer cannot be laid out so, or the target is in
            the way.
        OSError: the disk is full.
    """
    begin, target = time.monotonic(), Path(target)
    check_target(target)
    if method not in METHODS:
        raise ValueError(f"method is {method!r}: use one of {', '.join(METHODS)}")
    if method == "gptq" and calibration is None:
        raise ValueError("method is gptq, which needs a calibration text: give one, or use rtn")
    opened = open_checkpoint(source, source_format)
    layouts = _layouts(opened, config)
    kinds = _kinds(opened, layouts)
    size = sum(map(size_of, kinds.values()))
    check_disk(target, size)
    logger.info("%s: %s, writing %s as %s", source, opened.format, readable(size), config.layout)
    with new_folder(target) as folder:
        mention_prefix(opened)
        copy_tokenizer(opened.folder, folder, tokenizer_kind)
        write_json(folder / "config.json", _config_json(opened, config, method))
        writer = ShardedWriter(folder, [kinds], False, max_shard_bytes)
        work = _Work(opened, layouts, writer)
        try:
            if calibration is None:
                work.round_to_nearest()
            else:
                gptq_config = (gptq_config or GptqConfig()) if method == "gptq" else None
                work.walk(calibration, gptq_config)
            writer.check_complete()
        finally:
            writer.close()
        if writer.weight_map:
            index = {"metadata": {"total_size": size}, "weight_map": writer.weight_map}
            write_json(folder / "model.safetensors.index.json", index)
    infos = [opened.info(name) for name in opened.names()]
    return Quantized(
        folder=target,
        source_format=opened.format.name,
        method=method,
        layers=[work.reports[name] for name in opened.names() if name in work.reports],
        parameters=sum(info.num_elements for info in infos),
        source_bytes=sum(info.num_bytes for info in infos),
        bytes=size,
        seconds=time.monotonic() - begin,
    )


class _Work:
    """The tensors of a checkpoint on their way into a writer.

    Args:
        layouts: of the parameters that are quantized, by name.
    """

    def __init__(
        self, source: Checkpoint, layouts: dict[str, Layout], writer: ShardedWriter
    ) -> None:
        self.source, self.layouts, self._writer = source, layouts, writer
        self.reports: dict[str, LayerReport] = {}
        total = sum(source.info(name).num_elements for name in source.names())
        self._progress = Progress("quantizing", total / 1e6, "M weights")

    def round_to_nearest(self) -> None:
        """Quantizes every matrix by itself."""
        for name in self.source.names():
            self._write(name)

    def walk(self, calibration: Calibration, config: GptqConfig | None) -> None:
        """Quantizes the matrices in the order in which a text passes them; config is of GPTQ."""
        by_module = {name.removesuffix(".weight"): of for name, of in self.layouts.items()}
        numbers = WeightReader(self.source, calibration.dtype, {}, calibration.device)
        walk = LayerWalk(numbers, by_module, calibration.samples, calibration.pad_id)

        def quantizer(name: str, weight: Tensor, mean_II: Tensor) -> QuantizedMatrix:
            layout = self.layouts[name]
            if config is None:
                matrix = self._checked(name, lambda: quantize_matrix(weight, layout))
            else:
                matrix = self._checked(name, lambda: gptq(weight, mean_II, layout, config))
            error = output_error(weight, matrix.dequantize(), mean_II)
            self._write_matrix(name, weight, matrix, error)
            return matrix

        walk.run(quantizer)
        for name in self.source.names():
            if name not in self.reports:
                self._write(name)

    def _write(self, name: str) -> None:
        tensor = self.source.read(name)
        layout = self.layouts.get(name)
        if layout is None:
            self._writer.write(0, name, [tensor])
            self._progress.add(tensor.numel() / 1e6)
        else:
            matrix = self._checked(name, lambda: quantize_matrix(tensor, layout))
            self._write_matrix(name, tensor, matrix, None)

    def _write_matrix(
        self, name: str, weight: Tensor, matrix: QuantizedMatrix, error: float | None
    ) -> None:
        tensors = matrix.tensors(name)
        for key, tensor in tensors.items():
            self._writer.write(0, key, [tensor.cpu()])
        self.reports[name] = LayerReport(
            name=name.removesuffix(".weight"),
            layout=matrix.layout,
            shape=tuple(weight.shape),
            num_bytes=sum(tensor.nbytes for tensor in tensors.values()),
            weight_error=weight_error(weight, matrix),
            output_error=error,
        )
        self._progress.add(weight.numel() / 1e6)

    def _checked(self, name: str, work: Callable[[], QuantizedMatrix]) -> QuantizedMatrix:
        try:
            return work()
        except ValueError as error:
            raise CheckpointError(f"{self.source.folder}, {name}: {error}") from error


def weight_error(weight: Tensor, matrix: QuantizedMatrix) -> float:
    """Root of the squared error of a quantized matrix, relative to its weights."""
    wrong = right = 0.0
    for rows in row_chunks(weight.shape[0], weight.shape[1], _CHUNK_ELEMENTS):
        numbers, back = weight[rows].float(), matrix.rows(rows).dequantize()
        wrong += float((numbers - back).square().sum(dtype=torch.float64))
        right += float(numbers.square().sum(dtype=torch.float64))
    return (wrong / right) ** 0.5 if right else 0.0


def _layouts(source: Checkpoint, config: QuantizeConfig) -> dict[str, Layout]:
    """The parameters to quantize.

    Raises:
        ValueError: there are none, one cannot be laid out so, or it is stored with fewer bits.
    """
    stored = stored_layouts(source)
    fewest = min((layout.bits for layout in stored.values()), default=8)
    if stored and config.bits >= fewest:
        raise ValueError(
            f"bits is {config.bits}, but {source.folder} is quantized to int{fewest} already, and "
            "what was rounded cannot be brought back: quantize the original weights"
        )
    layouts = layouts_of(meta_transformer(source.config), config)
    if not layouts:
        raise ValueError("skip leaves nothing to quantize: name fewer modules")
    for name, layout in layouts.items():
        try:
            layout.kinds(*source.info(f"{name}.weight").shape)
        except ValueError as error:
            raise ValueError(f"{name}: {error}; or leave it out by skip") from error
    return {f"{name}.weight": layout for name, layout in layouts.items()}


def _kinds(source: Checkpoint, layouts: dict[str, Layout]) -> dict[str, Kind]:
    """Dtype and shape of every tensor of the target."""
    kinds: dict[str, Kind] = {}
    for name in source.names():
        info, layout = source.info(name), layouts.get(name)
        if layout is None:
            kinds[name] = (info.dtype, info.shape)
        else:
            rows, columns = info.shape
            kinds |= {name + key: kind for key, kind in layout.kinds(rows, columns).items()}
    return kinds


def _config_json(source: Checkpoint, config: QuantizeConfig, method: str) -> dict[str, Any]:
    written = GLM_LAB.write_config(source.config)
    kept = {name: source.files.config[name] for name in KEPT if name in source.files.config}
    return written | kept | {QUANTIZE: config.to_dict() | {"method": method}}
