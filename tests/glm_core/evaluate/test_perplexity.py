"""Bits per byte: every token once, and the number that plain torch gives."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from glm_core.attention import PrefixLM
from glm_core.data.batch import IGNORE
from glm_core.data.layout import SpecialIds
from glm_core.evaluate.perplexity import bits_per_byte, chunk_samples
from glm_core.model import GenerationLayout, Transformer
from glm_core.tokenizer import ByteBPETokenizer

Build = Callable[..., Transformer]
WINDOW = 32


@pytest.mark.parametrize("has_blanks", [True, False])
@pytest.mark.parametrize("length", [1, 13, 14, 15, 100])
def test_every_token_is_scored_once_and_nothing_else(
    tokenizer: ByteBPETokenizer, length: int, has_blanks: bool
) -> None:
    document = np.arange(length) + 1
    samples = chunk_samples(document, WINDOW, SpecialIds.of(tokenizer), has_blanks)
    labels = np.concatenate([sample.labels[sample.labels != IGNORE] for sample in samples])
    assert labels.tolist() == document.tolist()
    assert max(map(len, samples)) <= WINDOW


def test_inputs_are_whole_when_labels_are_left_out(tokenizer: ByteBPETokenizer) -> None:
    ids = SpecialIds.of(tokenizer)
    third = chunk_samples(np.arange(60) + 1, WINDOW, ids, has_blanks=False)[2]
    assert third.input_ids.tolist() == [ids.cls, *range(13, 42)]
    assert third.labels.tolist() == [IGNORE] * 16 + list(range(29, 43))


def test_chunk_sees_the_half_window_before_it(tokenizer: ByteBPETokenizer) -> None:
    ids = SpecialIds.of(tokenizer)
    third = chunk_samples(np.arange(60) + 1, WINDOW, ids, True)[2]
    # Half of 32 columns is context; 14 tokens are left for a chunk.
    assert third.input_ids[:17].tolist() == [ids.cls, *range(13, 29)]
    assert third.input_ids[17:19].tolist() == [ids.gmask, ids.sop]
    assert third.labels[18:].tolist() == list(range(29, 43))
    assert third.segments == ((32, 18),)


def test_bits_per_byte_equal_plain_cross_entropy(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    model = build_model(max_position_embeddings=WINDOW)
    texts = ["The block wraps größe.", "The function returns the value and then it " * 3]
    documents = [np.array(tokenizer.encode(text)) for text in texts]
    nats = 0.0
    for document in documents:
        for sample in chunk_samples(document, WINDOW, SpecialIds.of(tokenizer), True):
            with torch.no_grad():
                hidden = model(
                    torch.tensor(sample.input_ids)[None],
                    torch.tensor(sample.position_ids)[None],
                    PrefixLM((sample.segments[0][1],)),
                )
            nats += torch.nn.functional.cross_entropy(
                model.logits(hidden)[0], torch.tensor(sample.labels), reduction="sum"
            ).item()
    measured = bits_per_byte(model, tokenizer, documents, WINDOW)
    num_bytes = sum(len(text.encode()) for text in texts)
    assert measured.num_bytes == num_bytes
    # Measured error: 1e-7 of the value.
    assert measured.bits_per_byte == pytest.approx(nats / math.log(2) / num_bytes, rel=1e-5)
    assert measured.token_perplexity == pytest.approx(math.exp(nats / sum(map(len, documents))))


def test_causal_model_is_measured_without_blanks(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    model = build_model(max_position_embeddings=WINDOW, generation_layout=GenerationLayout.causal)
    document = np.array(tokenizer.encode("The block"))
    with torch.no_grad():
        ids = torch.tensor([[tokenizer.cls_id, *document]])
        logprobs = model.logits(model(ids)).log_softmax(-1)[0]
    expected = -sum(float(logprobs[i, token]) for i, token in enumerate(document))
    measured = bits_per_byte(model, tokenizer, [document], WINDOW)
    assert measured.nats == pytest.approx(expected, rel=1e-5)
