"""Streams text from ids without ever showing half a character."""

from __future__ import annotations

import codecs

from glm_core.tokenizer.protocol import Tokenizer


class IncrementalDecoder:
    """Turns ids into text one at a time; bytes wait until their character is complete.

    Args:
        tokenizer: knows the ids.
        continues: whether the ids go on from other text, so that a space before their first word
            is theirs. Otherwise they are a text of their own, as an answer in a chat is: all that
            is pushed is together what `tokenizer.decode` gives, without the space that a
            SentencePiece model puts before every text.
    """

    def __init__(self, tokenizer: Tokenizer, continues: bool = False) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._head: list[int] | None = None if continues else []

    @property
    def is_whole(self) -> bool:
        """Whether no byte waits for the rest of its character."""
        return not self._decoder.getstate()[0]

    def push(self, token: int) -> str:
        """Text that became complete with `token`; may be empty."""
        piece = self._tokenizer.decode_bytes([token])
        if self._head is not None:
            piece = self._without_first_space(self._head, token, piece)
        return self._decoder.decode(piece)

    def flush(self) -> str:
        """What is left at the end: U+FFFD if a character never became complete."""
        return self._decoder.decode(b"", final=True)

    def _without_first_space(self, head: list[int], token: int, piece: bytes) -> bytes:
        """Drops the space of `piece` if decoding from the beginning drops it."""
        head.append(token)
        shown = self._tokenizer.decode(head)
        if piece.startswith(b" ") and shown == piece[1:].decode("utf-8", errors="replace"):
            piece = piece[1:]
        if shown:
            self._head = None  # only the beginning is treated so
        return piece
