"""A trained model as a folder that every other command reads.

config.json         {"format": "glm-core", "version": 1, "model": {...TransformerConfig}}
model.safetensors   weights, as trained or int8 (see quantize/tensors.py)
tokenizer.json, tokenizer_config.json
"""

from __future__ import annotations

import os
import shutil
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from glm_core.checkpoint.files import (
    CheckpointError,
    publish_folder,
    read_json,
    read_safetensors,
    write_json,
    write_safetensors,
)
from glm_core.checkpoint.matching import mismatch
from glm_core.quantize.tensors import dequantize_tensors, quantize_tensors

if TYPE_CHECKING:
    from glm_core.model.transformer import Transformer
    from glm_core.tokenizer.protocol import Tokenizer

FORMAT, VERSION = "glm-core", 1
EMBEDDED = {"nano-text": Path(__file__).parents[1] / "nano" / "text"}


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
        OSError: if it cannot be written; a folder that was there before is then untouched.
    """
    folder = Path(folder)
    how = _quantize_kind(quantize)
    temporary = folder.with_name(f".writing-{folder.name}-{os.getpid()}")
    tensors = model.state_dict()
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        tokenizer.save(temporary)
        if how is Quantize.int8:
            tensors = quantize_tensors(tensors)
        write_safetensors(temporary / "model.safetensors", tensors, {"format": "pt"})
        config = {"format": FORMAT, "version": VERSION, "model": model.config.to_dict()}
        write_json(temporary / "config.json", config)
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


def load_pretrained(
    name_or_folder: Path | str,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> tuple[Transformer, Tokenizer]:
    """Read what `save_pretrained` wrote.

    Args:
        name_or_folder: a folder, or the name of a model that comes with the package.
        device: where the weights go.
        dtype: what they are converted to.

    Returns:
        The model in evaluation mode, and its tokenizer.

    Raises:
        CheckpointError: names the file that is missing, damaged or does not fit, and the remedy.
    """
    from glm_core.model.transformer import Transformer
    from glm_core.tokenizer.loading import load_tokenizer

    folder = resolve_model(name_or_folder)
    remedy = f"copy {folder} again, or train and save it again"
    config = _read_config(folder / "config.json", remedy)
    path = folder / "model.safetensors"
    tensors = dequantize_tensors(read_safetensors(path, remedy), dtype)
    with torch.device("meta"):
        model = Transformer(config)
    fault = mismatch(model.state_dict(), tensors)
    if fault:
        raise CheckpointError(f"{path} does not fit config.json beside it: {fault}; {remedy}")
    moved = {name: tensor.to(device, dtype) for name, tensor in tensors.items()}
    model.load_state_dict(moved, assign=True)
    return model.eval(), load_tokenizer(folder)


def resolve_model(name_or_folder: Path | str) -> Path:
    """The folder that a model's name or path stands for.

    Raises:
        CheckpointError: if there is none; lists the names that exist.
    """
    folder = EMBEDDED.get(str(name_or_folder), Path(name_or_folder))
    if (folder / "config.json").is_file():
        return folder
    if str(name_or_folder) in EMBEDDED:
        raise CheckpointError(
            f"{name_or_folder} is not part of this installation ({folder} is missing): install the"
            " package again, or train it with `glm train experiment=nano_text`"
        )
    why = "has no config.json" if folder.is_dir() else "does not exist"
    raise CheckpointError(
        f"no model in {folder}: the folder {why}. Give the `model` folder of a finished `glm train`"
        f" run, or a name: {', '.join(EMBEDDED)}"
    )


def _quantize_kind(name: str) -> Quantize:
    try:
        return Quantize(name)
    except ValueError:
        kinds = ", ".join(kind.value for kind in Quantize)
        raise ValueError(f"quantize is {name!r}; use one of: {kinds}") from None


def _read_config(path: Path, remedy: str) -> Any:
    from glm_core.model.config import TransformerConfig

    raw = read_json(path, remedy)
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        found = raw.get("format") if isinstance(raw, dict) else None
        raise CheckpointError(
            f"{path} is of format {found!r}; this program reads format {FORMAT!r}. Convert the"
            " model first, or give a folder written by `glm train`"
        )
    if raw.get("version") != VERSION:
        raise CheckpointError(
            f"{path} has version {raw.get('version')!r}; this program reads version {VERSION}."
            " Use the program that wrote it, or a newer one"
        )
    try:
        return TransformerConfig.from_dict(raw["model"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not describe a model ({error}); {remedy}") from error
