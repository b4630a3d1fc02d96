"""What nano-code has to be better than: guesses at a line that only count."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from codegeex.hole import Hole
from glm_core.evaluate.ngram import KneserNey
from glm_core.tokenizer.protocol import Tokenizer

MOST_TOKENS = 64


class NgramLine:
    """The most probable next token of an n-gram model, again and again, to the end of the line.

    It sees what stands before the hole, and nothing behind it. The white space before the hole is
    taken back and must be written again: alone it is read into other tokens than before a word.

    Args:
        model: counted on the training tokens.
        tokenizer: of the tokens.
    """

    def __init__(self, model: KneserNey, tokenizer: Tokenizer) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._specials = sorted(tokenizer.special_ids - {tokenizer.eos_id})
        self._pieces = [tokenizer.decode_bytes([token]) for token in range(tokenizer.vocab_size)]

    def complete(self, hole: Hole) -> str:
        """Returns the guess."""
        seen = hole.prefix.rstrip()
        forced = hole.prefix[len(seen) :].encode()
        ids = self._tokenizer.encode(seen[-1000:])
        written = b""
        for _ in range(MOST_TOKENS):
            probability_V = self._model.next_probabilities(ids)
            probability_V[self._specials] = 0.0
            if len(written) < len(forced):
                probability_V *= self._fitting(forced[len(written) :])
            token = int(probability_V.argmax())
            if token == self._tokenizer.eos_id:
                break
            ids.append(token)
            written += self._pieces[token]
            if b"\n" in written[len(forced) :].lstrip():
                break
        return written[len(forced) :].decode("utf-8", errors="ignore")

    def _fitting(self, forced: bytes) -> np.ndarray:
        """Returns 1 for ids that begin the forced text or begin with it, [vocab_size]."""
        fits = [
            bool(piece) and (forced.startswith(piece) or piece.startswith(forced))
            for piece in self._pieces
        ]
        return np.asarray(fits, dtype=np.float64)


class NextLine:
    """The line that most often follows the line before; of all lines the most frequent one.

    Lines are compared without their indentation. Only the lines before the holes are counted, so
    that memory does not grow with the corpus.

    Args:
        holes: that will be asked about.
        texts: training documents.
    """

    def __init__(self, holes: Iterable[Hole], texts: Iterable[str]) -> None:
        wanted = {_line_before(hole) for hole in holes}
        following: dict[str, Counter[str]] = defaultdict(Counter)
        anywhere: Counter[str] = Counter()
        for text in texts:
            lines = [line.strip() for line in text.split("\n") if line.strip()]
            anywhere.update(set(lines))
            for before, line in zip(lines, lines[1:], strict=False):
                if before in wanted:
                    following[before][line] += 1
            if len(anywhere) > 1_000_000:
                anywhere = Counter(dict(anywhere.most_common(100_000)))
        self._best = {before: counts.most_common(1)[0][0] for before, counts in following.items()}
        self._most_frequent = anywhere.most_common(1)[0][0] if anywhere else ""

    def complete(self, hole: Hole) -> str:
        """Returns the guess."""
        return self._best.get(_line_before(hole), self._most_frequent)


def _line_before(hole: Hole) -> str:
    """Returns the last line before the hole that is not blank, without its indentation."""
    lines: Sequence[str] = hole.prefix[-4000:].rstrip().split("\n")
    return lines[-1].strip()
