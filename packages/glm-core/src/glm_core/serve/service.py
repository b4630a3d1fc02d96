"""What every router of the server works with: models, limits, the way into the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar

import anyio.to_thread
from fastapi import Request

from glm_core.infer.engine import (
    EngineRequest,
    EngineStats,
    Outcome,
    Pending,
    Piece,
    Ticket,
    Timings,
    Usage,
)
from glm_core.serve.access_log import notes_of
from glm_core.serve.config import ServeConfig
from glm_core.serve.errors import draining
from glm_core.serve.metrics import Metrics
from glm_core.serve.models import Models, ServedModel

if TYPE_CHECKING:
    from torch import Tensor

Result = TypeVar("Result")


class Service:
    """One server's models and what is counted of them; in `app.state.service`.

    Args:
        models: what is served.
        config: limits.
    """

    def __init__(self, models: Models, config: ServeConfig) -> None:
        self.models = models
        self.config = config
        self.metrics = Metrics(self._stats)
        self.is_draining = False
        """Set when the server was told to stop: running requests may end, new ones are refused."""

    def embed(
        self, request: Request, served: ServedModel, texts: Sequence[Sequence[int]]
    ) -> Pending[Tensor]:
        """Asks the model's engine for the vectors of texts, given as tokens.

        Raises:
            EngineBusy, EngineDraining: it takes no more.
            ValueError: a text is wrong.
        """
        self.begin(request, served)
        return served.engine.embed(texts)

    def submit(
        self, request: Request, served: ServedModel, asked: Sequence[EngineRequest]
    ) -> list[Ticket]:
        """Hands requests to the model's engine: all of them or none.

        Raises:
            EngineBusy, EngineDraining: it takes no more.
            ValueError: one of them is wrong.
        """
        self.begin(request, served)
        tickets: list[Ticket] = []
        try:
            for one in asked:
                tickets.append(served.engine.submit(one))
        except BaseException:
            cancel(tickets)
            raise
        return tickets

    def begin(self, request: Request, served: ServedModel) -> None:
        """Notes what a request asks for; to be called before the model is given work.

        Raises:
            ApiError: the server is about to stop.
        """
        if self.is_draining:
            raise draining(self.config.retry_after_s)
        notes_of(request)["model"] = served.name

    def _stats(self) -> Mapping[str, EngineStats]:
        """With adapters a model is served under several names, but has one engine."""
        return {model.name: model.engine.stats() for model in self.models if not model.adapter}


def note_outcome(request: Request, usage: Usage, timings: Timings) -> None:
    """Lets the access log tell what the engine did for a request."""
    notes = notes_of(request)
    for name in ("prompt", "cached", "completion"):
        key = f"{name}_tokens"
        notes[key] = notes.get(key, 0) + getattr(usage, name)
    notes["first_token_seconds"] = round(timings.first_token_s, 4)


def service_of(request: Request) -> Service:
    """Returns the service of the app that a request came to."""
    service: Service = request.app.state.service
    return service


async def prepared(work: Callable[[], Result]) -> Result:
    """Does work that takes the processor, such as reading long texts into tokens, in a thread."""
    return await anyio.to_thread.run_sync(work)


async def outcomes_of(tickets: Sequence[Ticket]) -> list[Outcome]:
    """Waits for all; when one fails, or the caller is cancelled, the others are cancelled."""
    try:
        return list(await asyncio.gather(*(ticket.aoutcome() for ticket in tickets)))
    finally:
        cancel(tickets)


async def pieces_of(tickets: Sequence[Ticket]) -> AsyncGenerator[tuple[int, Piece], None]:
    """Yields each ticket's index and pieces as they come; closing it cancels what is left."""
    if len(tickets) == 1:
        async with aclosing(tickets[0].__aiter__()) as pieces:
            async for piece in pieces:
                yield 0, piece
        return
    queue: asyncio.Queue[tuple[int, Piece | BaseException | None]] = asyncio.Queue()
    readers = [
        asyncio.ensure_future(_read(index, ticket, queue)) for index, ticket in enumerate(tickets)
    ]
    num_open = len(tickets)
    try:
        while num_open:
            index, news = await queue.get()
            if news is None:
                num_open -= 1
            elif isinstance(news, BaseException):
                raise news
            else:
                yield index, news
    finally:
        cancel(tickets)
        for reader in readers:
            reader.cancel()


def cancel(tickets: Sequence[Ticket]) -> None:
    """Gives up whatever of them has not ended."""
    for ticket in tickets:
        ticket.cancel()


async def _read(
    index: int, ticket: Ticket, queue: asyncio.Queue[tuple[int, Piece | BaseException | None]]
) -> None:
    try:
        async with aclosing(ticket.__aiter__()) as pieces:
            async for piece in pieces:
                queue.put_nowait((index, piece))
    except Exception as error:
        queue.put_nowait((index, error))
    queue.put_nowait((index, None))
