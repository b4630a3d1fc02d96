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
        self.blank_line_V = np.array([piece.count("\n") >= 2 for piece in pieces])
        self.space_V[tokenizer.eos_id] = self.blank_line_V[tokenizer.eos_id] = True

    def after(self, tokens_T: Ints) -> Bools:
        """Whether a sentence ends right after each token; the last token's successor is unknown.

        Args:
            tokens_T: ids, int (T,).

        Returns:
            bool (T,).
        """
        ends_T: Bools = self.blank_line_V[tokens_T] | self.full_width_V[tokens_T]
        stops_T = self.punctuation_V[tokens_T]
        next_T = tokens_T[1:]
        ends_T[:-1] |= stops_T[:-1] & self.space_V[next_T]
        ends_T[-1:] |= stops_T[-1:]
        # a blank line that follows still belongs to the sentence before it
        ends_T[:-1] &= ~self.blank_line_V[next_T]
        return ends_T
