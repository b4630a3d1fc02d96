"""The formats in which models of the family were released: a file and a table each."""

from __future__ import annotations

from glm_core.checkpoint.files import CheckpointError
from glm_core.checkpoint.folder import WeightFolder
from glm_core.checkpoint.formats.base import Format
from glm_core.checkpoint.formats.chatglm import CHATGLM
from glm_core.checkpoint.formats.chatglm2 import CHATGLM2
from glm_core.checkpoint.formats.codegeex_13b import (
    CODEGEEX_13B,
    CODEGEEX_13B_FUSED,
    CODEGEEX_13B_PADDLE,
)
from glm_core.checkpoint.formats.codegeex_13b_mindspore import CODEGEEX_13B_MINDSPORE
from glm_core.checkpoint.formats.glm import GLM, GLM_HF
from glm_core.checkpoint.formats.glm4_hf import GLM4_0414_HF, GLM4_HF
from glm_core.checkpoint.formats.glm_130b import GLM_130B
from glm_core.checkpoint.formats.glm_lab import GLM_LAB
from glm_core.checkpoint.formats.llama import LLAMA

FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        GLM_LAB,
        GLM,
        GLM_HF,
        GLM_130B,
        CHATGLM,
        CHATGLM2,
        GLM4_HF,
        GLM4_0414_HF,
        LLAMA,
        CODEGEEX_13B,
        CODEGEEX_13B_FUSED,
        CODEGEEX_13B_MINDSPORE,
        CODEGEEX_13B_PADDLE,
    )
}

__all__ = ["FORMATS", "Format", "detect", "format_named"]


def format_named(name: str) -> Format:
    """The format called `name`.

    Raises:
        ValueError: there is none.
    """
    if name not in FORMATS:
        raise ValueError(
            f"checkpoint format {name!r} is unknown: choose one of {', '.join(FORMATS)}"
        )
    return FORMATS[name]


def detect(folder: WeightFolder) -> Format:
    """The format of a folder, by its config.json and the names of its tensors.

    Raises:
        CheckpointError: no format matches.
    """
    for format in FORMATS.values():
        if format.matches(folder):
            return format
    if all(".prefix_encoder." in f".{name}" for name in folder.tensors):
        raise CheckpointError(
            f"{folder.path} holds a prefix encoder alone: load the model that it was tuned for, "
            "with --prefix and this folder"
        )
    names = ", ".join(sorted(folder.tensors)[:3])
    raise CheckpointError(
        f"{folder.path} is in no known format (its tensors begin with {names}): name it with "
        f"--from, one of {', '.join(FORMATS)}"
    )
