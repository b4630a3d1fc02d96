"""Which tokenizer a folder holds, told by its files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from glm_core.git_lfs import POINTER_FAULT, is_pointer
from glm_core.tokenizer.added import ADDED_TOKENS
from glm_core.tokenizer.base import CONFIG_NAME
from glm_core.tokenizer.settings import read_settings
from glm_core.tokenizer.specials import EOP, GMASK, ROLE_TOKENS

_FILES = (
    "tokenizer.model, ice_text.model, cog-pretrain.model, vocab.txt, vocab.json and merges.txt, "
    "or tokenizer.json"
)
_VOCABULARIES = (
    "tokenizer.model", "ice_text.model", "cog-pretrain.model", "vocab.txt", "vocab.json",
    "merges.txt", "tokenizer.json",
)  # fmt: skip
_RANK_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n")
"""A line of a tiktoken file: a token in base 64, and its rank."""
_OWN_CODE = "tokenization_chatglm.py"
_SHARED_BY_NAME = {"chatglm3": "chatglm3", "chatglm2": "chatglm2", "codegeex2": "chatglm2"}


def detect_kind(folder: Path) -> str:
    """The kind of the tokenizer in `folder`.

    Told by the "kind" that `Tokenizer.save` wrote, or else by the names of the files and by what
    config.json says of the model. No code of the folder is run.

    Raises:
        ValueError: if there is no tokenizer, or the files do not tell which it is.
    """
    saved = read_settings(folder / CONFIG_NAME).get("kind")
    if saved is not None:
        return str(saved)
    for kind in _by_files(folder):
        return kind
    fault = f"it holds none of {_FILES}" if folder.is_dir() else "there is no such folder"
    raise ValueError(
        f"no tokenizer in {folder}: {fault}; give the folder of a released model, or one that was "
        "saved here"
    )


def check_pointers(folder: Path) -> None:
    """Refuses a folder that was cloned without its large files.

    Raises:
        ValueError: a vocabulary is a pointer of Git LFS.
    """
    for path in (folder / name for name in _VOCABULARIES):
        if path.is_file() and is_pointer(path):
            raise ValueError(f"{path} {POINTER_FAULT}")


def _by_files(folder: Path) -> Iterator[str]:
    """Kinds that the files speak for, the surest first."""
    if (folder / "ice_text.model").is_file():
        yield _icetk_kind(folder)
    if (folder / "cog-pretrain.model").is_file():
        added = read_settings(folder / ADDED_TOKENS)
        shared = GMASK in added and added[GMASK] == added.get(EOP)
        yield "chinese_sp_unfixed" if shared else "chinese_sp"
    if (folder / "tokenizer.model").is_file():
        yield _tokenizer_model_kind(folder)
    if (folder / "vocab.txt").is_file():
        yield "wordpiece"
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        is_codegeex = "<|extratoken_1|>" in read_settings(folder / ADDED_TOKENS)
        yield "codegeex" if is_codegeex else "gpt2"
    if (folder / "tokenizer.json").is_file():
        yield _tokenizer_json_kind(folder)


def _icetk_kind(folder: Path) -> str:
    """GLM-130B's folder has no config.json of its own, and the file as icetk published it."""
    from glm_core.tokenizer.icetk import FILE_NAME, has_special_pieces

    is_chatglm = _is_chatglm(folder) or has_special_pieces(folder / FILE_NAME)
    return "chatglm" if is_chatglm else "icetk"


def _tokenizer_model_kind(folder: Path) -> str:
    with (folder / "tokenizer.model").open("rb") as file:
        if _RANK_LINE.match(file.read(1024)):
            return "glm4"
    if _model_type(folder) == "llama" or _tokenizer_class(folder).startswith("Llama"):
        return "llama"
    if (folder / "params.json").is_file():  # as Meta's own folders
        return "llama"
    if _is_chatglm(folder):
        return _chatglm_2_or_3(folder)
    raise ValueError(
        f"cannot tell whose tokenizer.model is in {folder}: neither config.json nor {CONFIG_NAME} "
        "names the model; say kind=chatglm2, chatglm3 or llama (--tokenizer-kind)"
    )


def _chatglm_2_or_3(folder: Path) -> str:
    """The two share one vocabulary file; only ChatGLM3 has the special tokens of the roles."""
    settings = str(read_settings(folder / CONFIG_NAME))
    code = folder / _OWN_CODE
    source = code.read_text(encoding="utf-8", errors="replace") if code.is_file() else ""
    if any(role in settings or role in source for role in ROLE_TOKENS):
        return "chatglm3"
    if source:
        return "chatglm2"
    origins = (
        read_settings(folder / "config.json").get("_name_or_path", ""),
        read_settings(folder / CONFIG_NAME).get("name_or_path", ""),  # stays when it is fine-tuned
    )
    for origin in origins:
        for name, kind in _SHARED_BY_NAME.items():
            if name in str(origin).lower():
                return kind
    raise ValueError(
        f"cannot tell ChatGLM2 from ChatGLM3 in {folder}, which share tokenizer.model: there is no "
        f"{_OWN_CODE}, and neither config.json nor {CONFIG_NAME} names the model; say "
        "kind=chatglm2 (CodeGeeX2 too) or chatglm3 (--tokenizer-kind)"
    )


def _tokenizer_json_kind(folder: Path) -> str:
    text = (folder / "tokenizer.json").read_text(encoding="utf-8", errors="replace")
    if '"[gMASK]"' in text and '"<|observation|>"' in text:
        return "glm4"
    raise ValueError(
        f"{folder / 'tokenizer.json'} is not GLM-4's: say kind=byte_bpe (--tokenizer-kind) if it "
        "was trained here, or give the vocabulary as released (tokenizer.model, vocab.txt, "
        "vocab.json and merges.txt)"
    )


def _is_chatglm(folder: Path) -> bool:
    if _model_type(folder) == "chatglm" or (folder / _OWN_CODE).is_file():
        return True
    return _tokenizer_class(folder) == "ChatGLMTokenizer"


def _model_type(folder: Path) -> str:
    return str(read_settings(folder / "config.json").get("model_type", ""))


def _tokenizer_class(folder: Path) -> str:
    return str(read_settings(folder / CONFIG_NAME).get("tokenizer_class", ""))
