"""The SentencePiece BPE of ChatGLM2-6B, CodeGeeX2-6B and ChatGLM3-6B."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

from glm_core.tokenizer.base import CONFIG_NAME
from glm_core.tokenizer.sentencepiece import SentencePieces, SentencePieceTokenizer
from glm_core.tokenizer.settings import read_settings
from glm_core.tokenizer.specials import EOS, GMASK, MASK, ROLE_TOKENS, SMASK

FILE_NAME = "tokenizer.model"
PAD_KEY = "pad_token"


class ChatGLM2Tokenizer(SentencePieceTokenizer):
    """tokenizer.model and five special tokens after it.

    A space is put before every text: in a prompt of several pieces, before each of them.

    Source: tokenization_chatglm.py of chatglm2-6b and codegeex2-6b.
    """

    kind: ClassVar[str] = "chatglm2"
    special_names: ClassVar[tuple[str, ...]] = (MASK, GMASK, SMASK, "sop", "eop")
    """Names after the pieces of the file, in the order of their ids."""
    stop_names: ClassVar[tuple[str, ...]] = (EOS,)

    def __init__(self, path: Path, pad_token: str = "<unk>") -> None:
        """
        Args:
            path: tokenizer.model.
            pad_token: fills rows; CodeGeeX2 takes </s>.

        Raises:
            ValueError: if the file is missing, damaged or not one with <s>, </s> and bytes, or if
                `pad_token` is none of its special tokens.
        """
        model = SentencePieces(path)
        absent = [name for name in ("<unk>", "<s>", "</s>") if name not in model.controls]
        if absent:
            raise ValueError(
                f"{path} is not the vocabulary of ChatGLM2 or 3: it has no special {absent[0]}"
            )
        if pad_token not in model.controls:
            raise ValueError(
                f"pad_token={pad_token!r} is no special token of {path.name}: choose one of "
                + ", ".join(model.controls)
            )
        specials = {name: model.size + rank for rank, name in enumerate(self.special_names)}
        ends = {"<pad>": model.controls[pad_token], "<bos>": model.controls["<s>"]}
        super().__init__(
            model,
            {**ends, **specials},
            self.stop_names,
            num_specials=len(specials),
            options={PAD_KEY: pad_token},
        )

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Reads tokenizer.model, and from the JSON files what fills rows.

        Raises:
            ValueError: if a file is missing or damaged, or tokenizer.model another tokenizer's.
        """
        folder = Path(folder)
        origin = read_settings(folder / "config.json").get("_name_or_path")
        pad_token = read_settings(folder / CONFIG_NAME).get(PAD_KEY)
        if pad_token not in ("<unk>", "</s>"):  # as released, the file does not say
            pad_token = "</s>" if "codegeex2" in str(origin).lower() else "<unk>"
        return cls(folder / FILE_NAME, pad_token)


class ChatGLM3Tokenizer(ChatGLM2Tokenizer):
    """The same file, and four more special tokens that open the messages of a chat.

    Source: tokenization_chatglm.py of chatglm3-6b.
    """

    kind: ClassVar[str] = "chatglm3"
    special_names: ClassVar[tuple[str, ...]] = (*ChatGLM2Tokenizer.special_names, *ROLE_TOKENS)
    stop_names: ClassVar[tuple[str, ...]] = (EOS, "<|user|>", "<|observation|>")
