"""One answer while it comes: its pieces, and at any moment what is known of it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from glm_core.infer.answer import Answer, FinishReason
from glm_core.infer.generate import Decoder


@dataclass(frozen=True)
class Piece:
    """What one token brought."""

    text: str
    """Characters that became certain; may be empty."""
    mark: int | None = None
    """The token, if it is one of the marks that the answer may hold."""


class IdsStream:
    """An answer, decoded as it is iterated over; stopping to iterate stops the model.

    Args:
        decoder: of one prompt with one blank.
        evaluating: holds the model in evaluation mode while the answer is decoded.
    """

    def __init__(self, decoder: Decoder, evaluating: AbstractContextManager[None]) -> None:
        self._decoder = decoder
        self._pieces = self._run(evaluating)

    def __iter__(self) -> Iterator[Piece]:
        return self._pieces

    @property
    def num_context_tokens(self) -> int:
        """Tokens that the model read before it answered."""
        return len(self._decoder.requests[0].prompt.context_ids) + len(self._decoder.opening)

    @property
    def tokens(self) -> list[int]:
        """The answer's tokens so far, marks included and the end left out."""
        return list(self._answer.tokens) if self._answer else []

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the answer ended; None while it has not."""
        return self._answer.finish_reason if self._answer else None

    @property
    def stop_id(self) -> int | None:
        """The token with which the model ended the answer."""
        return self._answer.stop_id if self._answer else None

    def close(self) -> None:
        """Ends the decoding; what has come stays known."""
        self._pieces.close()

    @property
    def _answer(self) -> Answer | None:
        answers = self._decoder.requests[0].answers
        return answers[0] if answers else None

    def _run(self, evaluating: AbstractContextManager[None]) -> Generator[Piece, None, None]:
        seen = 0
        with evaluating:
            for delta in self._decoder.run():
                new = self._answer.tokens[seen:] if self._answer else []
                seen += len(new)
                is_mark = bool(new) and new[-1] in self._decoder.vocabulary.marks
                yield Piece(delta.text, new[-1] if is_mark else None)
