"""The dataset: sample number i, whatever happened before.

Every choice about a sample (mode, blanks, whether it is an instruction) comes from a random
stream of (seed, epoch, i), so neither workers, nor ranks, nor a restart can change it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

import numpy as np

from glm_core.data.batch import Ints, Sample
from glm_core.data.config import DataConfig, Split
from glm_core.data.instructions import InstructionSet
from glm_core.data.layout import SpecialIds
from glm_core.data.packing import pack, split_documents, split_short
from glm_core.data.prepare import PreparedData
from glm_core.data.random_stream import Purpose, random_stream
from glm_core.data.sentences import SentenceEnds
from glm_core.data.shards import Shard
from glm_core.data.span_corruption import BlankInfilling
from glm_core.data.spans import Rng
from glm_core.data.windows import Windows
from glm_core.tokenizer.protocol import Tokenizer

MODES = ("mask", "sentence", "gmask", "causal")
_SHORTEST = 32
_LEAST_ROOM = 8
_NOT_CONTENT = ("source", "tokenizer", "workers", "cache_dir")


class TextDataset:
    """Endless samples of at most `config.seq_length` tokens, by global index."""

    def __init__(self, config: DataConfig, tokenizer: Tokenizer, shard: Shard) -> None:
        """Args:
            shard: the text, made with `tokenizer`.

        Raises:
            ValueError: if the shard is empty or the instruction source cannot be read.
        """
        self.config = config
        self.ids = SpecialIds.of(tokenizer)
        self._shard = shard
        sentence_ends = SentenceEnds(tokenizer)
        self._infilling = BlankInfilling(
            ids=self.ids,
            sentence_ends=sentence_ends,
            mask_ratio=config.mask_ratio,
            poisson_lambda=config.poisson_lambda,
            gmask_min_ratio=config.gmask_min_ratio,
            gmask_suffix_prob=config.gmask_suffix_prob,
            block_mask_prob=config.block_mask_prob,
            single_span_prob=config.single_span_prob,
            gmask_positions_go_on=config.gmask_positions_go_on,
        )
        self._room = config.seq_length // config.pack
        self._windows = Windows(shard, self._room + 1, config.seed, self.ids.cls, sentence_ends)
        weights = np.array([getattr(config, mode) for mode in MODES], dtype=np.float64)
        self._mode_cumulative = np.cumsum(weights / weights.sum())
        self._instructions = (
            InstructionSet.load(config.instruction_source, tokenizer)
            if config.instruction_ratio and config.split == Split.train
            else None
        )

    @property
    def samples_per_epoch(self) -> int:
        """Rows until every window has been read once (rounded down)."""
        return max(1, self._windows.per_epoch // self.config.pack)

    @property
    def fingerprint(self) -> str:
        """sha256 of everything that decides the samples; compare it before resuming."""
        settings = {k: v for k, v in asdict(self.config).items() if k not in _NOT_CONTENT}
        meta = self._shard.meta
        parts = [settings, meta.tokens_sha256, meta.offsets_sha256, meta.tokenizer]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def __getitem__(self, index: int) -> Sample:
        """Row number `index`, any integer from 0 up."""
        first = index * self.config.pack
        samples: list[Sample] = []
        for number in range(first, first + self.config.pack):
            samples.extend(self._samples(number))
        return pack(samples)

    def _samples(self, number: int) -> list[Sample]:
        """The samples made from window `number`; together at most `self._room` tokens."""
        epoch, index = divmod(number, self._windows.per_epoch)
        rng = random_stream(self.config.seed, epoch, index, Purpose.sample)
        if self._instructions and rng.random() < self.config.instruction_ratio:
            causal = self._draw_mode(rng) == "causal"
            return [self._instructions.sample(self._room, rng, causal)]
        text = self._windows.text(epoch, index)
        if self.config.short_seq_prob and rng.random() < self.config.short_seq_prob:
            size = int(rng.integers(min(_SHORTEST, self._room // 2), self._room))
            pieces = split_short(text, size, self.ids.cls, self._infilling.sentence_ends)
            return self._side_by_side(pieces, size, rng)
        if not self.config.document_mask:
            return [self._corrupt(text, self._room, rng)]
        return self._side_by_side(
            split_documents(text, self.ids.cls, self.ids.eos), self._room, rng
        )

    def _side_by_side(self, texts: list[Ints], most: int, rng: Rng) -> list[Sample]:
        """One sample of at most `most` tokens per text, as long as the row has room."""
        samples: list[Sample] = []
        room = self._room
        for text in texts:
            if room < _LEAST_ROOM:
                break
            samples.append(self._corrupt(text, min(room, most), rng))
            room -= len(samples[-1])
        return samples

    def _corrupt(self, text: Ints, room: int, rng: Rng) -> Sample:
        mode = self._draw_mode(rng)
        if mode == "mask":
            return self._infilling.mask(text, room, rng)
        if mode == "sentence":
            return self._infilling.sentence(text, room, rng)
        if mode == "gmask":
            return self._infilling.gmask(text, room, rng)
        return self._infilling.causal(text, room, rng)

    def _draw_mode(self, rng: Rng) -> str:
        chosen = int(self._mode_cumulative.searchsorted(rng.random(), "right"))
        if chosen == len(MODES):  # the sums may end just below 1
            chosen = int(np.flatnonzero(np.diff(self._mode_cumulative, prepend=0.0))[-1])
        return MODES[chosen]


def build_dataset(config: DataConfig, prepared: PreparedData) -> TextDataset:
    """The dataset of `config.split`."""
    shard = prepared.train if config.split == Split.train else prepared.heldout
    return TextDataset(config, prepared.tokenizer, shard)
