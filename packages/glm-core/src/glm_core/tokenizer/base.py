"""What the tokenizers of released models share: special tokens by name, outside the vocabulary."""

from __future__ import annotations

import hashlib
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from glm_core.tokenizer.specials import (
    CLS,
    DBLOCK,
    EOP,
    EOS,
    GMASK,
    MASK,
    SMASK,
    SOP,
    with_other_names,
)

VERSION = 1
CONFIG_NAME = "tokenizer_config.json"


class ReleasedTokenizer(ABC):
    """A tokenizer that a released model was trained with.

    A subclass knows how text becomes ids and back; names, special ids and files are handled here.

    Args:
        files: vocabulary files as released; `save` copies them.
        specials: id of every special token by the names that the model uses; several names may
            stand for one id. The first name of an id is the one shown. The family's common names
            (`specials.with_other_names`) are added.
        vocab_size: number of ids, special ones included.
        stop_names: special tokens that end an answer.
        nameless_ids: ids that stand for no text and have no name: gaps, pictures.
        options: what else `load` needs to know, by its key in tokenizer_config.json.
    """

    kind: ClassVar[str]
    """How tokenizer_config.json names this class."""

    def __init__(
        self,
        files: Sequence[Path],
        specials: Mapping[str, int],
        vocab_size: int,
        stop_names: Sequence[str],
        nameless_ids: Collection[int] = (),
        options: Mapping[str, int | str | bool] | None = None,
    ) -> None:
        self._files = tuple(Path(file) for file in files)
        self._specials = with_other_names(specials)
        self._names: dict[int, str] = {}
        for name, token in self._specials.items():
            self._names.setdefault(token, name)
        self._vocab_size = vocab_size
        self._options = dict(options or {})
        self.special_ids = frozenset([*self._names, *nameless_ids])
        self.stop_ids = tuple(sorted({self.token_id(name) for name in stop_names}))

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of `text`; never a special id."""

    @abstractmethod
    def piece(self, token: int) -> bytes:
        """Bytes of one id that is no special token, 0 <= token < vocab_size."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text."""
        return [self.encode(text) for text in texts]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Exact bytes of `ids`; special ids give nothing.

        Raises:
            ValueError: for an id outside the vocabulary.
        """
        return b"".join(self.piece(token) for token in self.text_ids(ids))

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; bytes that are no complete character become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def text_ids(self, ids: Iterable[int]) -> list[int]:
        """`ids` without the special ones.

        Raises:
            ValueError: for an id outside the vocabulary.
        """
        tokens = [int(token) for token in ids]
        for token in tokens:
            if not 0 <= token < self._vocab_size:
                raise ValueError(
                    f"token id {token} is outside the vocabulary of {self._vocab_size}: "
                    "the ids come from another tokenizer"
                )
        return [token for token in tokens if token not in self.special_ids]

    @property
    def vocab_size(self) -> int:
        """Number of ids, special ones included."""
        return self._vocab_size

    @property
    def eos_id(self) -> int:
        """Id that ends a document."""
        return self.token_id(EOS)

    @property
    def pad_id(self) -> int:
        """Id that fills the rest of a row."""
        return self.token_id("<pad>") if self.has("<pad>") else self.eos_id

    @property
    def cls_id(self) -> int:
        """Id of [CLS]."""
        return self.token_id(CLS)

    @property
    def mask_id(self) -> int:
        """Id of [MASK]."""
        return self.token_id(MASK)

    @property
    def smask_id(self) -> int:
        """Id of [sMASK]."""
        return self.token_id(SMASK)

    @property
    def gmask_id(self) -> int:
        """Id of [gMASK]."""
        return self.token_id(GMASK)

    @property
    def sop_id(self) -> int:
        """Id of <|startofpiece|>."""
        return self.token_id(SOP)

    @property
    def eop_id(self) -> int:
        """Id of <|endofpiece|>."""
        return self.token_id(EOP)

    @property
    def dblock_id(self) -> int:
        """Id of <|dBLOCK|>."""
        return self.token_id(DBLOCK)

    def before_blank(self, text: str) -> str:
        """The text as it is: SentencePiece models see the space before a blank."""
        return text

    def has(self, name: str) -> bool:
        """Whether there is a special token called `name`."""
        return name in self._specials

    def token_id(self, name: str) -> int:
        """Id of the special token called `name`, by the model's own name or the family's.

        Raises:
            ValueError: if there is no such special token.
        """
        if name not in self._specials:
            known = ", ".join(self._specials)
            raise ValueError(
                f"the {self.kind} tokenizer has no special token {name!r}: choose one of {known}"
            )
        return self._specials[name]

    def token_name(self, token: int) -> str:
        """The special token's name, or the piece's text (raw bytes as \\xNN)."""
        if token in self._names:
            return self._names[token]
        if token in self.special_ids:
            return f"<|reserved_{token}|>"
        return self.decode_bytes([token]).decode("utf-8", errors="backslashreplace")

    def save(self, folder: Path | str) -> None:
        """Copies the vocabulary files and writes tokenizer_config.json."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for file in self._files:
            if file.parent.resolve() != folder.resolve():
                shutil.copyfile(file, folder / file.name)
        config = {
            "kind": self.kind,
            "version": VERSION,
            "vocab_size": self.vocab_size,
            "special_tokens": self._specials,
            **self._options,
        }
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (folder / CONFIG_NAME).write_text(text, encoding="utf-8")

    def fingerprint(self) -> str:
        """sha256 of the vocabulary files and of the special ids."""
        digest = hashlib.sha256(self.kind.encode())
        for file in self._files:
            digest.update(file.read_bytes())
        digest.update(json.dumps([self._specials, self._options], sort_keys=True).encode())
        return digest.hexdigest()
