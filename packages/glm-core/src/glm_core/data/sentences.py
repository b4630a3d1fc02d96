"""Where sentences end in a row of tokens, from three tables over the vocabulary."""

from __future__ import annotations

import numpy as np

from glm_core.data.batch import Ints
from glm_core.tokenizer.protocol import Tokenizer

_CLOSING = "\"'`)]}*”’»"
_ENDS = (".", "?", "!", ";", ":")
_FULL_WIDTH_ENDS = ("。", "？", "！", "；", "：")

Bools = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


class SentenceEnds:
    """Finds sentence ends with table look-ups.

    A sentence ends after a token that closes with . ? ! ; or : (quotes and brackets may follow)
    when the next token begins with white space, so "os.path" and "1.5" are whole; after full-width
    punctuation; after a blank line; and after the end of a document. A single line break is no
    end: documentation is wrapped at 79 columns. White space other than a blank line belongs to
    the next sentence.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        pieces = [
            tokenizer.decode_bytes([token]).decode("utf-8", errors="ignore")
            for token in range(tokenizer.vocab_size)
        ]
        closed = [piece.rstrip(_CLOSING) for piece in pieces]
        self.punctuation_V = np.array([piece.endswith(_ENDS) for piece in closed])
        self.full_width_V = np.array([piece.endswith(_FULL_WIDTH_ENDS) for piece in closed])
        self.space_V = np.array([piece[:1].isspace() for piece in pieces])
        # line breaks in pieces of white space; a blank line is two in a row, often two pieces
        self.line_breaks_V = np.array(
            [piece.count("\n") if piece.isspace() else 0 for piece in pieces], dtype=np.int64
        )
        self.space_V[tokenizer.eos_id] = True
        self.line_breaks_V[tokenizer.eos_id] = 2

    def after(self, tokens_T: Ints) -> Bools:
        """Whether a sentence ends right after each token; the last token's successor is unknown.

        Args:
            tokens_T: ids, int (T,).

        Returns:
            bool (T,).
        """
        breaks_T = self.line_breaks_V[tokens_T]
        stops_T = self.punctuation_V[tokens_T]
        stops_T[:-1] &= self.space_V[tokens_T[1:]]
        stops_T |= self.full_width_V[tokens_T]
        # a blank line that follows still belongs to the sentence before it
        stops_T[:-1] &= ~_blank_line_from(breaks_T)[1:]
        return stops_T | _blank_line_to(breaks_T)

    def paragraphs_after(self, tokens_T: Ints) -> Bools:
        """Whether a blank line or a document ends right after each token, bool (T,)."""
        return _blank_line_to(self.line_breaks_V[tokens_T])


def _blank_line_from(breaks_T: Ints) -> Bools:
    """Whether a blank line begins at each token."""
    with_next = breaks_T.copy()
    with_next[:-1] += breaks_T[1:]
    found: Bools = (breaks_T > 0) & (with_next >= 2)
    return found


def _blank_line_to(breaks_T: Ints) -> Bools:
    """Whether a blank line ends at each token."""
    with_previous = breaks_T.copy()
    with_previous[1:] += breaks_T[:-1]
    found: Bools = (breaks_T > 0) & (with_previous >= 2)
    found[:-1] &= breaks_T[1:] == 0
    return found
