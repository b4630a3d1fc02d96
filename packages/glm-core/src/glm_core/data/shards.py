"""Tokenised text on disk: one flat array of ids, memory-mapped, with document offsets.

A shard is three files: `NAME.tokens` (little-endian uint16, or uint32 for large vocabularies),
`NAME.offsets` (little-endian int64, documents + 1 entries) and `NAME.json` (sizes, hashes, the
tokenizer's fingerprint). The json is written last: without it there is no shard.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from glm_core.data.batch import Ints

FORMAT = "glm-shard"
VERSION = 1
_VERIFY_BELOW_BYTES = 1 << 30
_REMEDY = "delete its folder and run the same command again to rebuild it"


class ShardError(ValueError):
    """A shard that is missing, truncated, corrupt or made for something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardMeta:
    """What NAME.json says."""

    format: str
    version: int
    dtype: str
    num_tokens: int
    num_documents: int
    vocab_size: int
    tokenizer: str
    tokens_sha256: str
    offsets_sha256: str


class ShardWriter:
    """Writes documents one after another; nothing counts until `close` has returned."""

    def __init__(self, folder: Path, name: str, vocab_size: int, tokenizer: str) -> None:
        """Opens the files of shard `name` in `folder`, which must exist.

        Args:
            vocab_size: every id is below it; up to 65,536 takes two bytes per token.
            tokenizer: fingerprint of the tokenizer that made the ids.
        """
        self._folder, self._name = folder, name
        self._vocab_size, self._tokenizer = vocab_size, tokenizer
        self._dtype = np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")
        self._offsets = [0]
        self._digest = hashlib.sha256()
        self._file: IO[bytes] = (folder / f"{name}.tokens").open("wb")

    def add(self, tokens: Iterable[int] | NDArray[np.integer[Any]]) -> None:
        """Appends one document, its eos included; an empty one is left out.

        Raises:
            ValueError: if an id is outside the vocabulary.
        """
        if isinstance(tokens, np.ndarray):
            array = tokens.astype(np.int64)
        else:
            array = np.fromiter(tokens, dtype=np.int64)
        if not len(array):
            return
        if array.min() < 0 or array.max() >= self._vocab_size:
            raise ValueError(
                f"token ids {array.min()}..{array.max()} do not fit vocab_size={self._vocab_size}"
            )
        raw = array.astype(self._dtype).tobytes()
        self._file.write(raw)
        self._digest.update(raw)
        self._offsets.append(self._offsets[-1] + len(array))

    def close(self) -> ShardMeta:
        """Flushes everything to the disk, then writes the json."""
        _sync_and_close(self._file)
        offsets = np.asarray(self._offsets, dtype="<i8").tobytes()
        with (self._folder / f"{self._name}.offsets").open("wb") as file:
            file.write(offsets)
            _sync_and_close(file)
        meta = ShardMeta(
            format=FORMAT,
            version=VERSION,
            dtype=self._dtype.str,
            num_tokens=self._offsets[-1],
            num_documents=len(self._offsets) - 1,
            vocab_size=self._vocab_size,
            tokenizer=self._tokenizer,
            tokens_sha256=self._digest.hexdigest(),
            offsets_sha256=hashlib.sha256(offsets).hexdigest(),
        )
        temporary = self._folder / f"{self._name}.json.tmp"
        with temporary.open("w", encoding="utf-8") as text_file:
            json.dump(asdict(meta), text_file, indent=2)
            text_file.flush()
            os.fsync(text_file.fileno())
        temporary.rename(self._folder / f"{self._name}.json")
        return meta


class Shard:
    """A memory-mapped shard; slicing `tokens` reads only the pages it touches."""

    def __init__(self, folder: Path | str, name: str, verify: bool | None = None) -> None:
        """Opens the shard `name` in `folder`.

        Args:
            verify: compare the sha256 of the tokens; by default only below 1 GiB.

        Raises:
            ShardError: if a file is missing, has the wrong size, or the wrong contents.
        """
        self.folder, self.name = Path(folder), name
        self.meta = _read_meta(self.folder / f"{name}.json")
        dtype = np.dtype(self.meta.dtype)
        self._path = self.folder / f"{name}.tokens"
        offsets_path = self.folder / f"{name}.offsets"
        _check_size(self._path, self.meta.num_tokens * dtype.itemsize)
        _check_size(offsets_path, (self.meta.num_documents + 1) * 8)
        try:
            self.offsets: Ints = np.fromfile(offsets_path, dtype="<i8").astype(np.int64)
            self.tokens = _map(self._path, dtype, self.meta.num_tokens)
        except OSError as error:
            raise ShardError(
                f"the shard {name} in {self.folder} cannot be read ({error.strerror or error}); "
                f"make its files readable, or {_REMEDY}"
            ) from error
        _check_hash(offsets_path, self.offsets.astype("<i8").tobytes(), self.meta.offsets_sha256)
        small = self.meta.num_tokens * dtype.itemsize < _VERIFY_BELOW_BYTES
        if small if verify is None else verify:
            _check_hash(self._path, self.tokens.data, self.meta.tokens_sha256)

    @property
    def num_tokens(self) -> int:
        """Tokens of all documents, their eos included."""
        return self.meta.num_tokens

    def __len__(self) -> int:
        """Number of documents."""
        return self.meta.num_documents

    def document(self, index: int) -> Ints:
        """Ids of one document, int64 (T,), eos at the end."""
        return self.slice(int(self.offsets[index]), int(self.offsets[index + 1]))

    def slice(self, start: int, stop: int) -> Ints:
        """Ids of columns start..stop-1 of the whole stream, int64."""
        return self.tokens[start:stop].astype(np.int64)

    def __getstate__(self) -> tuple[Path, str]:
        """Worker processes open the files themselves instead of copying them."""
        return (self.folder, self.name)

    def __setstate__(self, state: tuple[Path, str]) -> None:
        self.__init__(*state, verify=False)  # type: ignore[misc]


def _map(path: Path, dtype: np.dtype[Any], size: int) -> np.ndarray:
    if size == 0:  # an empty file cannot be mapped
        return np.empty(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r", shape=(size,))


def _read_meta(path: Path) -> ShardMeta:
    if not path.is_file():
        raise ShardError(f"no shard at {path}: it was never finished or is elsewhere; {_REMEDY}")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        meta = ShardMeta(**fields)
    except (ValueError, TypeError) as error:
        raise ShardError(f"{path} is not a readable shard description; {_REMEDY}") from error
    if meta.format != FORMAT or meta.version != VERSION:
        raise ShardError(
            f"{path} is {meta.format} version {meta.version}, this program reads {FORMAT} "
            f"version {VERSION}; {_REMEDY}"
        )
    return meta


def _check_size(path: Path, expected: int) -> None:
    if not path.is_file():
        raise ShardError(f"shard file {path} is missing; {_REMEDY}")
    actual = path.stat().st_size
    if actual != expected:
        raise ShardError(
            f"shard file {path} has {actual:,} bytes instead of {expected:,}: it is truncated or "
            f"overwritten; {_REMEDY}"
        )


def _check_hash(path: Path, data: bytes | memoryview, expected: str) -> None:
    if hashlib.sha256(data).hexdigest() != expected:
        raise ShardError(f"shard file {path} is corrupt (its sha256 differs); {_REMEDY}")


def _sync_and_close(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()
