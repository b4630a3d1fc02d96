"""icetk, the tokenizer of GLM-130B and of ChatGLM-6B: white space and bytes have their own ids."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Self

from glm_core.tokenizer.base import CONFIG_NAME
from glm_core.tokenizer.sentencepiece import PieceType, SentencePieces, SentencePieceTokenizer
from glm_core.tokenizer.settings import read_settings
from glm_core.tokenizer.specials import EOP, EOS, GMASK, MASK, SMASK

FILE_NAME = "ice_text.model"
NUM_IMAGE_TOKENS = 20000
NUM_IMAGE_KEY = "num_image_tokens"

_BLANKS = {f"<|blank_{count}|>": " " * count for count in range(2, 81)}
_WHITE_SPACE = {"<n>": "\n", "<|tab|>": "\t", **_BLANKS}
"""What the pieces for white space stand for; <n> is in the file, the others come after it."""
_WHITE_SPACE_PIECE = re.compile("|".join(map(re.escape, _WHITE_SPACE)))
_RUN_OF_BLANKS = re.compile(" {2,80}")
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


class IcetkTokenizer(SentencePieceTokenizer):
    """icetk as GLM-130B uses it.

    Ids: 20000 for pictures, the unigram pieces of ice_text.model, eight special tokens, <|tab|>,
    <|blank_2|> to <|blank_80|>, and the 256 bytes. Text that spells <n>, <|tab|> or <|blank_k|>
    gets the id of that white space, as in the original: those ids are text like any other.

    Source: THUDM/icetk, and GLM130BTokenizer in THUDM/SwissArmyTransformer.
    """

    kind: ClassVar[str] = "icetk"
    special_names: ClassVar[tuple[str, ...]] = (
        MASK, GMASK, SMASK, "<eod>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>",
    )  # fmt: skip
    """Names after the pieces of the file, in the order of their ids."""
    stop_names: ClassVar[tuple[str, ...]] = (EOS, EOP)
    """GLM-130B generates until one of the two."""

    def __init__(self, path: Path, num_image_tokens: int = NUM_IMAGE_TOKENS) -> None:
        """
        Args:
            path: ice_text.model, with or without the pieces that come after the released 130000.
            num_image_tokens: id of the first piece.

        Raises:
            ValueError: if the file is missing, damaged or not icetk's.
        """
        model, first = _read(path, self.special_names)
        specials = {
            name: num_image_tokens + first + rank for rank, name in enumerate(self.special_names)
        }
        bare = {name.strip("<>"): token for name, token in specials.items() if name[0] == "<"}
        super().__init__(
            model,
            {**specials, **bare, **self._ends(model, num_image_tokens, specials)},
            self.stop_names,
            shift=num_image_tokens,
            nameless_ids=range(num_image_tokens),
            options={NUM_IMAGE_KEY: num_image_tokens},
        )

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Reads ice_text.model.

        Raises:
            ValueError: if the file is missing, damaged or not icetk's.
        """
        return cls(Path(folder) / FILE_NAME)

    def encode(self, text: str, dummy_prefix: bool = True) -> list[int]:
        """Ids of `text`; never a special id.

        Args:
            text: anything.
            dummy_prefix: whether a space is put before the text, as before every text that stands
                alone; False for text that goes on directly from other text.
        """
        if dummy_prefix:
            return super().encode(_with_white_space_pieces(text))
        # A line break takes the space, and both are cut off again.
        return super().encode(_with_white_space_pieces(f"\n{text}"))[2:]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, on every core."""
        return super().encode_batch([_with_white_space_pieces(text) for text in texts])

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`, without the space that encoding put first; special ids give nothing.

        transformers would by default also remove spaces before punctuation from ChatGLM-6B's
        answers; that is not done here.

        Raises:
            ValueError: for an id outside the vocabulary.
        """
        return _WHITE_SPACE_PIECE.sub(lambda found: _WHITE_SPACE[found[0]], super().decode(ids))

    def piece(self, token: int) -> bytes:
        """Bytes of one id that is no special token."""
        piece = super().piece(token)
        return _WHITE_SPACE_BYTES.get(piece, piece)

    def token_name(self, token: int) -> str:
        """The special token's name, <image_N>, or the piece's text (raw bytes as \\xNN)."""
        return f"<image_{token}>" if 0 <= token < self._shift else super().token_name(token)

    def _ends(self, model: SentencePieces, shift: int, specials: dict[str, int]) -> dict[str, int]:
        """What ends a document: </s>."""
        return {EOS: shift + model.controls["</s>"]}


