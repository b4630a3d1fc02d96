"""Rows of code, some of it with a hole: sample number i, whatever happened before.

The stream of all documents is cut into windows; the part of a document that lies in a window is a
piece. A piece gets its hole before the pieces of a window are put side by side, so that no hole is
cut off. Where the windows lie and which holes are made depends on (seed, epoch, i) alone.

Letters: T tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np

from codegeex.fim.formats import find_format
from codegeex.fim.sample import sample_ids, unlearnt_ids
from codegeex.fim.split import cut, draw_kind
from codegeex.training.config import CodeDataConfig
from glm_core.data.batch import IGNORE, Ints, Sample
from glm_core.data.random_stream import Purpose, random_stream
from glm_core.data.shards import Shard
from glm_core.tokenizer.protocol import Tokenizer

_MARGIN = 16
"""Tokens of a row that a window leaves to the sentinels and to words that are cut in two."""
_PER_HOLE = 12
"""Tokens by which a hole may make a piece longer: sentinels, an end, words cut in two."""
_LEAST = 32
"""A piece with fewer characters is read as it is."""


class CodeDataset:
    """Endless rows of at most `config.seq_length` tokens, by global index.

    Args:
        config: how holes are made.
        tokenizer: made the shard.
        shard: the documents, each with its end.

    Raises:
        ValueError: the shard is too small for one row.
    """

    def __init__(self, config: CodeDataConfig, tokenizer: Tokenizer, shard: Shard) -> None:
        self.config = config
        self._tokenizer = tokenizer
        self._shard = shard
        self._format = find_format(config.fim)
        self._unlearnt = np.asarray(unlearnt_ids(tokenizer))
        self._stride = config.seq_length + 1 - _MARGIN
        if shard.num_tokens < self._stride:
            raise ValueError(
                f"the {shard.name} split in {shard.folder} has {shard.num_tokens} tokens, fewer "
                f"than one row of data.seq_length={config.seq_length}: give more code, or lower it"
            )
        self._epoch, self._starts = -1, np.empty(0, dtype=np.int64)

    @property
    def samples_per_epoch(self) -> int:
        """Rows until everything has been read once."""
        return max(1, (self._shard.num_tokens - self._stride + 1) // self._stride)

    @property
    def fingerprint(self) -> str:
        """sha256 of everything that decides the samples."""
        settings = asdict(self.config)
        for name in ("source", "workers"):
            del settings[name]
        parts = [settings, self._shard.meta.tokens_sha256, self._shard.meta.offsets_sha256]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def __getitem__(self, index: int) -> Sample:
        """Row number `index`, any integer from 0 up."""
        epoch, number = divmod(index, self.samples_per_epoch)
        start = int(self._epoch_starts(epoch)[number])
        room = self.config.seq_length + 1
        rows: list[Ints] = []
        for piece in self._pieces(start, start + self._stride):
            if room < 2:
                break
            rng = random_stream(self.config.seed, epoch, (start << 20) + len(rows), Purpose.sample)
            ids = self._with_hole(piece, room, rng) if self._gets_hole(rng) else piece[:room]
            rows.append(np.asarray(ids, dtype=np.int64))
            room -= len(ids)
        return self._sample(rows)

    def _epoch_starts(self, epoch: int) -> Ints:
        """First tokens of all windows of an epoch, shuffled; kept for the last epoch asked."""
        if epoch != self._epoch:
            rng = random_stream(self.config.seed, epoch, 0, Purpose.order)
            last = self._shard.num_tokens - self._stride
            offset = int(rng.integers(0, max(1, min(self._stride, last + 1))))
            most = self._shard.num_tokens - self._stride
            starts = offset + self._stride * rng.permutation(self.samples_per_epoch)
            self._starts, self._epoch = np.minimum(starts, most), epoch
        return self._starts

    def _pieces(self, start: int, stop: int) -> Iterator[Ints]:
        """The parts of documents between two places of the stream."""
        document = int(np.searchsorted(self._shard.offsets, start, "right")) - 1
        while start < stop:
            end = min(int(self._shard.offsets[document + 1]), stop)
            yield self._shard.slice(start, end)
            document, start = document + 1, end

    def _gets_hole(self, rng: np.random.Generator) -> bool:
        return bool(rng.random() < self.config.fim_rate)

    def _with_hole(self, piece_T: Ints, room: int, rng: np.random.Generator) -> Ints | list[int]:
        """Returns a piece with a hole; as it is where it is very short, or does not fit."""
        kept_T = piece_T[-(room - _PER_HOLE) :] if len(piece_T) > room - _PER_HOLE > 0 else piece_T
        text = self._tokenizer.decode_bytes(kept_T).decode("utf-8", errors="ignore")
        if len(text) < _LEAST:
            return piece_T[:room]
        kind = draw_kind(self.config.weights, rng)
        ids = sample_ids(cut(text, kind, rng), self._format, self._tokenizer)
        return ids if len(ids) <= room else piece_T[:room]

    def _sample(self, rows: list[Ints]) -> Sample:
        """Joins pieces into a row; the sentinels are no labels."""
        ids_T = np.concatenate(rows)
        labels_T = ids_T[1:].copy()
        labels_T[np.isin(labels_T, self._unlearnt)] = IGNORE
        size = len(labels_T)
        positions = np.zeros((2, size), dtype=np.int64)
        positions[0] = np.arange(size)
        segments: tuple[tuple[int, int], ...] = ((size, 0),)
        if self.config.document_mask:
            lengths = [len(row) for row in rows]
            lengths[-1] -= 1
            ends = np.cumsum(lengths)
            labels_T[ends[:-1] - 1] = IGNORE  # another document's first token
            positions[0] = np.concatenate([np.arange(length) for length in lengths])
            segments = tuple((length, 0) for length in lengths if length)
        return Sample(ids_T[:-1], labels_T, positions, segments)
