"""Reads a tokenizer folder, whatever kind is in it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import cast

from glm_core.tokenizer.base import CONFIG_NAME
from glm_core.tokenizer.detection import check_pointers, detect_kind
from glm_core.tokenizer.protocol import Tokenizer
from glm_core.tokenizer.settings import read_settings

KINDS: dict[str, str] = {
    "byte_bpe": "glm_core.tokenizer.byte_bpe:ByteBPETokenizer",
    "wordpiece": "glm_core.tokenizer.wordpiece:WordPieceTokenizer",
    "gpt2": "glm_core.tokenizer.gpt2:GPT2Tokenizer",
    "codegeex": "glm_core.tokenizer.codegeex:CodeGeeXTokenizer",
    "chinese_sp": "glm_core.tokenizer.chinese:ChineseTokenizer",
    "chinese_sp_unfixed": "glm_core.tokenizer.chinese:UnfixedChineseTokenizer",
    "icetk": "glm_core.tokenizer.icetk:IcetkTokenizer",
    "chatglm": "glm_core.tokenizer.icetk:ChatGLMTokenizer",
    "chatglm2": "glm_core.tokenizer.chatglm2:ChatGLM2Tokenizer",
    "chatglm3": "glm_core.tokenizer.chatglm2:ChatGLM3Tokenizer",
    "glm4": "glm_core.tokenizer.glm4:GLM4Tokenizer",
    "llama": "glm_core.tokenizer.llama:LlamaTokenizer",
}
"""Where the class of each kind is; each has a class method `load(folder)`."""


def load_tokenizer(folder: Path | str, kind: str | None = None) -> Tokenizer:
    """Loads the tokenizer of a folder that `Tokenizer.save` wrote, or of a released model.

    Args:
        folder: holds the vocabulary files under their released names.
        kind: one of `KINDS`, for a folder whose files do not tell.

    Raises:
        ValueError: if the folder has no tokenizer, or one of an unknown kind; if a file is
            missing, damaged or does not fit the others.
    """
    folder = Path(folder)
    check_pointers(folder)
    found = kind or detect_kind(folder)
    if found not in KINDS:
        fault = f"{folder / CONFIG_NAME} names tokenizer kind {found!r}"
        fault = f"kind={kind!r} is unknown" if kind else fault
        raise ValueError(f"{fault}: known kinds are {', '.join(KINDS)}")
    module, _, name = KINDS[found].partition(":")
    tokenizer = cast(Tokenizer, getattr(import_module(module), name).load(folder))
    _check_promises(folder / CONFIG_NAME, tokenizer)
    return tokenizer


def _check_promises(path: Path, tokenizer: Tokenizer) -> None:
    """Checks what `save` wrote down against what was loaded."""
    saved = read_settings(path)
    if saved.get("kind") != tokenizer.kind:
        return  # as released, or another kind was asked for
    if saved.get("vocab_size", tokenizer.vocab_size) != tokenizer.vocab_size:
        raise ValueError(
            f"{path} promises {saved['vocab_size']} ids but the vocabulary has "
            f"{tokenizer.vocab_size}: the files are from different tokenizers"
        )
