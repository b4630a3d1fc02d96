"""LoRA: low-rank additions to linear layers, one for each row of a batch if need be.

Read from the folders that PEFT writes (adapter_config.json, adapter_model.safetensors), for any
format a model of the family was released in: its names are those of the checkpoint tables.

Letters: R rank, I columns of a weight (inputs), O rows (outputs), B rows of a batch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glm_core.checkpoint.files import CheckpointError, read_json, read_safetensors
from glm_core.checkpoint.formats import FORMATS
from glm_core.checkpoint.formats.glm_lab import parameter_shapes
from glm_core.checkpoint.keymap import entries, expand
from glm_core.model.config import QkvLayout, TransformerConfig
from glm_core.model.transformer import Transformer

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_REMEDY = "give a folder that PEFT's save_pretrained wrote for this model"
_BEFORE = "base_model.model."
_TENSOR = re.compile(r"(?P<module>.+)\.lora_(?P<kind>[AB])(\.default)?\.weight")
_UNSERVED: tuple[tuple[str, Any], ...] = (
    ("use_dora", False),
    ("bias", "none"),
    ("lora_bias", False),
    ("modules_to_save", None),
    ("layer_replication", None),
)
"""Settings that change what an adapter computes, and their only value that is served."""

_LINEARS = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
"""Linear layers of a block."""


@dataclass(frozen=True)
class LoraPart:
    """What is added to some rows of a weight: b @ a."""

    begin: int
    """First row."""
    a_RI: Tensor
    b_OR: Tensor
    """With the scale alpha / r in it."""


class Lora:
    """An adapter: the additions to each module, by the module's name in our model."""

    def __init__(self, parts: Mapping[str, Sequence[LoraPart]]) -> None:
        self.parts = parts

    def add_to(self, out: Tensor, module: str, x: Tensor, rows: Tensor | slice) -> None:
        """Adds what the adapter gives for some rows of a batch.

        Args:
            out: result of the module, [B, ..., O]; written to.
            module: its name.
            x: its input, [B, ..., I].
            rows: of the batch.
        """
        for part in self.parts.get(module, ()):
            delta = nn.functional.linear(nn.functional.linear(x[rows], part.a_RI), part.b_OR)
            out[rows, ..., part.begin : part.begin + len(part.b_OR)] += delta


