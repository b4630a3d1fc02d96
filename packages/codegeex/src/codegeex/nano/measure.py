"""How good a code model is on documents that it has not seen, beside models that only count."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from codegeex.complete import Completer, Options
from codegeex.data.tokens import read_prefixes
from codegeex.evaluate.infilling.held_out import SINGLE, draw_tasks
from codegeex.evaluate.infilling.similarity import edit_similarity
from codegeex.evaluate.infilling.task import HoleTask, first_line
from codegeex.fim import FimFormat
from codegeex.nano.baselines import NextLine, NgramLine
from glm_core.data.batch import Ints
from glm_core.data.layout import SpecialIds
from glm_core.data.prepare import PreparedData
from glm_core.data.shards import Shard
from glm_core.evaluate.ngram import KneserNey
from glm_core.evaluate.perplexity import Compression, chunk_samples
from glm_core.evaluate.scoring import total_nats
from glm_core.infer.engine import Engine
from glm_core.model.transformer import Transformer
from glm_core.progress import Progress
from glm_core.tokenizer.protocol import Tokenizer

logger = logging.getLogger(__name__)

NUM_HOLES = 600
MOST_MEASURED = 150_000
"""Held-out tokens that bits per byte are measured on."""
WINDOW = 512
NGRAM_ORDER = 5
MOST_TOKENS = 64
_TOGETHER = 16
"""Lines that are filled at a time."""
Guesses = Mapping[str, str]
"""What was written, by the task's id."""


def compression(
    model: Transformer, tokenizer: Tokenizer, documents: Sequence[Ints], window: int = WINDOW
) -> Compression:
    """Measures a model on documents read from left to right, each byte scored once.

    Args:
        model: in evaluation mode; learnt that a document comes after an end.
        documents: token ids without specials.
        window: tokens given at a time, half of them as context.
    """
    ids = SpecialIds.of(tokenizer)
    samples = [
        sample
        for document in documents
        for sample in chunk_samples(document, window, ids, False, [tokenizer.eos_id])
    ]
    nats = total_nats(model, samples, tokenizer.pad_id, "bits per byte")
    return Compression(nats, sum(map(len, documents)), _bytes_of(documents, tokenizer))


def ngram_compression(
    model: KneserNey, tokenizer: Tokenizer, documents: Sequence[Ints]
) -> Compression:
    """The same of an n-gram model over the same tokens."""
    nats = model.nats(documents)
    return Compression(nats, sum(map(len, documents)), _bytes_of(documents, tokenizer))


def documents_of(shard: Shard) -> list[Ints]:
    """The documents of a shard without the comment with their path and without their end."""
    path_lines = read_prefixes(shard.folder, shard.name)[:, 0]
    return [shard.document(index)[int(path_lines[index]) : -1] for index in range(len(shard))]


def measured_documents(documents: Sequence[Ints]) -> list[Ints]:
    """Returns every so-manieth document, so that they have about `MOST_MEASURED` tokens."""
    every = max(1, round(sum(map(len, documents)) / MOST_MEASURED))
    return list(documents[::every])


def draw_holes(
    documents: Sequence[Ints], paths: Sequence[str], tokenizer: Tokenizer, count: int, seed: int
) -> Mapping[str, HoleTask]:
    """Draws single lines out of documents: what stands behind a line's indentation is wanted."""
    with tempfile.TemporaryDirectory() as folder:
        for document, name in zip(documents, paths, strict=True):
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(tokenizer.decode(document.tolist()), encoding="utf-8")
        return draw_tasks(Path(folder), count, SINGLE, seed=seed)


def model_guesses(
    engine: Engine, format: FimFormat, name: str, tasks: Mapping[str, HoleTask], heals: bool = True
) -> Guesses:
    """What a model writes, greedily, as an editor would ask it."""
    completer = Completer(engine, format, name, heals)
    options = Options(max_new_tokens=MOST_TOKENS, raw=True, stop=("\n",))
    progress = Progress("filling lines", len(tasks), "lines")
    guesses = {}
    items = list(tasks.items())
    for start in range(0, len(items), _TOGETHER):
        some = items[start : start + _TOGETHER]
        pending = [(task_id, completer.submit(task.hole, options)) for task_id, task in some]
        for task_id, one in pending:
            choices = one.outcome().choices
            guesses[task_id] = choices[0].text if choices else ""
            progress.add(1)
    return guesses


def scores(tasks: Mapping[str, HoleTask], guesses: Guesses) -> dict[str, float]:
    """Share of lines that are exactly right, and how alike the others are."""
    pairs = [
        (task.expected.rstrip(), first_line(guesses[task_id]).strip("\n").rstrip())
        for task_id, task in tasks.items()
    ]
    return {
        "exact": sum(expected == guess for expected, guess in pairs) / len(pairs),
        "similarity": math.fsum(edit_similarity(*pair) for pair in pairs) / len(pairs),
        "lines": len(pairs),
    }


def baselines(
    data: PreparedData, documents: Sequence[Ints], tasks: Mapping[str, HoleTask]
) -> dict[str, Any]:
    """What counting alone achieves on the same documents and lines."""
    tokenizer, train = data.tokenizer, data.train
    next_line = NextLine([task.hole for task in tasks.values()], _texts(train, tokenizer))
    told: dict[str, Any] = {
        "next_line": scores(tasks, _guessed(next_line, tasks, "next lines")),
    }
    tokens = train.tokens
    logger.info("counting %d-grams of %s tokens", NGRAM_ORDER, f"{len(tokens):,}")
    ngram = KneserNey(tokens, tokenizer.vocab_size, NGRAM_ORDER, tokenizer.eos_id)
    lines = NgramLine(ngram, tokenizer)
    told["ngram"] = {
        "order": NGRAM_ORDER,
        "bits_per_byte": ngram_compression(ngram, tokenizer, documents).bits_per_byte,
        **scores(tasks, _guessed(lines, tasks, "n-gram lines")),
    }
    return told


def _guessed(baseline: NextLine | NgramLine, tasks: Mapping[str, HoleTask], name: str) -> Guesses:
    progress = Progress(name, len(tasks), "lines")
    guesses = {}
    for task_id, task in tasks.items():
        guesses[task_id] = baseline.complete(task.hole)
        progress.add(1)
    return guesses


def _texts(shard: Shard, tokenizer: Tokenizer) -> Iterator[str]:
    progress = Progress("reading the training text", len(shard), "documents")
    for index in range(len(shard)):
        yield tokenizer.decode(shard.document(index).tolist())
        progress.add(1)


def _bytes_of(documents: Sequence[Ints], tokenizer: Tokenizer) -> int:
    lengths = np.array(
        [len(tokenizer.decode_bytes([token])) for token in range(tokenizer.vocab_size)]
    )
    return int(sum(lengths[document].sum() for document in documents))
