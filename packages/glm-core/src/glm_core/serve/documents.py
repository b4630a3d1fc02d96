"""Documents that questions are asked about: passages, and which of them fit a question."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

TEXT_ENDINGS = (".txt", ".md", ".markdown", ".rst", ".csv", ".tsv", ".json", ".log", ".tex", ".py")
PDF_ENDING = ".pdf"
PASSAGE_CHARS = 500
"""Passages are about this long: a few sentences, so that several fit into a small context."""
MAX_CHARS = 2_000_000
PDF_TIMEOUT_S = 60.0

_PARAGRAPHS = re.compile(r"\n\s*\n")
_SENTENCES = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n")
_WIDE_CHARS = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
"""Scripts without spaces between words."""
_WIDE = re.compile(f"[{_WIDE_CHARS}]")
_WORDS = re.compile(rf"[{_WIDE_CHARS}]+|[^\W{_WIDE_CHARS}]+")


@dataclass(frozen=True)
class Passage:
    """A piece of a document."""

    text: str
    page: int
    """Counted from 1; 0 where the document has no pages."""


def readable_endings() -> tuple[str, ...]:
    """Returns the endings of file names that `read_document` takes."""
    has_pdf = importlib.util.find_spec("pypdf") is not None
    return (*TEXT_ENDINGS, PDF_ENDING) if has_pdf else TEXT_ENDINGS


def read_document(name: str, content: bytes) -> list[Passage]:
    """Returns the passages of a document.

    Args:
        name: of the file; its ending says what it is.
        content: the file.

    Raises:
        ValueError: it cannot be read, or holds no text; the message says why.
    """
    ending = Path(name).suffix.lower()
    if ending == PDF_ENDING and ending in readable_endings():
        pages = list(enumerate(_pdf_pages(name, content), start=1))
    elif ending in TEXT_ENDINGS:
        pages = [(0, _decoded(name, content))]
    else:
        known = ", ".join(readable_endings())
        raise ValueError(f"{name!r} is of a kind that cannot be read: it must be one of {known}")
    if sum(len(text) for _, text in pages) > MAX_CHARS:
        raise ValueError(
            f"{name!r} has more than {MAX_CHARS:,} characters: take the part that matters"
        )
    passages = [Passage(text, page) for page, whole in pages for text in split(whole)]
    if not passages:
        raise ValueError(f"{name!r} holds no text: a scanned document must be recognised first")
    return passages


def split(text: str, length: int = PASSAGE_CHARS) -> list[str]:
    """Returns a text in passages of about `length` characters, cut between paragraphs or
    sentences where possible."""
    passages: list[str] = []
    current = ""
    for piece in _pieces(text, length):
        if current and len(current) + len(piece) > length:
            passages.append(current)
            current = ""
        current = f"{current}\n\n{piece}" if current else piece
    return [*passages, current] if current else passages


def rank(question: str, passages: Sequence[str], k1: float = 1.2, b: float = 0.75) -> list[int]:
    """Returns the indices of the passages that share words with a question, best first.

    Source: BM25 as in Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and
    Beyond" (2009), equation 3.15, with the logarithm of 1 + x, which is never negative.
    """
    counts = [Counter(words(passage)) for passage in passages]
    lengths = [sum(count.values()) for count in counts]
    average = sum(lengths) / max(len(lengths), 1) or 1.0
    scores = [0.0] * len(passages)
    for word in set(words(question)):
        holders = [index for index, count in enumerate(counts) if word in count]
        weight = math.log(1 + (len(passages) - len(holders) + 0.5) / (len(holders) + 0.5))
        for index in holders:
            count = counts[index][word]
            norm = k1 * (1 - b + b * lengths[index] / average)
            scores[index] += weight * count * (k1 + 1) / (count + norm)
    found = [index for index, score in enumerate(scores) if score > 0]
    return sorted(found, key=lambda index: -scores[index])


def words(text: str) -> list[str]:
    """Returns a text's words in lower case; of scripts without spaces, the pairs of characters."""
    found: list[str] = []
    for word in _WORDS.findall(text.lower()):
        if _WIDE.search(word):
            found += [word[i : i + 2] for i in range(max(len(word) - 1, 1))]
        else:
            found.append(_stem(word))
    return found


def _stem(word: str) -> str:
    """Takes the plural's s away, as the least that helps."""
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _pieces(text: str, length: int) -> Iterable[str]:
    """Yields paragraphs; those that are too long, in sentences; those too, in equal lengths."""
    for paragraph in _PARAGRAPHS.split(text):
        whole = paragraph.strip()
        if len(whole) <= length:
            yield from [whole] if whole else []
            continue
        line = ""
        for sentence in filter(None, map(str.strip, _SENTENCES.split(whole))):
            if line and len(line) + len(sentence) >= length:
                yield line
                line = ""
            if len(sentence) > length:
                yield from (sentence[i : i + length] for i in range(0, len(sentence), length))
            else:
                line = f"{line} {sentence}" if line else sentence
        if line:
            yield line


def _decoded(name: str, content: bytes) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name!r} is no text in UTF-8: save it as UTF-8") from error
    if "\0" in text:
        raise ValueError(f"{name!r} is no text: it holds zero bytes")
    return text.replace("\r\n", "\n")


def _pdf_pages(name: str, content: bytes) -> list[str]:
    """Reads a PDF in a process of its own, which a hostile file cannot take the server with."""
    script = Path(__file__).parent / "pdf_text.py"
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(script)],
            input=content,
            capture_output=True,
            timeout=PDF_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(
            f"{name!r} took longer than {PDF_TIMEOUT_S:g} seconds to read: split it"
        ) from error
    if done.returncode != 0:
        raise ValueError(f"{name!r} cannot be read as a PDF: it is damaged, encrypted or too large")
    pages: list[str] = json.loads(done.stdout)
    return pages
