"""What every tokenizer offers, whatever algorithm is behind it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back.

    `encode` must never return the id of a special token, whatever the text says: a document
    that contains the characters "[MASK]" is text about masks, not a blank. A tokenizer without
    one of the special tokens raises ValueError where its id is asked for; `has` tells.
    """

    @property
    def kind(self) -> str:
        """Which algorithm and special tokens: the "kind" of tokenizer_config.json."""
        ...

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included; every id is below it."""
        ...

    @property
    def pad_id(self) -> int:
        """Id that fills the rest of a row; `eos_id` where there is no id for it alone."""
        ...

    @property
    def eos_id(self) -> int:
        """Id that ends a document."""
        ...

    @property
    def special_ids(self) -> frozenset[int]:
        """Every id that stands for no text."""
        ...

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Special ids that end an answer, ascending."""
        ...

    @property
    def cls_id(self) -> int:
        """Id of [CLS], the first token of a sequence where the tokenizer has one."""
        ...

    @property
    def mask_id(self) -> int:
        """Id of [MASK], a short blank."""
        ...

    @property
    def smask_id(self) -> int:
        """Id of [sMASK], a blank of whole sentences."""
        ...

    @property
    def gmask_id(self) -> int:
        """Id of [gMASK], a long blank."""
        ...

    @property
    def sop_id(self) -> int:
        """Id of <|startofpiece|>, the first input of every blank's filling."""
        ...

    @property
    def eop_id(self) -> int:
        """Id of <|endofpiece|>, the last label of a blank's filling."""
        ...

    @property
    def dblock_id(self) -> int:
        """Id of <|dBLOCK|>, which hides single tokens of a filling during training."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; never a special id."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, using every core where the tokenizer can."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids` as the model's own tokenizer shows it; special ids give nothing.

        Incomplete UTF-8 gives U+FFFD. The space that a SentencePiece model puts before every text
        is gone, `decode_bytes` keeps it.
        """
        ...

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Exact bytes of `ids`; special ids give nothing."""
        ...

    def before_blank(self, text: str) -> str:
        """What is encoded of a text that stands before a blank: its last space may go."""
        ...

    def has(self, name: str) -> bool:
        """Whether there is a special token called `name`."""
        ...

    def token_id(self, name: str) -> int:
        """Id of a special token; ValueError that lists the names for an unknown one."""
        ...

    def token_name(self, token: int) -> str:
        """How to show one id to a person."""
        ...

    def save(self, folder: Path | str) -> None:
        """Writes what `load_tokenizer` reads."""
        ...

    def fingerprint(self) -> str:
        """sha256 of everything that decides how text becomes ids."""
        ...
