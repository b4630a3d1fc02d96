"""Our own format: the parameters by their own names. See pretrained.py for the files."""

from __future__ import annotations

from typing import Any

import torch

from glm_core.checkpoint.files import CheckpointError
from glm_core.checkpoint.folder import REMEDY, WeightFolder
from glm_core.checkpoint.formats.base import Format
from glm_core.checkpoint.keymap import Entry, Table
from glm_core.model.config import TransformerConfig

FORMAT, VERSION = "glm-core", 1


def _matches(folder: WeightFolder) -> bool:
    return folder.config.get("format") == FORMAT


def _read_config(folder: WeightFolder) -> TransformerConfig:
    path, raw = folder.path / "config.json", folder.config
    if raw.get("version") != VERSION:
        raise CheckpointError(
            f"{path} has version {raw.get('version')!r}; this program reads version {VERSION}."
            " Use the program that wrote it, or a newer one"
        )
    try:
        return TransformerConfig.from_dict(raw["model"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not describe a model ({error}); {REMEDY}") from error


def _write_config(config: TransformerConfig) -> dict[str, Any]:
    return {"format": FORMAT, "version": VERSION, "model": config.to_dict()}


def parameter_shapes(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of a model's parameters by name, from a model without storage."""
    from glm_core.model.transformer import Transformer

    with torch.device("meta"):
        model = Transformer(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _table(config: TransformerConfig) -> Table:
    return [Entry(name, name) for name in parameter_shapes(config)]


GLM_LAB = Format(
    name="glm-lab",
    holds="whatever this repository trains or converts",
    matches=_matches,
    read_config=_read_config,
    write_config=_write_config,
    table=_table,
)
