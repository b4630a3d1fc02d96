"""A SentencePiece model file: text to pieces and back, and what the released kinds share."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import IntEnum
from functools import cached_property
from pathlib import Path

from glm_core.tokenizer.base import ReleasedTokenizer
from glm_core.tokenizer.byte_bpe import valid_utf8

SPACE = "▁"
"""Stands for a space in a piece."""
UNKNOWN = " \u2047 "
"""What the library shows for a character that the vocabulary does not have."""


class PieceType(IntEnum):
    """What a piece is, as numbered in the model file."""

    control = 3
    """Has an id but no text: encoding never gives it."""
    user_defined = 4
    """Always found whole in the text."""
    byte = 6
    """One byte of a character that the vocabulary does not have."""


class SentencePieces:
    """A model file, read by the sentencepiece library.

    Args:
        path: the model file.
        marks: pieces that become control pieces if the file has them as text.
        appended: pieces that come after those in the file, with score 0.
        byte_fallback: whether characters that the vocabulary does not have become bytes; False
            leaves it to the file.

    Raises:
        ValueError: if the file is missing or no SentencePiece model.
    """

    def __init__(
        self,
        path: Path,
        marks: Sequence[str] = (),
        appended: Sequence[tuple[str, PieceType]] = (),
        byte_fallback: bool = False,
    ) -> None:
        import sentencepiece

        self.path = path
        try:
            model = path.read_bytes()
        except OSError as error:
            raise ValueError(
                f"cannot read {path} ({error.strerror}): give a folder that holds {path.name}"
            ) from error
        for name in marks:
            model = _as_control(model, name)
        # Two messages of this format, one behind the other, are one message with the fields of
        # both: pieces are appended, settings replaced.
        model += b"".join(_field(1, _piece(text, kind)) for text, kind in appended)
        model += _field(2, _BYTE_FALLBACK) if byte_fallback else b""
        self._sp = sentencepiece.SentencePieceProcessor()
        try:
            self._sp.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise ValueError(
                f"{path} is no SentencePiece model, or damaged: copy it again"
            ) from error
        self.size: int = self._sp.vocab_size()
        if self.size == len(appended):
            raise ValueError(f"{path} holds no pieces: copy it again")

    @cached_property
    def controls(self) -> dict[str, int]:
        """Ids of the control pieces by their text; <unk> among them if bytes stand in for it."""
        ids = list(range(self.size))
        is_mark = self._sp.is_control(ids)
        has_bytes, unknown = any(self._sp.is_byte(ids)), self._sp.unk_id()
        return {
            self._sp.id_to_piece(token): token
            for token in ids
            if is_mark[token] or (has_bytes and token == unknown)
        }

    def find(self, piece: str) -> int | None:
        """Id of a piece, None if the vocabulary does not have it."""
        token = int(self._sp.piece_to_id(piece))
        return token if self._sp.id_to_piece(token) == piece else None

    def encode(self, text: str) -> list[int]:
        """Ids of `text`."""
        ids: list[int] = self._sp.encode(valid_utf8(text))
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, on every core."""
        ids: list[list[int]] = self._sp.encode([valid_utf8(text) for text in texts])
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids` as the library gives it: without the space that encoding put first."""
        text: str = self._sp.decode(list(ids))
        return text

    def piece(self, token: int) -> bytes:
        """Bytes of one id, a space where the piece has one."""
        return self._pieces[token]

    @cached_property
    def _pieces(self) -> list[bytes]:
        return [self._bytes_of(token) for token in range(self.size)]

    def _bytes_of(self, token: int) -> bytes:
        piece: str = self._sp.id_to_piece(token)
        if self._sp.is_byte(token):
            return bytes([int(piece[3:-1], 16)])
        if self._sp.is_control(token):
            return b""
        if self._sp.is_unknown(token):
            return UNKNOWN.encode()
        return piece.replace(SPACE, " ").encode()


class SentencePieceTokenizer(ReleasedTokenizer):
    """Text as a SentencePiece model splits it; special tokens by name beside it.

    `decode` gives what the library gives, so the space that encoding puts before the text is
    gone again; `decode_bytes` keeps it, as every piece stands.

    Args:
        model: splits the text.
        specials: id of every special token by its name, beside the control pieces of `model`.
        stop_names: special tokens that end an answer.
        num_specials: ids after the pieces of `model`.
        shift: id of the first piece.
        more_files: vocabulary files beside the model file.
        nameless_ids: further ids that stand for no text.
        options: further keys of tokenizer_config.json.
    """

    def __init__(
        self,
        model: SentencePieces,
        specials: Mapping[str, int],
        stop_names: Sequence[str],
        num_specials: int = 0,
        shift: int = 0,
        more_files: Sequence[Path] = (),
        nameless_ids: Collection[int] = (),
        options: Mapping[str, int | str | bool] | None = None,
    ) -> None:
        self._model = model
        self._shift = shift
        controls = {name: shift + token for name, token in model.controls.items()}
        super().__init__(
            [model.path, *more_files],
            {**controls, **specials},
            shift + model.size + num_specials,
            stop_names,
            nameless_ids,
            options,
        )

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; never a special id."""
        return [self._shift + token for token in self._model.encode(text)]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, on every core."""
        batch = self._model.encode_batch(texts)
        return [[self._shift + token for token in ids] for ids in batch]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`, without the space that encoding put first; special ids give nothing.

        Raises:
            ValueError: for an id outside the vocabulary.
        """
        return self._model.decode([token - self._shift for token in self.text_ids(ids)])

    def piece(self, token: int) -> bytes:
        """Bytes of one id that is no special token."""
        return self._model.piece(token - self._shift)


_PIECE_TAG = 0x0A
"""Field 1, as bytes."""
_BYTE_FALLBACK = b"\x98\x02\x01"
"""Field 35 of the trainer settings, set."""


def _piece(text: str, kind: PieceType) -> bytes:
    """A piece with score 0: its text (field 1), score (2, float) and type (3)."""
    return _field(1, text.encode()) + b"\x15\0\0\0\0" + bytes([0x18, kind])


def _as_control(model: bytes, name: str) -> bytes:
    """The model with one piece as a control piece: of a setting given twice the last counts."""
    text = _field(1, name.encode())
    start = model.find(text)
    # Right before its text, a short piece has its tag and its length, one byte each.
    if start < 2 or model[start - 2] != _PIECE_TAG or not len(text) <= model[start - 1] < 126:
        return model
    size = model[start - 1]
    piece = model[start : start + size] + bytes([0x18, PieceType.control])
    return model[: start - 2] + _field(1, piece) + model[start + size :]


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes in protocol buffer encoding: tag, length in base 128, content."""
    size, length = len(content), b""
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content
