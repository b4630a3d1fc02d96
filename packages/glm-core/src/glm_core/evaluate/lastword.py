"""Last-word accuracy, as the GLM paper reports LAMBADA (arXiv 2103.10360, section 3.3).

Unidirectional: the whole paragraph is generated text after [gMASK], each token seeing only what is
before it. Bidirectional: the paragraph is context, every token seeing all, and the last word is
the answer in a [MASK] at its end, or the generation after a [gMASK].
A word is right when each of its tokens is the most probable one given those before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np

from glm_core.data.batch import IGNORE, Sample
from glm_core.data.layout import SpecialIds, blank_sample, causal_sample, suffix_sample
from glm_core.evaluate.blanks import Accuracy
from glm_core.evaluate.excerpts import Question
from glm_core.evaluate.scoring import predicted_right
from glm_core.infer.layout import layout_for
from glm_core.model.transformer import Transformer
from glm_core.tokenizer.protocol import Tokenizer


class Mode(StrEnum):
    """How the text before the last word is seen."""

    unidirectional = "unidirectional"
    bidirectional = "bidirectional"
    """With [MASK] at the end."""
    bidirectional_gmask = "bidirectional_gmask"
    """With [gMASK] at the end."""


def modes_of(model: Transformer) -> list[Mode]:
    """Returns the modes that a model has: a causal one sees only backwards."""
    return list(Mode) if layout_for(model.config).has_blanks else [Mode.unidirectional]


def last_word_accuracy(
    model: Transformer, tokenizer: Tokenizer, questions: Sequence[Question], mode: Mode
) -> Accuracy:
    """Measures how often the last word is predicted right.

    Args:
        model: in evaluation mode.
    """
    has_blanks = layout_for(model.config).has_blanks
    samples = [last_word_sample(tokenizer, question, mode, has_blanks) for question in questions]
    right = predicted_right(model, samples, tokenizer.pad_id, f"last word, {mode.value}")
    return Accuracy(sum(right), len(right))


def last_word_sample(
    tokenizer: Tokenizer, question: Question, mode: Mode, has_blanks: bool
) -> Sample:
    """Lays out a question, labelling only the tokens of the last word."""
    ids = SpecialIds.of(tokenizer)
    context = [ids.cls, *tokenizer.encode(question.left)]
    word = tokenizer.encode(f" {question.answer}")
    text_T = np.array(context + word)
    if not has_blanks:
        sample = causal_sample(text_T)
    elif mode is Mode.unidirectional:
        sample = suffix_sample(text_T, 1, ids.gmask, ids)
    elif mode is Mode.bidirectional_gmask:
        sample = suffix_sample(text_T, len(context), ids.gmask, ids)
    else:
        start, length, order = np.array([len(context)]), np.array([len(word)]), np.array([0])
        sample = blank_sample(text_T, start, length, order, ids.mask, ids)
        sample.labels[-1] = IGNORE  # the end of the blank
        return sample
    sample.labels[: -len(word)] = IGNORE
    return sample
