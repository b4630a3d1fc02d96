"""The SentencePiece BPE of ChatGLM2-6B, CodeGeeX2-6B and ChatGLM3-6B."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

from glm_core.tokenizer.sentencepiece import SentencePieces, SentencePieceTokenizer
from glm_core.tokenizer.specials import EOS, GMASK, MASK, ROLE_TOKENS, SMASK

FILE_NAME = "tokenizer.model"


class ChatGLM2Tokenizer(SentencePieceTokenizer):
    """tokenizer.model and five special tokens after it; <unk> fills rows.

    A space is put before every text: in a prompt of several pieces, before each of them.

    Source: tokenization_chatglm.py of chatglm2-6b and codegeex2-6b.
    """

    kind: ClassVar[str] = "chatglm2"
    special_names: ClassVar[tuple[str, ...]] = (MASK, GMASK, SMASK, "sop", "eop")
    """Names after the pieces of the file, in the order of their ids."""
    stop_names: ClassVar[tuple[str, ...]] = (EOS,)

    def __init__(self, path: Path) -> None:
        """
        Args:
            path: tokenizer.model.

        Raises:
            ValueError: if the file is missing, damaged or not one with <s>, </s> and bytes.
        """
        model = SentencePieces(path)
        absent = [name for name in ("<unk>", "<s>", "</s>") if name not in model.controls]
        if absent:
            raise ValueError(
                f"{path} is not the vocabulary of ChatGLM2 or 3: it has no special {absent[0]}"
            )
        unknown, start = model.controls["<unk>"], model.controls["<s>"]
        specials = {name: model.size + rank for rank, name in enumerate(self.special_names)}
        super().__init__(
            model,
            {"<pad>": unknown, "<bos>": start, **specials},
            self.stop_names,
            num_specials=len(specials),
        )

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Reads tokenizer.model.

        Raises:
            ValueError: if the file is missing, damaged or another tokenizer's.
        """
        return cls(Path(folder) / FILE_NAME)


class ChatGLM3Tokenizer(ChatGLM2Tokenizer):
    """The same file, and four more special tokens that open the messages of a chat.

    Source: tokenization_chatglm.py of chatglm3-6b.
    """

    kind: ClassVar[str] = "chatglm3"
    special_names: ClassVar[tuple[str, ...]] = (*ChatGLM2Tokenizer.special_names, *ROLE_TOKENS)
    stop_names: ClassVar[tuple[str, ...]] = (EOS, "<|user|>", "<|observation|>")
