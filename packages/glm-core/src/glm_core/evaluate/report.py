"""The whole evaluation of a text model: questions, measures and baselines in one report."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glm_core.data.batch import Ints
from glm_core.data.prepare import PreparedData
from glm_core.evaluate.blanks import Accuracy, fill_accuracy
from glm_core.evaluate.compressors import lzma_bits_per_byte, zlib_bits_per_byte
from glm_core.evaluate.counting import WordCounts
from glm_core.evaluate.excerpts import (
    SHORT_SPAN,
    WORD,
    Question,
    gap_questions,
    last_word_questions,
)
from glm_core.evaluate.lastword import last_word_accuracy, modes_of
from glm_core.evaluate.ngram import KneserNey
from glm_core.evaluate.perplexity import Compression, bits_per_byte
from glm_core.infer.text_generator import TextGenerator

MIN_WINDOW = 48
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What is measured, and how much of it."""

    limit: int = 0
    """Most held-out documents, chosen by the seed; 0 means all."""
    num_questions: int = 500
    """Most questions of each kind."""
    window: int = 512
    """Tokens the model is given at a time, at most what it can hold. The length it was trained at
    is fair: a model may hold more than it was ever shown."""
    baselines: bool = False
    """Whether to count n-grams and words of the training split and to run compressors."""
    ngram_order: int = 5
    lzma_bytes: int = 32 * 1024 * 1024
    """How much of the end of the training text LZMA is given."""
    seed: int = 1234

    def __post_init__(self) -> None:
        bounds = {"limit": 0, "num_questions": 1, "window": MIN_WINDOW, "ngram_order": 2}
        for name, least in bounds.items():
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"{name} is {value}: it must be at least {least}")


def evaluate(
    generator: TextGenerator, data: PreparedData, config: EvaluationConfig
) -> dict[str, Any]:
    """Measures a model on the held-out split.

    Args:
        generator: the model in evaluation mode, with its tokenizer.
        data: a corpus prepared with that tokenizer.

    Returns:
        Plain values, ready for JSON.

    Raises:
        ValueError: the held-out split is empty, or was prepared with another tokenizer.
    """
    start = time.monotonic()
    model, tokenizer = generator.model, generator.tokenizer
    if data.heldout.meta.tokenizer != tokenizer.fingerprint():
        raise ValueError(
            "the corpus was tokenised with another tokenizer than the model's: give the source "
            "itself as data, not a prepared folder"
        )
    documents = heldout_documents(data, config.limit, config.seed)
    window = min(config.window, model.config.max_position_embeddings)
    words, spans = (
        gap_questions(documents, tokenizer, kind, window, config.num_questions, config.seed)
        for kind in (WORD, SHORT_SPAN)
    )
    last = last_word_questions(documents, tokenizer, window, config.num_questions, config.seed)
    text = bits_per_byte(model, tokenizer, documents, window)
    result: dict[str, Any] = {
        "bits_per_byte": round(text.bits_per_byte, 4),
        "token_perplexity": round(text.token_perplexity, 3),
        "documents": len(documents),
        "bytes": text.num_bytes,
        "tokens": text.num_tokens,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "blanks": {
            "one_word": _accuracy(fill_accuracy(generator, words)),
            "short_span": _accuracy(fill_accuracy(generator, spans)),
        },
        "last_word": {
            mode.value: _accuracy(last_word_accuracy(model, tokenizer, last, mode))
            for mode in modes_of(model)
        },
    }
    if config.baselines:
        result["baselines"] = baselines(data, documents, text, words, last, config)
    result["window"] = window
    result["seed"] = config.seed
    result["heldout_sha256"] = data.heldout.meta.tokens_sha256
    result["seconds"] = round(time.monotonic() - start, 1)
    return result