class ChatGLMTokenizer(IcetkTokenizer):
    """icetk as ChatGLM-6B uses it: the same pieces, ids from 0.

    The first revisions of the model kept the ids for pictures, so that all others lie 20000
    higher; num_image_tokens in tokenizer_config.json or the size of the vocabulary in
    config.json tells them apart.
    """

    kind: ClassVar[str] = "chatglm"
    special_names: ClassVar[tuple[str, ...]] = (
        MASK, GMASK, SMASK, "<unused_0>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>",
    )  # fmt: skip
    stop_names: ClassVar[tuple[str, ...]] = (EOP,)

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Reads ice_text.model, and from the JSON files whether there are ids for pictures.

        Raises:
            ValueError: if a file is missing or damaged, or ice_text.model not icetk's.
        """
        folder = Path(folder)
        return cls(folder / FILE_NAME, _num_image_tokens(folder))

    def _ends(self, model: SentencePieces, shift: int, specials: dict[str, int]) -> dict[str, int]:
        """What ends an answer ends a document too."""
        return {EOS: specials["<eop>"]}


_WHITE_SPACE_BYTES = {name.encode(): text.encode() for name, text in _WHITE_SPACE.items()}


def has_special_pieces(path: Path) -> bool:
    """Whether the file holds the special tokens itself, as ChatGLM-6B's last revisions do."""
    return SentencePieces(path).find(GMASK) is not None


def _with_white_space_pieces(text: str) -> str:
    text = text.replace("\n", "<n>").replace("\t", "<|tab|>")
    return _RUN_OF_BLANKS.sub(lambda run: f"<|blank_{len(run[0])}|>", text)


def _read(path: Path, special_names: Sequence[str]) -> tuple[SentencePieces, int]:
    """The model with every piece it needs, and the id of its first special token."""
    marks = ("<pad>", *dict.fromkeys(IcetkTokenizer.special_names + ChatGLMTokenizer.special_names))
    model = SentencePieces(path, marks)
    if model.find("<n>") is None or "</s>" not in model.controls:
        raise ValueError(f"{path} is not icetk's: it has no piece <n> or </s>")
    first = model.find(MASK)
    if first is None:
        first = model.size
        appended = [(name, PieceType.control) for name in special_names]
        appended += [(name, PieceType.user_defined) for name in _WHITE_SPACE if name != "<n>"]
        appended += [(name, PieceType.byte) for name in _BYTES]
        return SentencePieces(path, marks, appended, byte_fallback=True), first
    missing = [name for name in (*_WHITE_SPACE, *_BYTES) if model.find(name) is None]
    if not set(range(first, first + len(special_names))) <= set(model.controls.values()):
        missing.append("seven further special tokens after it")
    if missing:
        raise ValueError(f"{path} has [MASK] but no {missing[0]}: it is not icetk's, copy it again")
    return model, first


def _num_image_tokens(folder: Path) -> int:
    count = read_settings(folder / CONFIG_NAME).get(NUM_IMAGE_KEY)
    if isinstance(count, int):
        return count
    vocab_size = read_settings(folder / "config.json").get("vocab_size")
    return NUM_IMAGE_TOKENS if isinstance(vocab_size, int) and vocab_size > 150000 else 0
