"""Questions cut from documents: a text, a word or a few taken out, and what surrounds them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from glm_core.data.batch import Ints
from glm_core.tokenizer.protocol import Tokenizer

ROOM_FOR_ANSWER = 24
_WORD = r"(?<= )[A-Za-z]+(?![\w'-])"
WORD = re.compile(_WORD)
SHORT_SPAN = re.compile(rf"{_WORD}(?: {_WORD}){{1,2}}")
_LAST_WORD = re.compile(r"(?<= )[A-Za-z]+(?=[^\w\s]*$)")
UNIT = re.compile(r"\w+|[^\w\s]")
"""What counts as one word or one punctuation mark in the counting baselines."""
MIN_PARAGRAPH_WORDS = 20


@dataclass(frozen=True)
class Question:
    """A text with a gap."""

    left: str
    """Ends before the space in front of the gap."""
    answer: str
    """Without the space."""
    right: str
    at_document_end: bool
    """Whether `right` ends the document."""


def gap_questions(
    documents: Sequence[Ints],
    tokenizer: Tokenizer,
    pattern: re.Pattern[str],
    window: int,
    count: int,
    seed: int,
) -> list[Question]:
    """Takes random gaps out of random documents, long documents more often.

    Args:
        documents: token ids without specials.
        pattern: what a gap may be (WORD or SHORT_SPAN).
        window: tokens the model can hold; an excerpt leaves room for the answer.
        count: questions wanted; fewer when the documents have fewer gaps.
    """
    rng = np.random.default_rng(seed)
    excerpts = list(_excerpts(documents, tokenizer, window - ROOM_FOR_ANSWER))
    questions = []
    for index in rng.permutation(len(excerpts)).tolist():
        text, is_end = excerpts[index]
        found = list(pattern.finditer(text))
        # A few gaps of each excerpt, so that one text does not decide the result.
        chosen = rng.permutation(len(found))[:4].tolist()
        for match in (found[i] for i in sorted(chosen)):
            left, right = text[: match.start() - 1], text[match.end() :]
            questions.append(Question(left, match.group(), right, is_end))
    order = rng.permutation(len(questions))[:count].tolist()
    return [questions[index] for index in order]


def last_word_questions(
    documents: Sequence[Ints], tokenizer: Tokenizer, window: int, count: int, seed: int
) -> list[Question]:
    """Takes the last word out of random paragraphs of at least 20 words (as LAMBADA does)."""
    rng = np.random.default_rng(seed)
    questions = []
    for document in documents:
        for paragraph in tokenizer.decode(document.tolist()).split("\n\n"):
            text = paragraph.strip()
            match = _LAST_WORD.search(text)
            if match is None or len(text.split()) < MIN_PARAGRAPH_WORDS:
                continue
            left = text[: match.start() - 1]
            if len(tokenizer.encode(left)) <= window - ROOM_FOR_ANSWER:
                questions.append(Question(left, match.group(), "", True))
    order = rng.permutation(len(questions))[:count].tolist()
    return [questions[index] for index in order]


def _excerpts(
    documents: Sequence[Ints], tokenizer: Tokenizer, size: int
) -> Iterator[tuple[str, bool]]:
    """Yields pieces of at most `size` tokens, and whether each ends its document."""
    for document in documents:
        for start in range(0, len(document), size):
            # A piece may begin or end inside a character: what is left of it is dropped.
            piece = tokenizer.decode_bytes(document[start : start + size].tolist())
            yield piece.decode("utf-8", errors="ignore"), start + size >= len(document)