@contextmanager
def lora_rows(model: Transformer, adapters: Sequence[Lora | None]) -> Iterator[None]:
    """While it lasts, row i of what the model computes is computed with `adapters[i]`.

    The model's own products are made once for all rows.
    """
    groups = _groups(adapters, model.device)
    names = sorted({name for lora, _ in groups for name in lora.parts})
    handles = [
        model.get_submodule(name).register_forward_hook(_hook(name, groups)) for name in names
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _groups(
    adapters: Sequence[Lora | None], device: torch.device
) -> list[tuple[Lora, Tensor | slice]]:
    by_adapter: dict[Lora, list[int]] = {}
    for row, lora in enumerate(adapters):
        if lora is not None:
            by_adapter.setdefault(lora, []).append(row)
    return [
        (lora, slice(None) if len(rows) == len(adapters) else torch.tensor(rows, device=device))
        for lora, rows in by_adapter.items()
    ]


def _hook(name: str, groups: Sequence[tuple[Lora, Tensor | slice]]) -> Any:
    def add(_: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        for lora, rows in groups:
            lora.add_to(out, name, inputs[0], rows)

    return add


def load_lora(model: Transformer, folder: Path | str) -> Lora:
    """Reads an adapter for a model, onto its device and in its dtype.

    Raises:
        CheckpointError: the folder holds no LoRA adapter, one of another model, or one whose
            settings are not served.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG, _REMEDY)
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise CheckpointError(f"{folder / CONFIG} does not describe a LoRA adapter; {_REMEDY}")
    for name, served in _UNSERVED:
        if config.get(name) not in (served, None, []):
            raise CheckpointError(
                f"{folder / CONFIG} has {name} = {config[name]!r}, which is not served: merge the "
                "adapter into its model, or train one without"
            )
    tensors = read_safetensors(folder / WEIGHTS, _REMEDY)
    pairs = _pairs(tensors, folder / WEIGHTS)
    places = _places(model.config, list(pairs), folder / WEIGHTS)
    parts: dict[str, list[LoraPart]] = {}
    for module, (a_RI, b_OR) in pairs.items():
        ours, begin, rows = places[module]
        weight = model.get_submodule(ours)
        columns = getattr(weight, "in_features", 0)
        if a_RI.shape[1:] != (columns,) or b_OR.shape != (rows, len(a_RI)):
            raise CheckpointError(
                f"{folder / WEIGHTS} does not fit the model: {module} has A {list(a_RI.shape)} and "
                f"B {list(b_OR.shape)}, the model's weight is [{rows}, {columns}]"
            )
        scale = scale_of(config, module, len(a_RI))
        a_RI, b_OR = (x.to(model.device, model.dtype) for x in (a_RI, b_OR.float() * scale))
        parts.setdefault(ours, []).append(LoraPart(begin, a_RI, b_OR))
    return Lora(parts)


def scale_of(config: Mapping[str, Any], module: str, rank: int) -> float:
    """Returns what B A is multiplied by: alpha / r, or alpha / sqrt(r) with rsLoRA.

    Args:
        config: adapter_config.json.
        module: its name in the released model; `alpha_pattern` may name it by its end.
        rank: of its matrices, which `rank_pattern` may have made another than `r`.

    Source: arXiv 2106.09685, section 4.1; arXiv 2312.03732.
    """
    alpha = config.get("lora_alpha", 8)
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            alpha = value
    divisor = math.sqrt(rank) if config.get("use_rslora") else rank
    return float(alpha) / divisor


def _pairs(tensors: Mapping[str, Tensor], path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Returns A and B of each module, by its name in the released model."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _TENSOR.fullmatch(name.removeprefix(_BEFORE))
        if match is None:
            raise CheckpointError(
                f"{path} holds {name}, which is no LoRA of a linear layer: only those are served"
            )
        found.setdefault(match["module"], {})[match["kind"]] = tensor
    for module, kinds in found.items():
        if set(kinds) != {"A", "B"}:
            raise CheckpointError(f"{path} holds lora_{min(kinds)} of {module} alone; {_REMEDY}")
    return {module: (kinds["A"], kinds["B"]) for module, kinds in found.items()}


def _places(
    config: TransformerConfig, modules: Sequence[str], path: Path
) -> dict[str, tuple[str, int, int]]:
    """Returns for each module of theirs ours, the first of its rows there, and how many they are.

    Raises:
        CheckpointError: no format of the model has all of the modules.
    """
    unknown = modules[:1]
    for places in _known_places(config):
        missing = [module for module in modules if module not in places]
        if not missing and modules:
            return {module: places[module] for module in modules}
        if len(missing) < len(modules):
            unknown = missing
    raise CheckpointError(
        f"{path} does not fit the model: it changes {', '.join(unknown) or 'nothing'}, which is no "
        f"linear layer of a block of this model in any format; {_REMEDY}"
    )


def _known_places(config: TransformerConfig) -> Iterator[dict[str, tuple[str, int, int]]]:
    """Yields for each format its linear layers of blocks."""
    shapes = parameter_shapes(config)
    for format in FORMATS.values():
        table = expand(format.table(config), config.num_layers, format.prefix)
        places = {}
        for ours, entry in entries(table).items():
            module, _, kind = ours.rpartition(".")
            apart = len(entry.names) > 1
            if (
                kind != "weight"
                or ours not in shapes
                or module.rpartition(".")[2] not in _LINEARS
                or (apart and config.qkv_layout == QkvLayout.interleaved)
                or entry.transposed
            ):
                continue
            begin, rows = 0, shapes[ours][0]
            sizes = map(sum, entry.by_name(entry.part_rows(config, rows))) if apart else [rows]
            for name, size in zip(entry.names, sizes, strict=True):
                places[name.removesuffix(".weight")] = (module, begin, size)
                begin += size
        yield places
