"""A completion that is being made."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from dataclasses import replace

from codegeex.complete.answers import best_of, completion_of
from codegeex.complete.completion import Completed, Completion, CompletionPiece
from codegeex.complete.watch import AnswerWatch
from glm_core.infer.engine import Outcome, Piece, Ticket
from glm_core.tokenizer.protocol import Tokenizer


class Pending:
    """What one who asked holds: pieces as they come, the outcome, and the way to cancel.

        for piece in completer.submit(hole, options):
            print(piece.text, end="")

    Leaving the loop early, closing the iterator, or cancelling the task that iterates or waits
    cancels the request, as with the engine's tickets.

    Args:
        ticket: the request in the engine.
        watches: one for each of its answers.
        tokenizer: the model's.
        only_reads: whether nobody wants an answer.
        remember: is given what the model wrote, as it came, when it has ended.
    """

    def __init__(
        self,
        ticket: Ticket,
        watches: Sequence[AnswerWatch],
        tokenizer: Tokenizer,
        only_reads: bool = False,
        remember: Callable[[str], None] | None = None,
    ) -> None:
        self._ticket = ticket
        self._watches = watches
        self._tokenizer = tokenizer
        self._only_reads = only_reads
        self._remember = remember
        self._given = [0] * len(watches)
        self._ended: dict[int, Completion] = {}

    @property
    def id(self) -> str:
        """Unique in its engine."""
        return self._ticket.id

    @property
    def is_done(self) -> bool:
        """Whether there is an outcome, or will never be one."""
        return self._ticket.is_done

    def cancel(self) -> None:
        """Gives the request up: at the engine's next step it is gone."""
        self._ticket.cancel()

    def outcome(self) -> Completed:
        """Waits for the end. Whoever is interrupted while waiting cancels the request.

        Raises:
            EngineError: there is no outcome: RequestFailed, RequestCancelled or EngineFailed.
        """
        return self._completed(self._ticket.outcome())

    async def aoutcome(self) -> Completed:
        """As `outcome`, in an asyncio loop; a task cancelled while waiting cancels the request."""
        return self._completed(await self._ticket.aoutcome())

    def __iter__(self) -> Generator[CompletionPiece, None, None]:
        """Yields text that is final, piece by piece, until every answer has ended.

        Raises:
            EngineError: as `outcome`; after the last piece.
        """
        for piece in self._ticket:
            if (new := self._new(piece)) is not None:
                yield new

    async def __aiter__(self) -> AsyncGenerator[CompletionPiece, None]:
        """As `__iter__`, in an asyncio loop."""
        pieces = self._ticket.__aiter__()
        try:
            async for piece in pieces:
                if (new := self._new(piece)) is not None:
                    yield new
        finally:
            await pieces.aclose()

    def _new(self, piece: Piece) -> CompletionPiece | None:
        if self._only_reads:
            return None
        choice = piece.choice
        end = None
        if piece.end is not None:
            end = self._ended[choice] = completion_of(
                choice, piece.end, self._watches[choice], self._tokenizer
            )
        text = self._watches[choice].shaper.shown[self._given[choice] :]
        self._given[choice] += len(text)
        return CompletionPiece(choice, text, end) if text or end else None

    def _completed(self, outcome: Outcome) -> Completed:
        if self._only_reads:
            usage = replace(outcome.usage, completion=0)
            return Completed((), usage, outcome.timings)
        if self._remember is not None:
            self._remember(outcome.choices[0][0].text)
        for choice, (answer,) in enumerate(outcome.choices):
            if choice not in self._ended:
                self._ended[choice] = completion_of(
                    choice, answer, self._watches[choice], self._tokenizer
                )
        ended = [self._ended[choice] for choice in range(len(self._watches))]
        return Completed(best_of(ended), outcome.usage, outcome.timings)
