"""Streams text from ids without ever showing half a character."""

from __future__ import annotations

import codecs

from glm_core.tokenizer.protocol import Tokenizer


class IncrementalDecoder:
    """Turns ids into text one at a time; bytes wait until their character is complete."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """Text that became complete with `token`; may be empty."""
        return self._decoder.decode(self._tokenizer.decode_bytes([token]))

    def flush(self) -> str:
        """What is left at the end: U+FFFD if a character never became complete."""
        return self._decoder.decode(b"", final=True)