def heldout_documents(data: PreparedData, limit: int, seed: int) -> list[Ints]:
    """Returns the held-out documents without their end tokens; `limit` of them, drawn by seed."""
    count = len(data.heldout)
    if count == 0:
        raise ValueError(
            f"the held-out split in {data.heldout.folder} is empty: raise the held-out fraction"
        )
    chosen = range(count)
    if 0 < limit < count:
        drawn = np.random.default_rng(seed).permutation(count)[:limit]
        chosen = sorted(drawn.tolist())  # type: ignore[assignment]
    return [data.heldout.document(index)[:-1] for index in chosen]


def baselines(
    data: PreparedData,
    documents: Sequence[Ints],
    text: Compression,
    words: Sequence[Question],
    last: Sequence[Question],
    config: EvaluationConfig,
) -> dict[str, Any]:
    """Measures what counting and compressing achieve, from the training split alone."""
    tokenizer = data.tokenizer
    tokens_T = data.train.tokens
    order = config.ngram_order
    model = KneserNey(tokens_T, tokenizer.vocab_size, order, tokenizer.eos_id)
    ngram = Compression(model.nats(documents), text.num_tokens, text.num_bytes)
    del model
    logger.info("decoding the training text")
    train = [
        tokenizer.decode(data.train.document(index).tolist()) for index in range(len(data.train))
    ]
    logger.info("counting words")
    between, after = WordCounts(words, train), WordCounts(last, train)
    known = "\n\n".join(train).encode()[-config.lzma_bytes :]
    heldout = b"\n\n".join(tokenizer.decode_bytes(document.tolist()) for document in documents)
    logger.info("compressing %.1f MB with LZMA, twice", (len(known) + len(heldout)) / 1e6)
    return {
        "bits_per_byte": {
            f"kneser_ney_{order}gram": round(ngram.bits_per_byte, 4),
            "lzma": round(lzma_bits_per_byte(known, heldout), 4),
            "zlib": round(zlib_bits_per_byte(known, heldout), 4),
        },
        "one_word": {
            "neighbours": _accuracy(between.context_accuracy(words)),
            "most_frequent": _accuracy(between.most_frequent_accuracy(words)),
            "chance": 1.0 / max(1, between.num_words),
        },
        "last_word": {
            "two_words_before": _accuracy(after.context_accuracy(last)),
            "most_frequent": _accuracy(after.most_frequent_accuracy(last)),
        },
        "training_tokens": int(data.train.num_tokens),
    }


def as_table(result: dict[str, Any]) -> str:
    """The report for people: a row for each measure, baselines below what they compare with.

    Args:
        result: what `evaluate` returned, with `model` and `data`, their names.
    """
    peers = result.get("baselines", {})
    rows = [
        (
            f"{result['model']} on {result['documents']:,} held-out documents of {result['data']}",
            f"{result['bytes'] / 1e3:,.0f} kB",
        ),
        ("bits per byte", f"{result['bits_per_byte']:.3f}"),
        *((f"    {_words(k)}", f"{v:.3f}") for k, v in peers.get("bits_per_byte", {}).items()),
        ("perplexity per token", f"{result['token_perplexity']:.2f}"),
        ("blank of one word, exact", _percent(result["blanks"]["one_word"])),
        *((f"    {_words(k)}", _percent(v)) for k, v in peers.get("one_word", {}).items()),
        ("blank of two or three words, exact", _percent(result["blanks"]["short_span"])),
        *(
            (f"last word, {_words(mode)}", _percent(value))
            for mode, value in result["last_word"].items()
        ),
        *((f"    {_words(k)}", _percent(v)) for k, v in peers.get("last_word", {}).items()),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _accuracy(accuracy: Accuracy) -> dict[str, Any]:
    return {"accuracy": round(accuracy.share, 4), "right": accuracy.right, "count": accuracy.count}


def _percent(value: dict[str, Any] | float) -> str:
    if isinstance(value, float):
        return f"{value:.3%}"
    return f"{value['accuracy']:.1%} of {value['count']}"


def _words(name: str) -> str:
    return name.replace("_", " ")
