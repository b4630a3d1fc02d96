"""Blank infilling: which parts of a text become blanks.

Modes: `mask` (short blanks), `sentence` (whole sentences), `gmask` (one long blank) and `causal`
(no blank: next-token prediction). How the rows are laid out is in `layout.py`.

The original code draws the mode and the length of long blanks once per batch; here every sample
draws its own, so that a sample does not depend on which others share its batch.

Source: arXiv 2103.10360, sections 2.1 and 2.2; arXiv 2210.02414, section 2.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glm_core.data.batch import Ints, Sample
from glm_core.data.layout import SpecialIds, blank_sample, causal_sample, suffix_sample
from glm_core.data.sentences import SentenceEnds
from glm_core.data.spans import Rng, draw_span_lengths, place_in_documents


@dataclass(frozen=True, slots=True)
class BlankInfilling:
    """Chooses blanks at random, one method per mode.

    Every method takes a text (int64 (n,), [CLS] first, at least two tokens), the most tokens the
    sample may have, and a generator. It uses as much of the text's beginning as fits, and always
    returns a sample with at least one label and at most `max_length` tokens.

    Fields:
        mask_ratio: share of the text that short blanks and whole sentences cover.
        poisson_lambda: mean of the Poisson weights of short blanks' lengths.
        gmask_min_ratio: least share of the text that a long blank covers.
        gmask_suffix_prob: how often a long blank is the text's end instead of inside it.
        block_mask_prob: share of tokens in short fillings that are hidden behind dBLOCK.
        single_span_prob: how often [MASK] samples have one blank only.
        gmask_positions_go_on: number [gMASK] fillings on from the context (GLM-130B).
    """

    ids: SpecialIds
    sentence_ends: SentenceEnds
    mask_ratio: float = 0.15
    poisson_lambda: float = 3.0
    gmask_min_ratio: float = 0.25
    gmask_suffix_prob: float = 0.5
    block_mask_prob: float = 0.0
    single_span_prob: float = 0.0
    gmask_positions_go_on: bool = False

    def mask(self, text: Ints, max_length: int, rng: Rng) -> Sample:
        """Short blanks: [MASK] spans of Poisson length over `mask_ratio` of the text."""
        lengths = draw_span_lengths(int(self.mask_ratio * len(text)), self.poisson_lambda, rng)
        if self.single_span_prob and rng.random() < self.single_span_prob:
            lengths = lengths[:1]
        text, lengths = self._fit(text, lengths, max_length)
        rng.shuffle(lengths)
        starts, lengths = place_in_documents(text, lengths, self.ids.eos, self.mask_ratio, rng)
        hidden = None
        if self.block_mask_prob:
            hidden = rng.random(int(lengths.sum()) + len(lengths)) < self.block_mask_prob
        order = rng.permutation(len(starts))
        return blank_sample(text, starts, lengths, order, self.ids.mask, self.ids, hidden)

    def sentence(self, text: Ints, max_length: int, rng: Rng) -> Sample:
        """Whole sentences, in random order, until `mask_ratio` of the text is covered."""
        starts, ends = self._sentences(text)
        order = rng.permutation(len(starts))
        size = min(len(text), max_length)
        while True:  # fewer tokens of text need fewer sentences, so this ends
            inside = order[starts[order] < size]
            if not len(inside):  # nothing but special tokens so early: blank the last one
                text, one = text[: max_length - 2], np.array([1])
                return blank_sample(text, len(text) - one, one, one - 1, self.ids.smask, self.ids)
            lengths = np.minimum(ends[inside], size) - starts[inside]
            reached = np.cumsum(lengths).searchsorted(int(self.mask_ratio * size))
            count = min(int(reached) + 1, len(inside))
            if size + 2 * count <= max_length:
                break
            size = min(size - 1, max_length - 2 * count)
        chosen = np.sort(inside[:count])
        lengths = np.minimum(ends[chosen], size) - starts[chosen]
        shuffled = rng.permutation(count)
        return blank_sample(
            text[:size], starts[chosen], lengths, shuffled, self.ids.smask, self.ids
        )

    def gmask(self, text: Ints, max_length: int, rng: Rng) -> Sample:
        """One long blank: the text's end, or (within one document) a span inside the text."""
        text = text[: max_length - 2]
        size = len(text)
        longest = max(size - 2, 1)
        shortest = min(max(int(self.gmask_min_ratio * size), 1), longest)
        length = int(rng.integers(shortest, longest + 1))
        several_documents = bool((text[:-1] == self.ids.eos).any())
        if several_documents or size < 3 or rng.random() < self.gmask_suffix_prob:
            return suffix_sample(
                text, size - length, self.ids.gmask, self.ids, self.gmask_positions_go_on
            )
        # column 0 is [CLS], the last token stays visible
        start = 1 + int(rng.integers(0, size - 2 - length + 1))
        return blank_sample(
            text,
            np.array([start]),
            np.array([length]),
            np.array([0]),
            self.ids.gmask,
            self.ids,
            positions_go_on=self.gmask_positions_go_on,
        )

    def causal(self, text: Ints, max_length: int, rng: Rng) -> Sample:
        """Next-token prediction; `rng` is not used."""
        return causal_sample(text[: max_length + 1])

    def _fit(self, text: Ints, lengths: Ints, max_length: int) -> tuple[Ints, Ints]:
        """The longest beginning of the text, and the spans it needs, that fit together.

        A span adds two tokens: its mask and its sop.
        """
        masked = np.cumsum(lengths)
        size = min(len(text), max_length)
        while True:
            count = int(masked.searchsorted(int(self.mask_ratio * size))) + 1
            count = min(count, len(lengths))
            excess = size + 2 * count - max_length
            if excess <= 0:
                return text[:size], lengths[:count]
            size -= (excess + 1) // 2

    def _sentences(self, text: Ints) -> tuple[Ints, Ints]:
        """Start and end columns of all sentences; [CLS] and eos belong to none."""
        is_eos = text == self.ids.eos
        cuts = np.flatnonzero(self.sentence_ends.after(text) | is_eos) + 1
        starts = np.concatenate(([1], cuts))
        ends = np.concatenate((cuts, [len(text)]))
        ends = ends - is_eos[ends - 1]
        real = ends > starts
        if not real.any():  # a text of special tokens only
            return np.array([len(text) - 1]), np.array([len(text)])
        return starts[real], ends[real]
