"""Our own format: the parameters by their own names. See pretrained.py for the files."""

from __future__ import annotations

from typing import Any

from glm_core.checkpoint.files import CheckpointError
from glm_core.checkpoint.folder import WeightFolder
from glm_core.checkpoint.formats.base import Format, value_of
from glm_core.checkpoint.keymap import Entry, Table
from glm_core.model.config import TransformerConfig

FORMAT, VERSION = "glm-core", 1
QUANTIZE = "quantize"
"""Entry of config.json where matrices are quantized to be computed with so: the fields of a
`QuantizeConfig`, and the method. The tensors themselves tell how each is laid out."""


def _matches(folder: WeightFolder) -> bool:
    return folder.config.get("format") == FORMAT


def _read_config(folder: WeightFolder) -> TransformerConfig:
    version = folder.config.get("version")
    if version != VERSION:
        raise CheckpointError(
            f"config.json has version {version!r}: this program reads version {VERSION}; use the "
            "program that wrote it, or a newer one"
        )
    model = value_of(folder.config, "model", dict)
    return TransformerConfig.from_dict(model)


def _write_config(config: TransformerConfig) -> dict[str, Any]:
    return {"format": FORMAT, "version": VERSION, "model": config.to_dict()}


def parameter_shapes(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of a model's parameters by name, from a model without storage."""
    from glm_core.model.size import meta_transformer

    state = meta_transformer(config).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _table(config: TransformerConfig) -> Table:
    return [Entry(name, name) for name in parameter_shapes(config)]


GLM_LAB = Format(
    name="glm-lab",
    holds="whatever this repository trains or converts",
    matches=_matches,
    read_config=_read_config,
    write_config=_write_config,
    table=_table,
    holds_groups=True,
)
