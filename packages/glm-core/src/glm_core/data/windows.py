"""Cuts the token stream of a shard into texts, in an order that is a pure function.

One epoch reads the stream at a fixed stride from an offset drawn per epoch, each window once, in
random order. Text number i depends on (seed, epoch, i) and on nothing that happened before.
"""

from __future__ import annotations

import numpy as np

from glm_core.data.batch import Ints
from glm_core.data.random_stream import Purpose, random_stream
from glm_core.data.sentences import SentenceEnds
from glm_core.data.shards import Shard

_MAX_SHIFT = 64


class Windows:
    """Texts of `size` tokens, [CLS] first, that begin at a sentence where one begins nearby."""

    def __init__(
        self, shard: Shard, size: int, seed: int, cls_id: int, sentence_ends: SentenceEnds
    ) -> None:
        """Args:
            size: tokens of a text, [CLS] included.
            seed: decides offsets and order.

        Raises:
            ValueError: if the shard has no tokens.
        """
        if shard.num_tokens < 2:
            raise ValueError(
                f"shard {shard.name} in {shard.folder} has {shard.num_tokens} tokens: the split "
                "is empty; add text to data.source or change data.heldout_fraction"
            )
        self._shard, self._seed, self._cls_id = shard, seed, cls_id
        self._sentence_ends = sentence_ends
        self._stride = size - 1
        self._shift = min(_MAX_SHIFT, self._stride // 8)
        self._epoch = -1
        self._starts: Ints = np.empty(0, dtype=np.int64)

    @property
    def per_epoch(self) -> int:
        """Texts in one epoch; the same for every epoch."""
        return max(1, (self._shard.num_tokens - self._stride + 1) // self._stride)

    def text(self, epoch: int, index: int) -> Ints:
        """Text number `index` of an epoch, int64 (size,); shorter only in a very small corpus."""
        start = int(self._epoch_starts(epoch)[index])
        start += self._shift_to_sentence(start)
        start = max(0, min(start, self._shard.num_tokens - self._stride))
        tokens = self._shard.slice(start, start + self._stride)
        return np.concatenate(([self._cls_id], tokens))

    def _epoch_starts(self, epoch: int) -> Ints:
        """First columns of all windows of an epoch, shuffled; kept for the last epoch asked."""
        if epoch != self._epoch:
            rng = random_stream(self._seed, epoch, 0, Purpose.order)
            last = self._shard.num_tokens - self._stride
            offset = int(rng.integers(0, max(1, min(self._stride, last + 1))))
            self._starts = offset + self._stride * rng.permutation(self.per_epoch)
            self._epoch = epoch
        return self._starts

    def _shift_to_sentence(self, start: int) -> int:
        """How far the next paragraph, or else sentence, begins after `start`.

        Returns 0 when none begins within reach.
        """
        if start == 0:
            return 0
        near = self._shard.slice(start - 1, start + self._shift)
        for ends in (self._sentence_ends.paragraphs_after(near), self._sentence_ends.after(near)):
            found = np.flatnonzero(ends)
            if len(found):
                return int(found[0])
        return 0
