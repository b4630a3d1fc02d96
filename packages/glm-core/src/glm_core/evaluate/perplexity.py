"""Bits per byte: how many bits the model needs for each byte of text it has not seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from glm_core.data.batch import IGNORE, Ints, Sample
from glm_core.data.layout import SpecialIds, causal_sample, suffix_sample
from glm_core.evaluate.scoring import total_nats
from glm_core.infer.layout import BlankLayout, layout_for
from glm_core.model.config import TransformerConfig
from glm_core.model.transformer import Transformer
from glm_core.tokenizer.protocol import Tokenizer
from glm_core.tokenizer.specials import CLS, SPECIAL_TOKENS


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
    samples = document_samples(model.config, tokenizer, documents, window)
    num_bytes = sum(len(tokenizer.decode_bytes(document.tolist())) for document in documents)
    nats = total_nats(model, samples, tokenizer.pad_id, "bits per byte")
    return Compression(nats, sum(map(len, documents)), num_bytes)


def document_samples(
    config: TransformerConfig, tokenizer: Tokenizer, documents: Sequence[Ints], window: int
) -> list[Sample]:
    """Cuts documents into samples as the model is used to see text; see `bits_per_byte`."""
    layout = layout_for(config)
    is_framed = layout.has_blanks or not tokenizer.has(CLS)
    before = layout.frame([], tokenizer) if is_framed else [tokenizer.cls_id]
    goes_on = isinstance(layout, BlankLayout) and layout.gmask_goes_on
    ids = _special_ids(tokenizer)
    return [
        sample
        for document in documents
        for sample in chunk_samples(document, window, ids, layout.has_blanks, before, goes_on)
    ]


def chunk_samples(
    document_T: Ints,
    window: int,
    ids: SpecialIds,
    has_blanks: bool,
    before: Sequence[int] | None = None,
    positions_go_on: bool = False,
) -> list[Sample]:
    """Cuts a document into samples of at most `window` tokens that label each token once.

    Args:
        document_T: token ids, int64 (T,).
        window: tokens the model can hold.
        has_blanks: whether the model generates after [gMASK]; otherwise it is causal.
        before: at most two tokens that every sample begins with; None is [CLS].
        positions_go_on: as in `suffix_sample`.
    """
    opening = np.array([ids.cls] if before is None else before, dtype=np.int64)
    context = window // 2
    # [CLS], [gMASK] and, in place of the chunk's last token, sop take columns too.
    chunk = window - context - 2
    samples = []
    for start in range(0, len(document_T), chunk):
        first = max(0, start - context)
        text = np.concatenate((opening, document_T[first : start + chunk]))
        division = len(opening) + start - first
        if has_blanks:
            samples.append(suffix_sample(text, division, ids.gmask, ids, positions_go_on))
        elif len(text) > 1:
            sample = causal_sample(text)
            labels = sample.labels.copy()  # they share their memory with the inputs
            labels[: max(0, division - 1)] = IGNORE
            samples.append(replace(sample, labels=labels))
    return samples


def _special_ids(tokenizer: Tokenizer) -> SpecialIds:
    """The special tokens that the tokenizer has; -1 for the others, which no sample needs."""
    found = [tokenizer.token_id(n) if tokenizer.has(n) else -1 for n in SPECIAL_TOKENS]
    return SpecialIds(*found)  # its fields have the order of the names
