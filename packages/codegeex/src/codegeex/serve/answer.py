"""A request for a completion, while it is answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, nullcontext
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from codegeex.complete import Completed, Completion, CompletionPiece, Options, Pending
from codegeex.hole import Hole
from codegeex.serve.code import CodeModel, code_of
from glm_core.infer.engine import RequestTimedOut
from glm_core.serve.access_log import notes_of
from glm_core.serve.service import note_outcome, prepared

_NOTHING = Completion("", (), 0.0, "length", "limit")


@dataclass
class Answering:
    """One request in the engine; giving up waiting for it gives it up."""

    request: Request
    model: CodeModel
    pending: Pending
    started: float
    """When it came, in `time.monotonic`."""

    async def whole(self) -> Completed:
        """Waits for the whole answer.

        Raises:
            RequestTimedOut: it took longer than the server allows.
            EngineError: there is none.
        """
        try:
            async with self._time():
                completed = await self.pending.aoutcome()
        except TimeoutError as error:
            raise RequestTimedOut(self._timeout_s) from error
        finally:
            self.pending.cancel()
        self._note(completed)
        return completed

    async def pieces(self) -> AsyncGenerator[CompletionPiece, None]:
        """Yields text as it becomes final; then `whole` has the rest to tell.

        Raises: as `whole`.
        """
        async with aclosing(self.pending.__aiter__()) as pieces:
            while True:
                try:
                    async with self._time():
                        piece = await anext(pieces, None)
                except TimeoutError as error:
                    raise RequestTimedOut(self._timeout_s) from error
                if piece is None:
                    return
                yield piece

    @property
    def _timeout_s(self) -> float:
        return code_of(self.request).service.config.request_timeout_s

    def _time(self) -> asyncio.Timeout:
        return asyncio.timeout(self.started + self._timeout_s - time.monotonic())

    def _note(self, completed: Completed) -> None:
        note_outcome(self.request, completed.usage, completed.timings)
        if code_of(self.request).service.config.log_prompts:
            notes_of(self.request)["answers"] = [choice.text for choice in completed.choices]


def best(completed: Completed) -> Completion:
    """Returns the best answer; an empty one where the prompt was only read."""
    return completed.choices[0] if completed.choices else _NOTHING


async def begin(
    request: Request, model: CodeModel, asked: Hole | str, options: Options
) -> Answering:
    """Asks a model for what goes into a hole, or behind a raw prompt.

    Args:
        asked: of a text, special tokens that it names are the model's own: it comes from a plugin
            that filled in a template.

    Raises:
        ValueError: it can never be answered.
        EngineBusy, EngineDraining: the engine takes no more.
    """
    _begin(request, model, asked)
    completer, started = model.completer, time.monotonic()
    if isinstance(asked, str):
        model.served.check_length(len(asked), "prompt")

    def submit() -> Pending:
        if isinstance(asked, str):
            return completer.submit_text(asked, options)
        return completer.submit(asked, options)

    async with code_of(request).turn(options.client) if options.newest_wins else nullcontext():
        pending = await prepared(submit)
    return Answering(request, model, pending, started)


def _begin(request: Request, model: CodeModel, asked: Hole | str) -> None:
    service = code_of(request).service
    service.begin(request, model.served)
    if service.config.log_prompts:
        notes_of(request)["prompt"] = _logged(asked)


def _logged(asked: Hole | str) -> Any:
    if isinstance(asked, str):
        return asked
    return {"prefix": asked.prefix, "suffix": asked.suffix, "path": asked.path}
