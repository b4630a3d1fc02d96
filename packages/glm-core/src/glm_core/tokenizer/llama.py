"""LLaMA's SentencePiece BPE, also Vicuna's."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

from glm_core.tokenizer.added import gaps, with_added
from glm_core.tokenizer.sentencepiece import SentencePieces, SentencePieceTokenizer
from glm_core.tokenizer.specials import EOS

FILE_NAME = "tokenizer.model"


class LlamaTokenizer(SentencePieceTokenizer):
    """tokenizer.model: <unk> 0, <s> 1, </s> 2, bytes for what the vocabulary does not have.

    A space is put before every text. The model's prompts begin with <s>, which `encode` leaves
    to the prompt. There are no blanks, so no [MASK].
    """

    kind: ClassVar[str] = "llama"

    def __init__(self, model: SentencePieces, added: dict[str, int], files: list[Path]) -> None:
        """
        Args:
            model: the vocabulary.
            added: further special tokens by name, with ids after those of the vocabulary.
            files: where `added` was read from.

        Raises:
            ValueError: if the vocabulary has no </s>, or an added id is inside it.
        """
        if not {"<s>", "</s>"} <= model.controls.keys():
            raise ValueError(f"{model.path} is not LLaMA's: it has no special <s> and </s>")
        for name, token in added.items():
            if token < model.size and model.controls.get(name) != token:
                raise ValueError(
                    f"{files[0]} puts {name} at {token}, inside the {model.size} pieces of "
                    f"{model.path.name}: the two files are from different tokenizers"
                )
        super().__init__(
            model,
            {"<bos>": model.controls["<s>"], **added},
            (EOS,),
            num_specials=max(0, 1 + max(added.values(), default=0) - model.size),
            more_files=files,
            nameless_ids=gaps(added, model.size),
        )

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Reads tokenizer.model, and added_tokens.json where there is one.

        Raises:
            ValueError: if a file is missing or damaged, or the two do not fit.
        """
        folder = Path(folder)
        added, files = with_added(folder, {})
        return cls(SentencePieces(folder / FILE_NAME), added, files)
