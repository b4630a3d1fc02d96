"""Removes from held-out documents what is nearly the same as training text.

Exact deduplication leaves paragraphs that differ from a training paragraph in one word. Measured
on them, a model would be praised for its memory. Such a paragraph is found by its word 13-grams,
the usual unit of contamination checks (arXiv 2005.14165, appendix C).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from glm_core.data.documents import HELDOUT, TRAIN, Document

NGRAM_WORDS = 13
MAX_OVERLAP = 0.3
_WORD = re.compile(r"\w+")


def without_overlap(documents: Sequence[Document], min_chars: int) -> Iterator[Document]:
    """The documents in order; held-out ones without paragraphs that training text contains.

    A held-out paragraph goes when more than 30 % of its word 13-grams occur in a training
    document; a held-out document goes when fewer than `min_chars` characters are left.
    """
    heldout_grams: set[int] = set()
    for document in documents:
        if document.split == HELDOUT:
            for paragraph in document.text.split("\n\n"):
                heldout_grams.update(_grams(paragraph))
    seen: set[int] = set()
    for document in documents:
        if document.split == TRAIN and heldout_grams:
            seen.update(heldout_grams.intersection(_grams(document.text)))
    for document in documents:
        if document.split == TRAIN:
            yield document
            continue
        kept = [part for part in document.text.split("\n\n") if _overlap(part, seen) <= MAX_OVERLAP]
        text = "\n\n".join(kept)
        if len(text) >= min_chars:
            yield replace(document, text=text)


def _grams(text: str) -> list[int]:
    words = _WORD.findall(text.lower())
    return [hash(tuple(words[i : i + NGRAM_WORDS])) for i in range(len(words) - NGRAM_WORDS + 1)]


def _overlap(paragraph: str, seen: set[int]) -> float:
    grams = _grams(paragraph)
    return sum(gram in seen for gram in grams) / len(grams) if grams else 0.0
