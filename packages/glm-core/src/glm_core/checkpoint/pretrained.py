"""A trained model as a folder that every other command reads.

config.json         {"format": "glm-core", "version": 1, "model": {...TransformerConfig}}
model.safetensors   weights, as trained or int8 (see quantize/tensors.py)
tokenizer.json, tokenizer_config.json
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from glm_core.checkpoint.files import publish_folder, write_json, write_safetensors
from glm_core.checkpoint.formats.glm_lab import GLM_LAB
from glm_core.quantize.tensors import quantize_tensors

if TYPE_CHECKING:
    from glm_core.model.transformer import Transformer
    from glm_core.tokenizer.protocol import Tokenizer

MODEL_GROUP = "glm_lab.models"
"""Entry points of the models that come with the packages: `name = "package.folder:folder"`."""


def _embedded() -> dict[str, Path]:
    """Folders of the models that come with this package and with those beside it."""
    found = {"nano-text": Path(__file__).parents[1] / "nano" / "text"}
    for entry in metadata.entry_points(group=MODEL_GROUP):
        package, *folders = entry.module.split(".")
        spec = importlib.util.find_spec(package)
        for place in (spec and spec.submodule_search_locations) or ():
            found[entry.name] = Path(place, *folders, entry.attr)
    return found


EMBEDDED = _embedded()


class Quantize(StrEnum):
    """How weights are stored."""

    none = "none"
    int8 = "int8"


def save_pretrained(
    model: Transformer, tokenizer: Tokenizer, folder: Path | str, quantize: str = "none"
) -> None:
    """Write model and tokenizer to `folder`, replacing it whole or not at all.

    Args:
        model: any dtype; stored in its dtype, or as int8.
        tokenizer: goes along.
        folder: the folder to write.
        quantize: "none", or "int8" for one byte per weight (vectors in fp16).

    Raises:
        ValueError: the model has a prefix encoder, which is saved by itself.
        OSError: if it cannot be written; a folder that was there before is then untouched.
    """
    folder = Path(folder)
    how = _quantize_kind(quantize)
    if model.prefix is not None:
        raise ValueError(
            "the model has a prefix encoder, which is no part of its folder: call save_prefix, set "
            "model.prefix to None and save again"
        )
    temporary = folder.with_name(f".writing-{folder.name}-{os.getpid()}")
    tensors = model.state_dict()
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        tokenizer.save(temporary)
        if how is Quantize.int8:
            tensors = quantize_tensors(tensors)
        write_safetensors(temporary / "model.safetensors", tensors, {"format": "pt"})
        write_json(temporary / "config.json", GLM_LAB.write_config(model.config))
        publish_folder(temporary, folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise OSError(
            error.errno,
            f"cannot save the model to {folder} ({error.strerror or error});"
            " free some space or choose another folder, and try again",
        ) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _quantize_kind(name: str) -> Quantize:
    try:
        return Quantize(name)
    except ValueError:
        kinds = ", ".join(kind.value for kind in Quantize)
        raise ValueError(f"quantize is {name!r}; use one of: {kinds}") from None
