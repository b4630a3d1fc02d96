"""Last stages: documents become tokens in parts, and parts become shards.

A document is a comment with its path, its prompt if it has one, its text, and eos. Each of the
three is tokenised by itself, so the tokens of one never reach into the next. How long the first
two are stands in NAME.prefixes, how the document is called in NAME.documents.jsonl.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from codegeex.data.encode import Ids, PieceEncoder
from codegeex.data.read import Found
from codegeex.fim.prompt import path_line
from glm_core.data.shards import ShardWriter
from glm_core.tokenizer.loading import load_tokenizer
from glm_core.tokenizer.protocol import Tokenizer

PART_BYTES = 4_000_000
_BATCH_CHARS = 1_000_000

Prefixes = NDArray[np.int64]


class Placed(NamedTuple):
    """A document and the file with its text."""

    texts: Path
    found: Found


@dataclass(frozen=True)
class TokenPart:
    """Tokenises one part; picklable."""

    tokenizer: Path
    path_line: bool

    def __call__(self, part: Sequence[Placed], done: Path) -> None:
        """Writes NAME.ids (uint32) and then NAME.lengths: int64 (documents, 3), see `_encoded`."""
        tokenizer, encoder = _tokenizer(self.tokenizer)
        eos = np.array([tokenizer.eos_id], dtype=np.uint32)
        lengths: list[tuple[int, int, int]] = []
        with done.with_suffix(".ids").open("wb") as file:
            for batch in _batches(part):
                for pieces in _encoded(batch, encoder, self.path_line):
                    ids = np.concatenate((*pieces, eos))
                    file.write(ids.astype("<u4", copy=False).tobytes())
                    lengths.append((len(ids), len(pieces[0]), len(pieces[1])))
        temporary = done.with_suffix(".tmp")
        np.array(lengths, dtype="<i8").reshape(-1, 3).tofile(temporary)
        temporary.rename(done)


def write_shard(
    folder: Path, split: str, tokenizer: Tokenizer, parts: Sequence[tuple[Path, Sequence[Placed]]]
) -> dict[str, int | str]:
    """Puts the parts of a split together; tells its tokens, bytes and the hash of its texts."""
    writer = ShardWriter(folder, split, tokenizer.vocab_size, tokenizer.fingerprint())
    prefixes: list[NDArray[np.int64]] = []
    names = hashlib.sha256()
    size = 0
    with (folder / f"{split}.documents.jsonl").open("w", encoding="utf-8") as listing:
        for done, part in parts:
            ids = np.fromfile(done.with_suffix(".ids"), dtype="<u4")
            lengths = np.fromfile(done, dtype="<i8").reshape(-1, 3)
            at = 0
            for (length, *_), placed in zip(lengths.tolist(), part, strict=True):
                writer.add(ids[at : at + length])
                at += length
                found = placed.found
                listing.write(json.dumps(_described(found), ensure_ascii=False) + "\n")
                names.update(f"{found.name}\0{found.sha}\0".encode("utf-8", "replace"))
                size += found.size
            prefixes.append(lengths[:, 1:])
    columns = np.concatenate(prefixes) if prefixes else np.zeros((0, 2))
    columns.astype("<u4").tofile(folder / f"{split}.prefixes")
    meta = writer.close()
    return {
        "documents": meta.num_documents,
        "bytes": size,
        "sha256": names.hexdigest(),
        "tokens": meta.num_tokens,
    }


def read_prefixes(folder: Path | str, split: str) -> Prefixes:
    """How many tokens at the beginning of each document are its path line and its prompt.

    Returns:
        int64 (documents, 2): tokens of the path line, and of the prompt that follows it. Neither
        is what a model should learn to write.

    Raises:
        ValueError: the folder was not written by `codegeex prepare`.
    """
    path = Path(folder) / f"{split}.prefixes"
    if not path.is_file():
        raise ValueError(
            f"{path} is missing: the folder was not made by codegeex prepare; make it so, or copy "
            "it again"
        )
    return np.fromfile(path, dtype="<u4").astype(np.int64).reshape(-1, 2)


def read_text(placed: Placed) -> str:
    """A document's prompt and text."""
    return _read(placed).decode("utf-8")


def token_parts(documents: Sequence[Placed]) -> list[list[Placed]]:
    """Parts of about 4 MB, in order."""
    parts: list[list[Placed]] = []
    part: list[Placed] = []
    size = 0
    for placed in documents:
        part.append(placed)
        size += placed.found.size
        if size >= PART_BYTES:
            parts.append(part)
            part, size = [], 0
    return [*parts, part] if part else parts


def _encoded(
    batch: Sequence[Placed], encoder: PieceEncoder, with_path: bool
) -> Iterator[tuple[Ids, Ids, Ids]]:
    """Tokens of path line, prompt and text."""
    texts: list[str] = []
    for placed in batch:
        raw = _read(placed)
        found = placed.found
        line = path_line(found.path, found.language) if with_path else ""
        prompt, text = raw[: found.prompt_size], raw[found.prompt_size :]
        texts.extend((line, prompt.decode("utf-8"), text.decode("utf-8")))
    ids = iter(encoder.encode_batch(texts))
    return zip(ids, ids, ids, strict=True)


def _batches(part: Sequence[Placed]) -> Iterator[list[Placed]]:
    batch: list[Placed] = []
    size = 0
    for placed in part:
        batch.append(placed)
        size += placed.found.size
        if size >= _BATCH_CHARS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _read(placed: Placed) -> bytes:
    with placed.texts.open("rb") as file:
        file.seek(placed.found.start)
        return file.read(placed.found.size)


@lru_cache(maxsize=1)
def _tokenizer(folder: Path) -> tuple[Tokenizer, PieceEncoder]:
    tokenizer = load_tokenizer(folder)
    return tokenizer, PieceEncoder(tokenizer, folder)


def _described(found: Found) -> dict[str, str]:
    return {
        "repository": found.repository,
        "path": found.path,
        "language": found.language,
        "licence": found.licence,
    }
