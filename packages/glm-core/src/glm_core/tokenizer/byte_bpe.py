"""Byte-level byte-pair encoding: any text is encodable, and decoding gives back the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from glm_core.tokenizer.known_lines import KnownLines, may_cut
from glm_core.tokenizer.specials import (
    CLS,
    DBLOCK,
    EOP,
    EOS,
    GMASK,
    MASK,
    SMASK,
    SOP,
    SPECIAL_TOKENS,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer as HFTokenizer

KIND = "byte_bpe"
MIN_VOCAB_SIZE = 256 + len(SPECIAL_TOKENS)


def byte_alphabet() -> dict[str, int]:
    """The printable character that stands for each byte in a byte-level vocabulary.

    Returns:
        Character to byte value, 256 entries.

    Source: the GPT-2 encoder's `bytes_to_unicode`.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    table.update({chr(256 + rank): byte for rank, byte in enumerate(hidden)})
    return table


class ByteBPETokenizer:
    """Byte-level BPE whose special tokens have the ids after the last BPE id.

    Digits are split one by one, and no space is put before the text. The BPE model itself does
    not know the special tokens, so no text can produce one.
    """

    kind = KIND

    def __init__(self, bpe: HFTokenizer, extra_specials: Sequence[str] = ()) -> None:
        """Wraps a `tokenizers.Tokenizer` that has a byte-level BPE model and no added tokens.

        Args:
            extra_specials: names of special tokens after those that every tokenizer here has.

        Raises:
            ValueError: if the vocabulary has gaps or is not byte-level, or two special tokens have
                one name.
        """
        self._bpe = bpe
        self._pieces = byte_pieces(bpe)
        names = (*SPECIAL_TOKENS, *extra_specials)
        self._specials = {name: len(self._pieces) + rank for rank, name in enumerate(names)}
        if len(self._specials) < len(names):
            raise ValueError(
                f"extra_specials {list(extra_specials)} name a token twice, or one of "
                f"{', '.join(SPECIAL_TOKENS)}, which are always there: leave it away"
            )
        self._names = {token: name for name, token in self._specials.items()}
        self._lines = KnownLines(self._read) if may_cut(json.loads(bpe.to_str())) else None

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int, extra_specials: Sequence[str] = ()
    ) -> ByteBPETokenizer:
        """Learns merges from texts.

        Args:
            texts: Training documents; iterated once.
            vocab_size: Number of ids wanted, special tokens included. A small corpus may have
                fewer merges to offer; `tokenizer.vocab_size` tells what came out.
            extra_specials: Names of more special tokens, such as those of a task.

        Raises:
            ValueError: if `vocab_size` cannot hold the 256 bytes and the special tokens.
        """
        num_specials = len(SPECIAL_TOKENS) + len(extra_specials)
        if vocab_size < 256 + num_specials:
            raise ValueError(
                f"vocab_size={vocab_size} is too small: the 256 bytes and {num_specials} "
                f"special tokens need at least {256 + num_specials}; raise vocab_size"
            )
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
        bpe.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - num_specials,
            initial_alphabet=sorted(byte_alphabet()),
            show_progress=False,
        )
        bpe.train_from_iterator(_non_empty(texts), trainer=trainer)
        return cls(bpe, extra_specials)

    @classmethod
    def load(cls, folder: Path | str) -> ByteBPETokenizer:
        """Reads `tokenizer.json` from a folder that `save` wrote.

        Raises:
            ValueError: if the file is missing or unreadable.
        """
        from tokenizers import Tokenizer

        path = Path(folder) / "tokenizer.json"
        if not path.is_file():
            raise ValueError(
                f"no tokenizer at {path}: copy the folder again, or give one that holds "
                "tokenizer.json and tokenizer_config.json"
            )
        try:
            bpe = Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises bare Exception for a malformed file
            raise ValueError(
                f"{path} is not a readable tokenizer ({error}); copy it again or train a new one"
            ) from error
        return cls(bpe, _extra_specials(path.with_name("tokenizer_config.json")))

    def save(self, folder: Path | str) -> None:
        """Writes `tokenizer.json` and `tokenizer_config.json` into `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.json").write_text(self._bpe.to_str(pretty=True), encoding="utf-8")
        config = {
            "kind": KIND,
            "version": 1,
            "vocab_size": self.vocab_size,
            "special_tokens": self._specials,
        }
        (folder / "tokenizer_config.json").write_text(
            json.dumps(config, indent=2) + "\n", encoding="utf-8"
        )

    @property
    def vocab_size(self) -> int:
        """Number of ids: BPE pieces and then the special tokens."""
        return len(self._pieces) + len(self._specials)

    @property
    def pad_id(self) -> int:
        """Padding shares the id of the end of a document."""
        return self._specials[EOS]

    @property
    def eos_id(self) -> int:
        """Id of <|endoftext|>."""
        return self._specials[EOS]

    @property
    def special_ids(self) -> frozenset[int]:
        """Every id that stands for no text."""
        return frozenset(self._names)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids of <|endoftext|> and <|endofpiece|>."""
        return tuple(sorted({self.eos_id, self.eop_id}))

    @property
    def cls_id(self) -> int:
        """Id of [CLS]."""
        return self._specials[CLS]

    @property
    def mask_id(self) -> int:
        """Id of [MASK]."""
        return self._specials[MASK]

    @property
    def smask_id(self) -> int:
        """Id of [sMASK]."""
        return self._specials[SMASK]

    @property
    def gmask_id(self) -> int:
        """Id of [gMASK]."""
        return self._specials[GMASK]

    @property
    def sop_id(self) -> int:
        """Id of <|startofpiece|>."""
        return self._specials[SOP]

    @property
    def eop_id(self) -> int:
        """Id of <|endofpiece|>."""
        return self._specials[EOP]

    @property
    def dblock_id(self) -> int:
        """Id of <|dBLOCK|>."""
        return self._specials[DBLOCK]

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; never a special id."""
        text = valid_utf8(text)
        return self._read(text) if self._lines is None else self._lines.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, in parallel."""
        clean = [valid_utf8(text) for text in texts]
        batch: Sequence[Any] = self._bpe.encode_batch_fast(clean, add_special_tokens=False)
        return [encoding.ids for encoding in batch]

    def before_blank(self, text: str) -> str:
        """The text without one space at its end.

        A word carries the space before it: in training the blank stands for " word", and the space
        belongs to the filling.
        """
        return text.removesuffix(" ")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Exact bytes of `ids`; special ids give nothing.

        Raises:
            ValueError: for an id outside the vocabulary.
        """
        return b"".join(self._piece(int(token)) for token in ids)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; bytes that are no complete character become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def has(self, name: str) -> bool:
        """Whether there is a special token called `name`."""
        return name in self._specials

    def token_id(self, name: str) -> int:
        """Id of the special token called `name`.

        Raises:
            ValueError: if there is no such special token.
        """
        if name not in self._specials:
            known = ", ".join(self._specials)
            raise ValueError(f"unknown special token {name!r}: choose one of {known}")
        return self._specials[name]

    def token_name(self, token: int) -> str:
        """The special token's name, or the piece's text (raw bytes as \\xNN)."""
        if token in self._names:
            return self._names[token]
        return self._piece(int(token)).decode("utf-8", errors="backslashreplace")

    def fingerprint(self) -> str:
        """sha256 of the BPE model and of the special ids."""
        digest = hashlib.sha256(self._bpe.to_str().encode("utf-8"))
        digest.update(json.dumps(self._specials, sort_keys=True).encode("utf-8"))
        return digest.hexdigest()

    def _read(self, text: str) -> list[int]:
        ids: list[int] = self._bpe.encode(text, add_special_tokens=False).ids
        return ids

    def _piece(self, token: int) -> bytes:
        if 0 <= token < len(self._pieces):
            return self._pieces[token]
        if token in self._names:
            return b""
        raise ValueError(
            f"token id {token} is outside the vocabulary of {self.vocab_size}: "
            "the ids come from another tokenizer"
        )


def token_lengths(tokenizer: ByteBPETokenizer) -> np.ndarray:
    """Number of bytes of every id, int64 [V]; 0 for special tokens. Gives bits per byte."""
    lengths = [len(tokenizer.decode_bytes([token])) for token in range(tokenizer.vocab_size)]
    return np.asarray(lengths, dtype=np.int64)


def byte_pieces(bpe: HFTokenizer) -> list[bytes]:
    """Bytes of every id of a byte-level vocabulary."""
    vocab = bpe.get_vocab(with_added_tokens=False)
    alphabet = byte_alphabet()
    by_id = {token: piece for piece, token in vocab.items()}
    if sorted(by_id) != list(range(len(vocab))):
        raise ValueError("the tokenizer's vocabulary has gaps: its ids must be 0..n-1")
    if bpe.get_vocab_size(with_added_tokens=True) != len(vocab):
        raise ValueError(
            "the tokenizer has added tokens, which text could produce; "
            "remove added_tokens from tokenizer.json"
        )
    try:
        return [bytes(alphabet[char] for char in by_id[token]) for token in range(len(vocab))]
    except KeyError as error:
        raise ValueError(
            f"the tokenizer is not byte-level: its vocabulary contains {error.args[0]!r}"
        ) from error


def _extra_specials(config: Path) -> list[str]:
    """Names of the special tokens that one tokenizer has beside those of all, in their order."""
    try:
        named = json.loads(config.read_text(encoding="utf-8")).get("special_tokens", {})
    except FileNotFoundError:
        return []
    except (json.JSONDecodeError, AttributeError) as error:
        raise ValueError(
            f"{config} is not a readable tokenizer config ({error}); copy it again"
        ) from error
    return [name for name in sorted(named, key=named.__getitem__) if name not in SPECIAL_TOKENS]


def valid_utf8(text: str) -> str:
    """`text` with lone surrogates, which UTF-8 cannot hold, replaced by '?'."""
    if text.isascii():
        return text
    return text.encode("utf-8", errors="replace").decode("utf-8")


def _non_empty(texts: Iterable[str]) -> Iterator[str]:
    """The texts that are not empty, lone surrogates replaced."""
    return (valid_utf8(text) for text in texts if text)
