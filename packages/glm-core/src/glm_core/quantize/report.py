"""What quantization costs: errors layer by layer, and bits per byte of a text."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from glm_core.checkpoint.device_memory import readable
from glm_core.checkpoint.hub import resolve_model
from glm_core.checkpoint.loading import load_model
from glm_core.model.size import count_parameters, meta_transformer
from glm_core.quantize.calibration import calibration_samples
from glm_core.quantize.folder import Calibration, Quantized, quantize_folder
from glm_core.quantize.layout import GROUPS, Layout, QuantizeConfig
from glm_core.quantize.quantize import layouts_of
from glm_core.quantize.texts import WINDOW, documents_of
from glm_kernels import ActivationBits

REFERENCE = "bf16"
COLUMNS: dict[str, QuantizeConfig] = {
    "int8 rows": QuantizeConfig(bits=8),
    "int8 g128": QuantizeConfig(bits=8, group=128),
    "int8 g64": QuantizeConfig(bits=8, group=64),
    "int8 g32": QuantizeConfig(bits=8, group=32),
    "int4 rows": QuantizeConfig(bits=4),
    "int4 rows asym": QuantizeConfig(bits=4, symmetric=False),
    "int4 g128": QuantizeConfig(bits=4, group=128),
    "int4 g128 asym": QuantizeConfig(bits=4, group=128, symmetric=False),
    "int4 g64": QuantizeConfig(bits=4, group=64),
    "int4 g64 asym": QuantizeConfig(bits=4, group=64, symmetric=False),
    "int4 g32": QuantizeConfig(bits=4, group=32),
    "int4 g32 asym": QuantizeConfig(bits=4, group=32, symmetric=False),
}
"""What a model is measured in. "rows" is the per-row absmax of released weights, "asym" has zero
points, g32 is a scale for every 32 columns."""
FAST_PROMPTS = ("int8 rows", "int4 rows", "int4 g128", "int4 g32")
"""Those of the columns that are measured with 8-bit activations too; the others have 15 bits."""
CALIBRATED = ("int4 rows", "int4 rows asym", "int4 g128", "int4 g32", "int4 g32 asym")
"""Those of the columns that are measured with GPTQ too, where there is a calibration text."""


@dataclass(frozen=True, slots=True)
class CalibrationText:
    """Where the calibration samples come from."""

    text: str
    """A file or a corpus, as `documents_of` takes it."""
    samples: int = 128
    window: int = WINDOW
    seed: int = 1234


def calibration_of(
    text: CalibrationText,
    model: Path | str,
    tokenizer_kind: str | None = None,
    device: str = "cpu",
    dtype: str | None = None,
) -> Calibration:
    """The samples of a calibration text for a model."""
    from glm_core.checkpoint.released import open_checkpoint
    from glm_core.tokenizer.loading import load_tokenizer
    from glm_core.train.precision import resolve_device

    folder = resolve_model(model)
    tokenizer = load_tokenizer(folder, tokenizer_kind)
    wanted = 2 * text.samples * text.window
    documents = documents_of(text.text, str(model), tokenizer, False, wanted, text.seed)
    config = open_checkpoint(folder).config
    samples = calibration_samples(
        config, tokenizer, documents, text.samples, text.window, text.seed
    )
    kind = torch.float32 if dtype is None else getattr(torch, dtype)
    return Calibration(samples, tokenizer.pad_id, kind, resolve_device(device, "--device"))


def bits_of(
    model: Path | str,
    text: str,
    quantize: str | QuantizeConfig = "keep",
    device: str = "cpu",
    tokenizer_kind: str | None = None,
    window: int = WINDOW,
    prompt_activation_bits: ActivationBits = 15,
) -> float:
    """Bits per byte of a model in bf16, its matrices quantized or not, on a text.

    Args:
        model: name or folder.
        text: a file, or a corpus of which the held-out split is taken.
        quantize: as `load_model` takes it; with a config, layers that its group does not divide
            have the next smaller one that does.
        prompt_activation_bits: as `load_model` takes them.
    """
    from glm_core.evaluate.perplexity import bits_per_byte

    if isinstance(quantize, QuantizeConfig):
        layouts: str | dict[str, Layout] = _fitting_layouts(model, quantize)
    else:
        layouts = quantize
    loaded, tokenizer = load_model(
        model,
        dtype=torch.bfloat16,
        device=device,
        quantize=layouts,
        tokenizer_kind=tokenizer_kind,
        prompt_activation_bits=prompt_activation_bits,
        progress=False,
    )
    documents = documents_of(text, str(model), tokenizer, heldout=True)
    window = min(window, loaded.config.max_position_embeddings)
    return bits_per_byte(loaded, tokenizer, documents, window).bits_per_byte


def quality(
    model: Path | str,
    text: str,
    calibration: CalibrationText | None = None,
    columns: Sequence[str] = tuple(COLUMNS),
    device: str = "cpu",
) -> dict[str, Any]:
    """Bits per byte of a model in every layout: a row of the scaling table.

    Returns:
        model, parameters, and bits_per_byte and change (relative to bf16) by column. Layers that
        the group of a column does not divide have the next smaller one that does.
    """
    from glm_core.checkpoint.released import open_checkpoint

    found = {REFERENCE: bits_of(model, text, "none", device)}
    for column in columns:
        found[column] = bits_of(model, text, COLUMNS[column], device)
        if column in FAST_PROMPTS:
            found[f"{column}, 8-bit activations"] = bits_of(
                model, text, COLUMNS[column], device, prompt_activation_bits=8
            )
    if calibration is not None:
        shown = calibration_of(calibration, model, device=device)
        for column in (name for name in columns if name in CALIBRATED):
            layouts = _fitting_layouts(model, COLUMNS[column])
            if set(layouts.values()) == {COLUMNS[column].layout}:
                found[f"{column} gptq"] = _calibrated(model, text, COLUMNS[column], shown, device)
    config = open_checkpoint(resolve_model(model)).config
    return {
        "model": str(model),
        "parameters": count_parameters(config),
        "bits_per_byte": found,
        "change": {name: bits / found[REFERENCE] - 1 for name, bits in found.items()},
    }


def _fitting_layouts(model: Path | str, config: QuantizeConfig) -> dict[str, Layout]:
    """The modules that a config quantizes; in a smaller group where its own does not fit."""
    from glm_core.checkpoint.released import open_checkpoint

    source = open_checkpoint(resolve_model(model))
    layouts = layouts_of(meta_transformer(source.config), config)
    for name in layouts:
        columns = source.info(f"{name}.weight").shape[1]
        if config.group and columns % config.group:
            group = max((group for group in GROUPS if columns % group == 0), default=0)
            layouts[name] = Layout(config.bits, group, config.symmetric)
    return layouts


def _calibrated(
    model: Path | str, text: str, config: QuantizeConfig, shown: Calibration, device: str
) -> float:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "quantized"
        quantize_folder(resolve_model(model), target, config, method="gptq", calibration=shown)
        return bits_of(target, text, "keep", device)


def quality_table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of `quality` for people: a line for each layout, a column for each model."""
    names = list(dict.fromkeys(name for row in rows for name in row["bits_per_byte"]))
    heads = [f"{Path(row['model']).name} ({row['parameters'] / 1e6:.1f} M)" for row in rows]
    lines = [["bits per byte", *heads]]
    for name in names:
        cells = [_cell(row, name) for row in rows]
        lines.append([name, *cells])
    return _aligned(lines)


