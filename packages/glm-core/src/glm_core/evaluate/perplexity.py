"""Bits per byte: how many bits the model needs for each byte of text it has not seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glm_core.data.batch import IGNORE, Ints, Sample
from glm_core.data.layout import SpecialIds, causal_sample, suffix_sample
from glm_core.evaluate.scoring import total_nats
from glm_core.infer.layout import layout_for
from glm_core.model.transformer import Transformer
from glm_core.tokenizer.protocol import Tokenizer


@dataclass(frozen=True)
class Compression:
    """What a text costs under a model of it."""

    nats: float
    num_tokens: int
    num_bytes: int

    @property
    def bits_per_byte(self) -> float:
        """Bits for each byte of UTF-8; does not depend on the tokenizer."""
        return self.nats / math.log(2) / self.num_bytes

    @property
    def token_perplexity(self) -> float:
        """exp of the mean cost of a token; comparable only with the same tokenizer."""
        return math.exp(self.nats / self.num_tokens)


def bits_per_byte(
    model: Transformer, tokenizer: Tokenizer, documents: Sequence[Ints], window: int
) -> Compression:
    """Measures a model on documents, each byte scored exactly once.

    A document is cut into chunks. Each is generated after [gMASK], with the half window before it
    as context that is seen from both sides. The end of a document is not scored: it has no bytes.

    Args:
        model: in evaluation mode.
        documents: token ids without specials.
        window: tokens given to the model at a time, context included.
    """
    has_blanks = layout_for(model.config).has_blanks
    samples = [
        sample
        for document in documents
        for sample in chunk_samples(document, window, SpecialIds.of(tokenizer), has_blanks)
    ]
    num_bytes = sum(len(tokenizer.decode_bytes(document.tolist())) for document in documents)
    nats = total_nats(model, samples, tokenizer.pad_id, "bits per byte")
    return Compression(nats, sum(map(len, documents)), num_bytes)


def chunk_samples(document_T: Ints, window: int, ids: SpecialIds, has_blanks: bool) -> list[Sample]:
    """Cuts a document into samples of at most `window` tokens that label each token once.

    Args:
        document_T: token ids, int64 (T,).
        window: tokens the model can hold.
        has_blanks: whether the model generates after [gMASK]; otherwise it is causal.
    """
    context = window // 2
    # [CLS], [gMASK] and, in place of the chunk's last token, sop take columns too.
    chunk = window - context - 2
    samples = []
    for start in range(0, len(document_T), chunk):
        first = max(0, start - context)
        text = np.concatenate(([ids.cls], document_T[first : start + chunk]))
        division = 1 + start - first
        if has_blanks:
            samples.append(suffix_sample(text, division, ids.gmask, ids))
        else:
            sample = causal_sample(text)
            sample.labels[: division - 1] = IGNORE
            samples.append(sample)
    return samples
