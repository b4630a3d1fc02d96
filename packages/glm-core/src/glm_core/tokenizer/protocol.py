"""What every tokenizer offers, whatever algorithm is behind it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back.

    `encode` must never return the id of a special token, whatever the text says: a document
    that contains the characters "[MASK]" is text about masks, not a blank.
    """

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included; every id is below it."""
        ...

    @property
    def pad_id(self) -> int:
        """Id that fills the rest of a row; the same as `eos_id`."""
        ...

    @property
    def eos_id(self) -> int:
        """Id that ends a document."""
        ...

    @property
    def cls_id(self) -> int:
        """Id of [CLS], the first token of every sequence."""
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
        """Text of `ids`; special ids give nothing, incomplete UTF-8 gives U+FFFD."""
        ...

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Exact bytes of `ids`; special ids give nothing."""
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
