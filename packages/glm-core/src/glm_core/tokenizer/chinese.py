"""The SentencePiece vocabulary of 50000 pieces of the Chinese GLM models."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

from glm_core.tokenizer.sentencepiece import SentencePieces, SentencePieceTokenizer
from glm_core.tokenizer.specials import CLS, EOP, EOS, GMASK, MASK, SMASK, SOP

FILE_NAME = "cog-pretrain.model"


class ChineseTokenizer(SentencePieceTokenizer):
    """cog-pretrain.model and ten ids after it; characters it does not know become <unk>.

    Source: ChineseSPTokenizer in THUDM/GLM with `--fix-command-token`, as in glm-large-chinese
    and in the released Hugging Face folders.
    """

    kind: ClassVar[str] = "chinese_sp"
    special_names: ClassVar[tuple[tuple[str, ...], ...]] = (
        (EOS,), ("[SEP]",), (CLS,), (MASK,), ("[UNK]",), (), (SOP,), (EOP,), (SMASK,), (GMASK,),
    )  # fmt: skip
    """Names of the ids after the pieces of the file; one id has none."""

    def __init__(self, path: Path) -> None:
        """
        Args:
            path: cog-pretrain.model.

        Raises:
            ValueError: if the file is missing or damaged.
        """
        model = SentencePieces(path)
        ids = [model.size + rank for rank in range(len(self.special_names))]
        named = zip(self.special_names, ids, strict=True)
        super().__init__(
            model,
            {name: token for names, token in named for name in names},
            (EOS, EOP),
            num_specials=len(ids),
            nameless_ids=ids,
        )

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Reads cog-pretrain.model.

        Raises:
            ValueError: if the file is missing or damaged.
        """
        return cls(Path(folder) / FILE_NAME)


class UnfixedChineseTokenizer(ChineseTokenizer):
    """The same without `--fix-command-token`: [gMASK] has the id of <|endofpiece|>.

    The original checkpoint of GLM-10B-Chinese was trained so. Its Hugging Face folder has a copy
    of that embedding under an id of its own and needs `ChineseTokenizer`.
    """

    kind: ClassVar[str] = "chinese_sp_unfixed"
    special_names: ClassVar[tuple[tuple[str, ...], ...]] = (
        *ChineseTokenizer.special_names[:7], (EOP, GMASK), (SMASK,),
    )  # fmt: skip
