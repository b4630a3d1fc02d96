"""Prefix encoders on disk, in the names that ChatGLM's P-tuning gives them."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from glm_core.checkpoint.files import CheckpointError, write_safetensors
from glm_core.checkpoint.folder import WeightFolder, open_folder
from glm_core.model.config import TransformerConfig
from glm_core.model.transformer import Transformer
from glm_core.tune.prefix import PrefixEncoder, prefix_width

RELEASED = "transformer.prefix_encoder."
_NAMES_BEFORE = (RELEASED, "prefix_encoder.", "prefix.", "")
_REMEDY = "give a prefix checkpoint, as P-tuning v2 of ChatGLM-6B or ChatGLM2-6B saves it"
_SHAPES = {
    "embedding.weight": "prefix columns x width",
    "trans.0.weight": "middle x table",
    "trans.0.bias": "middle",
    "trans.2.weight": "width x middle",
    "trans.2.bias": "width",
}


def has_prefix(folder: WeightFolder) -> bool:
    """Whether a folder of weights holds a prefix encoder as well."""
    return folder.has(f"{RELEASED}embedding.weight")


def load_prefix(model: Transformer, path: Path | str) -> PrefixEncoder:
    """Reads a prefix encoder and makes it the model's.

    Args:
        path: a safetensors file, a `.bin` file of tensors, or a folder of weights. Tensors that
            are no part of a prefix encoder are passed over.

    Returns:
        The encoder, now `model.prefix`, on the model's device and in the dtype it was saved in.

    Raises:
        CheckpointError: the file cannot be read, holds no prefix encoder, or one whose sizes are
            not those of the model.
    """
    encoder = read_prefix(model.config, path)
    encoder.to(model.device).train(model.training)
    model.prefix = encoder
    return encoder


def read_prefix(config: TransformerConfig, path: Path | str) -> PrefixEncoder:
    """Reads a prefix encoder for a model that need not be there yet; see `load_prefix`."""
    path = Path(path)
    tensors = _prefix_tensors(path)
    encoder = _empty_encoder(config, tensors, path)
    encoder.load_state_dict(tensors, assign=True)
    return encoder


def save_prefix(model: Transformer, path: Path | str) -> None:
    """Writes the model's prefix encoder alone, as safetensors with the names of the originals.

    Raises:
        ValueError: the model has no prefix.
    """
    if model.prefix is None:
        raise ValueError("the model has no prefix to save: set model.prefix, or call load_prefix")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    tensors = {RELEASED + name: value for name, value in model.prefix.state_dict().items()}
    try:
        write_safetensors(temporary, tensors, {"format": "pt"})
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _prefix_tensors(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a prefix encoder under the encoder's own names."""
    found = open_folder(path).tensors
    for before in _NAMES_BEFORE:
        tensors = {name: found[before + name].read() for name in _SHAPES if before + name in found}
        if "embedding.weight" in tensors:
            break
    else:
        raise CheckpointError(f"{path} holds no {RELEASED}embedding.weight; {_REMEDY}")
    missing = [name for name in _SHAPES if name not in tensors]
    if missing and len(tensors) > 1:
        raise CheckpointError(f"{path} lacks {before}{missing[0]} of its projection; {_REMEDY}")
    return tensors


def _empty_encoder(
    config: TransformerConfig, tensors: dict[str, Tensor], path: Path
) -> PrefixEncoder:
    """Returns an encoder without storage, of the sizes the tensors have.

    Raises:
        CheckpointError: the tensors do not fit the model or each other.
    """
    table = tensors["embedding.weight"]
    prefix_len, columns = table.shape if table.dim() == 2 else (0, 0)
    middle = tensors["trans.0.bias"].numel() if "trans.0.bias" in tensors else 0
    with torch.device("meta"):
        encoder = PrefixEncoder(config, max(prefix_len, 1), middle > 0, middle, columns)
    for name, expected in encoder.state_dict().items():
        if tensors[name].shape != expected.shape:
            raise CheckpointError(
                f"{path} does not fit the model: {name} ({_SHAPES[name]}) has shape "
                f"{list(tensors[name].shape)}, the model needs {list(expected.shape)}; a prefix "
                f"column has {prefix_width(config)} numbers here ({config.num_blocks} blocks x 2 x "
                f"{config.num_kv_heads} heads x {config.head_dim}): use the model it was tuned for"
            )
    return encoder