def _cell(row: dict[str, Any], name: str) -> str:
    bits = row["bits_per_byte"].get(name)
    if bits is None:
        return "-"
    return f"{bits:.4f}" if name == REFERENCE else f"{bits:.4f} {row['change'][name]:+.2%}"


def as_result(done: Quantized) -> dict[str, Any]:
    """What a quantization did, as plain values."""
    return {
        "folder": str(done.folder),
        "from": done.source_format,
        "method": done.method,
        "parameters": done.parameters,
        "bytes": done.bytes,
        "bytes_before": done.source_bytes,
        "seconds": round(done.seconds, 2),
        "layers": [
            {
                "name": layer.name,
                "layout": str(layer.layout),
                "shape": list(layer.shape),
                "bytes": layer.num_bytes,
                "weight_error": layer.weight_error,
                "output_error": layer.output_error,
            }
            for layer in done.layers
        ],
    }


def as_table(done: Quantized) -> str:
    """What a quantization did, a line for each layer."""
    has_outputs = any(layer.output_error is not None for layer in done.layers)
    lines = [["layer", "shape", "layout", "weights", *(["outputs"] if has_outputs else [])]]
    for layer in done.layers:
        shape = "x".join(map(str, layer.shape))
        line = [layer.name, shape, str(layer.layout), f"{layer.weight_error:.2%}"]
        if has_outputs:
            line.append("-" if layer.output_error is None else f"{layer.output_error:.2%}")
        lines.append(line)
    errors = "relative error of weights" + (" and outputs" if has_outputs else "")
    return "\n".join(
        [
            _aligned(lines),
            f"{errors}, root mean square; {done.method}",
            f"{done.folder}: {done.parameters:,} parameters, {readable(done.source_bytes)} -> "
            f"{readable(done.bytes)} in {done.seconds:.1f} s",
        ]
    )


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def cells(line: Sequence[str]) -> Iterator[str]:
        yield line[0].ljust(widths[0])
        for cell, width in zip(line[1:], widths[1:], strict=True):
            yield cell.rjust(width)

    return "\n".join("  ".join(cells(line)) for line in lines)
