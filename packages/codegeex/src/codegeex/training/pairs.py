"""Rows of pairs: a prompt that is only read, and the code that is learnt.

A pair that fits a row stays whole. A longer one becomes several windows over its code, each with
the end of the prompt before it, so that nothing is learnt without what it answers.
Rows are filled in the order of the pairs, and read in another order each epoch.

Letters: T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from codegeex.training.config import CodeDataConfig
from glm_core.data.batch import IGNORE, Ints, Sample
from glm_core.data.random_stream import Purpose, random_stream
from glm_core.data.shards import Shard

_PROMPT_SHARE = 2
"""A prompt keeps at least one token of this many of a row that is too short for its pair."""


@dataclass(frozen=True, slots=True)
class _Window:
    """Part of a pair: its prompt's tokens begin..middle, and of its code first..last."""

    begin: int
    middle: int
    first: int
    last: int

    def __len__(self) -> int:
        return self.middle - self.begin + self.last - self.first


class PairDataset:
    """Endless rows of at most `config.seq_length` tokens, by global index.

    Args:
        config: how long and in which order.
        shard: the pairs, each with its end.
        prompts: tokens at the beginning of each document that are only read.
    """

    def __init__(self, config: CodeDataConfig, shard: Shard, prompts: Ints) -> None:
        self._config, self._shard = config, shard
        room = config.seq_length + 1
        windows = [
            window
            for document in range(len(shard))
            for window in _windows(
                int(shard.offsets[document]),
                int(prompts[document]),
                int(shard.offsets[document + 1]),
                room,
            )
        ]
        self._rows = _filled(windows, room)
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    @property
    def samples_per_epoch(self) -> int:
        """Rows until every pair has been read once."""
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        """Row number `index`, any integer from 0 up."""
        epoch, number = divmod(index, len(self._rows))
        if epoch != self._epoch:
            rng = random_stream(self._config.seed, epoch, 0, Purpose.order)
            self._order, self._epoch = rng.permutation(len(self._rows)), epoch
        return self._sample(self._rows[int(self._order[number])])

    def _sample(self, windows: list[_Window]) -> Sample:
        """Side by side; each sees only itself, and its prompt is no label."""
        ids, labels, positions, segments = [], [], [], []
        for window in windows:
            prompt_T = self._shard.slice(window.begin, window.middle)
            code_T = self._shard.slice(window.first, window.last)
            text_T = np.concatenate((prompt_T, code_T))
            learnt_T = text_T[1:].copy()
            learnt_T[: max(0, len(prompt_T) - 1)] = IGNORE
            ids.append(text_T[:-1])
            labels.append(learnt_T)
            positions.append(np.arange(len(learnt_T)))
            segments.append((len(learnt_T), 0))
        position_T = np.concatenate(positions)
        return Sample(
            np.concatenate(ids),
            np.concatenate(labels),
            np.stack([position_T, np.zeros_like(position_T)]),
            tuple(segments),
        )


def _windows(begin: int, num_prompt: int, end: int, room: int) -> list[_Window]:
    """Cuts one document into what fits."""
    middle = begin + num_prompt
    if end - begin <= room:
        return [_Window(begin, middle, middle, end)] if end - begin > 1 else []
    begin = max(begin, middle - room // _PROMPT_SHARE)
    stride = room - (middle - begin)
    return [
        _Window(begin, middle, first, min(first + stride, end))
        for first in range(middle, end, stride)
        if min(first + stride, end) - first + middle - begin > 1
    ]


def _filled(windows: list[_Window], room: int) -> list[list[_Window]]:
    """Puts windows into rows, in order; each takes one token fewer than it has."""
    rows: list[list[_Window]] = []
    left = 0
    for window in windows:
        size = len(window) - 1
        if not rows or size > left:
            rows.append([])
            left = room - 1
        rows[-1].append(window)
        left -= size
    return rows
