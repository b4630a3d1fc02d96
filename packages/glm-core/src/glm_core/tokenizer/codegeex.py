"""CodeGeeX-13B: GPT-2's byte-level BPE, and one id for a run of two to ten spaces."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from glm_core.tokenizer.added import ADDED_TOKENS, read_ids
from glm_core.tokenizer.base import ReleasedTokenizer
from glm_core.tokenizer.byte_bpe import byte_pieces, valid_utf8
from glm_core.tokenizer.gpt2 import MERGES_FILE, VOCAB_FILE, read_bpe
from glm_core.tokenizer.specials import EOS

if TYPE_CHECKING:
    from tokenizers import Tokenizer as HFTokenizer

NUM_EXTRA = 143
"""<|extratoken_1|> .. <|extratoken_143|>; the model's further rows are padding, never sampled."""
SPACES = range(2, 11)
FIRST_RUN = 10
"""Two spaces are <|extratoken_10|>, ten are <|extratoken_18|>."""
# Greedy from the left, so thirteen spaces are ten and three, and of eleven the last is plain:
# the same as replacing ten spaces everywhere, then nine, down to two.
_RUN = re.compile(f"( {{{SPACES.start},{SPACES.stop - 1}}})")


class CodeGeeXTokenizer(ReleasedTokenizer):
    """Spaces in runs have ids of their own, tabs and line ends stay as GPT-2 has them.

    The ids of runs are text. All others beyond GPT-2's are special, as is <|endoftext|>, which
    ends, pads and stands for unknown; there is no token in front and there are no blanks.

    Source: THUDM/CodeGeeX codegeex/tokenizer/tokenizer.py and added_tokens.json.
    """

    kind: ClassVar[str] = "codegeex"

    def __init__(self, bpe: HFTokenizer, files: Sequence[Path]) -> None:
        """
        Args:
            bpe: from `read_bpe`; <|endoftext|> is its last id.
            files: vocabulary files that `save` copies.
        """
        self._pieces = byte_pieces(bpe)
        eos = len(self._pieces) - 1
        self._run_ids = {length: eos + FIRST_RUN + length - SPACES.start for length in SPACES}
        self._runs = {token: b" " * length for length, token in self._run_ids.items()}
        super().__init__(
            files,
            {EOS: eos},
            vocab_size=eos + 1 + NUM_EXTRA,
            stop_names=(EOS,),
            nameless_ids=set(_extra_ids(eos).values()) - set(self._runs),
        )
        self._bpe = bpe

    @classmethod
    def load(cls, folder: Path | str) -> CodeGeeXTokenizer:
        """Reads vocab.json and merges.txt; added_tokens.json must agree where there is one.

        Raises:
            ValueError: if a file is missing, damaged or another tokenizer's.
        """
        folder = Path(folder)
        files = [folder / VOCAB_FILE, folder / MERGES_FILE]
        vocab = read_ids(files[0])
        if vocab.get(EOS) != len(vocab) - 1:
            raise ValueError(f"{files[0]} must end with {EOS}: it is not GPT-2's vocabulary")
        added = folder / ADDED_TOKENS
        if added.is_file():
            if read_ids(added) != _extra_ids(vocab[EOS]):
                raise ValueError(
                    f"{added} must name <|extratoken_1|> to <|extratoken_{NUM_EXTRA}|> as the ids "
                    f"after {EOS}: it is another model's"
                )
            files.append(added)
        return cls(read_bpe(files[0], files[1]), files)

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; never a special id, and what is between two runs stands alone."""
        ids: list[int] = []
        for index, part in enumerate(_RUN.split(valid_utf8(text))):
            if index % 2:
                ids.append(self._run_ids[len(part)])
            elif part:
                ids.extend(self._bpe.encode(part, add_special_tokens=False).ids)
        return ids

    def piece(self, token: int) -> bytes:
        """Bytes of one piece or run of spaces."""
        return self._runs[token] if token in self._runs else self._pieces[token]


def _extra_ids(eos: int) -> dict[str, int]:
    return {f"<|extratoken_{number}|>": eos + number for number in range(1, NUM_EXTRA + 1)}
