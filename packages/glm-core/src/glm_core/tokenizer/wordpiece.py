"""BERT's uncased WordPiece with GLM's command tokens: GLM base, large, 410M and 515M."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from glm_core.tokenizer.added import gaps, with_added
from glm_core.tokenizer.base import ReleasedTokenizer
from glm_core.tokenizer.byte_bpe import valid_utf8
from glm_core.tokenizer.specials import CLS, EOP, EOS, MASK, SOP

VOCAB_FILE = "vocab.txt"
UNKNOWN = "[UNK]"
CONTINUATION = "##"
UNUSED = re.compile(r"\[unused\d+\]")
IDEOGRAPHS = (
    range(0x3400, 0x4DC0),
    range(0x4E00, 0xA000),
    range(0xF900, 0xFB00),
    range(0x20000, 0x2A6E0),
    range(0x2A700, 0x2B740),
    range(0x2B740, 0x2B820),
    range(0x2B820, 0x2CEB0),
    range(0x2F800, 0x2FA20),
)
"""Code points that stand alone as words, as in BERT."""
MAX_CHARS_PER_WORD = 100
"""A longer word is unknown as a whole, as in BERT."""


class WordPieceTokenizer(ReleasedTokenizer):
    """Lower-cased words cut into the longest pieces that the vocabulary has.

    White space, case, accents and unknown words do not survive: decoding gives the words with
    one space between them. The released models know one blank only, [MASK]; [PAD] ends a
    document and fills rows. A word outside the vocabulary becomes [UNK], so this one name in
    brackets counts as text.

    Source: THUDM/GLM data_utils/wordpiece.py, tokenization.py (BertWordPieceTokenizer), and
    config_tasks/model_blocklm_{base,large,1.25_generation,...}.sh, none of which sets a task mask.
    """

    kind: ClassVar[str] = "wordpiece"

    def __init__(self, vocab: Sequence[str], specials: Mapping[str, int], files: Sequence[Path]):
        """
        Args:
            vocab: pieces in the order of their ids; continuations start with "##".
            specials: ids by name.
            files: vocabulary files that `save` copies.
        """
        from tokenizers import Tokenizer, models, pre_tokenizers

        unused = {token for token, piece in enumerate(vocab) if UNUSED.fullmatch(piece)}
        super().__init__(
            files,
            specials,
            vocab_size=max(len(vocab), 1 + max(specials.values())),
            stop_names=(EOP, EOS),
            nameless_ids=unused | gaps(specials, len(vocab)),
        )
        self._pieces = [_bytes_of(piece) for piece in vocab]
        self._model = Tokenizer(
            models.WordPiece(
                {piece: token for token, piece in enumerate(vocab)},
                unk_token=UNKNOWN,
                max_input_chars_per_word=MAX_CHARS_PER_WORD,
            )
        )
        self._model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()

    @classmethod
    def load(cls, folder: Path | str) -> WordPieceTokenizer:
        """Reads vocab.txt, and added_tokens.json where there is one.

        Raises:
            ValueError: if vocab.txt is missing or damaged.
        """
        folder = Path(folder)
        path = folder / VOCAB_FILE
        vocab = read_vocab(path)
        position = {piece: token for token, piece in enumerate(vocab)}
        outside, added_files = with_added(folder, {SOP: len(vocab), EOP: len(vocab) + 1})
        inside = {name: position[name] for name in ("[PAD]", CLS, MASK, "[SEP]")}
        specials = {**inside, EOS: position["[PAD]"], **outside}
        return cls(vocab, specials, [path, *added_files])

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; never a special id."""
        ids: list[int] = self._model.encode(basic_words(text), add_special_tokens=False).ids
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, in parallel."""
        clean = [basic_words(text) for text in texts]
        batch = self._model.encode_batch_fast(clean, add_special_tokens=False)
        return [encoding.ids for encoding in batch]

    def piece(self, token: int) -> bytes:
        """A space and the piece; a continuation is the piece alone."""
        return self._pieces[token]

    def decode(self, ids: Iterable[int]) -> str:
        """Words with one space between them; special ids give nothing."""
        return super().decode(ids).removeprefix(" ")

    @property
    def pad_id(self) -> int:
        """Id of [PAD], which ends a document too."""
        return self.token_id("[PAD]")


class _Table(dict[int, str]):
    """What `str.translate` puts in the place of each character, found by a rule when first met."""

    def __init__(self, rule: Callable[[str], str]) -> None:
        super().__init__()
        self._rule = rule

    def __missing__(self, code: int) -> str:
        self[code] = self._rule(chr(code))
        return self[code]


def _clean(char: str) -> str:
    """Drops control characters, makes white space a space, sets ideographs apart."""
    if char in "\t\n\r" or unicodedata.category(char) == "Zs":
        return " "
    if char in "\0\ufffd" or unicodedata.category(char).startswith("C"):
        return ""
    return f" {char} " if any(ord(char) in block for block in IDEOGRAPHS) else char


def _split(char: str) -> str:
    """Drops accents (after decomposition) and sets punctuation apart."""
    category = unicodedata.category(char)
    if category == "Mn":
        return ""
    symbol = char.isascii() and char.isprintable() and not char.isalnum() and char != " "
    return f" {char} " if symbol or category.startswith("P") else char


_CLEAN, _SPLIT = _Table(_clean), _Table(_split)


def basic_words(text: str) -> str:
    """`text` in lower case without accents, white space between words, marks and ideographs.

    The tokenizers library's BertNormalizer is not used: it knows an older Unicode and leaves out
    256 ideographs, so a few hundred characters would get other ids than in the original.
    """
    lowered = valid_utf8(text).translate(_CLEAN).lower()
    return unicodedata.normalize("NFD", lowered).translate(_SPLIT)


def read_vocab(path: Path) -> list[str]:
    """Pieces of a vocab.txt, one a line, in the order of their ids.

    Raises:
        ValueError: if the file is missing, no UTF-8, or not BERT's.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing: copy it from the released model")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}); copy it again") from error
    vocab = lines[:-1] if lines[-1] == "" else lines
    if len(set(vocab)) != len(vocab):
        twice = next(piece for piece in vocab if vocab.count(piece) > 1)
        raise ValueError(
            f"{path} has the line {twice!r} twice, so every id after it is wrong; copy it again"
        )
    needed = ("[PAD]", UNKNOWN, CLS, "[SEP]", MASK)
    missing = [name for name in needed if name not in vocab]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}: it is not BERT's vocabulary")
    return vocab


def _bytes_of(piece: str) -> bytes:
    if piece.startswith(CONTINUATION) and piece != CONTINUATION:
        return piece.removeprefix(CONTINUATION).encode("utf-8")
    return f" {piece}".encode()
