"""GPT-2's byte-level BPE with GLM's command tokens: GLM 2B, 10B and roberta-large."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from glm_core.tokenizer.added import gaps, read_ids, with_added
from glm_core.tokenizer.base import ReleasedTokenizer
from glm_core.tokenizer.byte_bpe import byte_pieces, valid_utf8
from glm_core.tokenizer.specials import CLS, DBLOCK, EOP, EOS, GMASK, MASK, SMASK, SOP

if TYPE_CHECKING:
    from tokenizers import Tokenizer as HFTokenizer

VOCAB_FILE = "vocab.json"
MERGES_FILE = "merges.txt"
COMMANDS = (SOP, EOP, CLS, MASK, "[SEP]", "[UNK]", GMASK, SMASK, DBLOCK)
"""GLM's names in the order of their ids, the first one right after the vocabulary.

[gMASK] and [sMASK] come with `--task-mask`, as in 2B and 10B, and the last one, written
[dBLOCK] in the original, with `--block-mask-prob`. Source: THUDM/GLM data_utils/tokenization.py
(GPT2BPETokenizer) in its later forks; 50256..50264 also in TensorRT-LLM's table for glm-10b.
"""
ROBERTA_NAMES = {EOS: "</s>", "[SEP]": "</s>", CLS: "<s>", MASK: "<mask>", "[UNK]": "<unk>"}
"""GLM's names for entries of RoBERTa's own dictionary; the model has no task masks."""
UNUSED = re.compile(rb"madeupword\d+|<\|endoftext\|>")
"""Further entries of RoBERTa's dictionary that no text makes."""


class GPT2Tokenizer(ReleasedTokenizer):
    """Byte-level BPE on text split as GPT-2 does; no space is put in front.

    RoBERTa's vocab.json holds the same pieces under other ids, and its <s>, </s> and <mask>
    take the place of GLM's [CLS], <|endoftext|> and [MASK]. <|endoftext|> fills rows too.
    """

    kind: ClassVar[str] = "gpt2"

    def __init__(self, bpe: HFTokenizer, specials: Mapping[str, int], files: Sequence[Path]):
        """
        Args:
            bpe: from `read_bpe`.
            specials: ids by name.
            files: vocabulary files that `save` copies.
        """
        self._pieces = byte_pieces(bpe)
        count = len(self._pieces)
        named = set(specials.values())
        unused = {token for token in range(count) if UNUSED.fullmatch(self._pieces[token])}
        super().__init__(
            files,
            specials,
            vocab_size=max(count, 1 + max(named)),
            stop_names=(EOP, EOS),
            nameless_ids=(unused - named) | gaps(specials, count),
        )
        self._bpe = bpe

    @classmethod
    def load(cls, folder: Path | str) -> GPT2Tokenizer:
        """Reads vocab.json and merges.txt, and added_tokens.json where there is one.

        Raises:
            ValueError: if a file is missing or damaged.
        """
        folder = Path(folder)
        vocab_path, merges_path = folder / VOCAB_FILE, folder / MERGES_FILE
        vocab = read_ids(vocab_path)
        outside, added_files = with_added(folder, _commands(vocab, vocab_path))
        specials = {**_inside(vocab), **outside}
        bpe = read_bpe(vocab_path, merges_path)
        files = [vocab_path, merges_path, *added_files]
        return cls(bpe, specials, files)

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; never a special id."""
        ids: list[int] = self._bpe.encode(valid_utf8(text), add_special_tokens=False).ids
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, in parallel."""
        clean = [valid_utf8(text) for text in texts]
        batch = self._bpe.encode_batch_fast(clean, add_special_tokens=False)
        return [encoding.ids for encoding in batch]

    def before_blank(self, text: str) -> str:
        """The text without the white space at its end, which goes to the blank's token.

        Source: THUDM/GLM, data_utils/tokenization.py, the command tokens of GPT2BPETokenizer.
        """
        return text.rstrip()

    def piece(self, token: int) -> bytes:
        """Bytes of one piece."""
        return self._pieces[token]

    @property
    def pad_id(self) -> int:
        """The end of a document fills rows, in RoBERTa's dictionary too."""
        return self.eos_id


def read_bpe(vocab_path: Path, merges_path: Path) -> HFTokenizer:
    """GPT-2's BPE from its two files, without any added token.

    Raises:
        ValueError: if a file is missing, or the two do not fit.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers

    for path in (vocab_path, merges_path):
        if not path.is_file():
            raise ValueError(f"{path} is missing: copy it from the released model")
    try:
        model = models.BPE.from_file(str(vocab_path), str(merges_path))
    except Exception as error:  # the library raises bare Exception for a damaged file
        raise ValueError(
            f"{merges_path} does not fit {vocab_path.name} ({error}); copy both again"
        ) from error
    bpe = Tokenizer(model)
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return bpe


def _is_roberta(vocab: Mapping[str, int]) -> bool:
    return all(name in vocab for name in ROBERTA_NAMES.values())


def _inside(vocab: Mapping[str, int]) -> dict[str, int]:
    """Special tokens that the vocabulary itself holds; no merge makes them."""
    if not _is_roberta(vocab):
        return {EOS: vocab[EOS]}
    own = {name: vocab[name] for name in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")}
    return {**{name: vocab[native] for name, native in ROBERTA_NAMES.items()}, **own}


def _commands(vocab: Mapping[str, int], path: Path) -> dict[str, int]:
    """Ids of the command tokens after the vocabulary."""
    if _is_roberta(vocab):
        return {SOP: len(vocab), EOP: len(vocab) + 1}
    if EOS not in vocab:
        raise ValueError(f"{path} has neither {EOS} nor RoBERTa's <mask>: it is not GPT-2's")
    return {name: len(vocab) + rank for rank, name in enumerate(COMMANDS)}
