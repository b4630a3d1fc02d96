"""Twinny: Ollama's body at OpenAI's address, or any of the names for the length of an answer.

Its prompt is a template that it filled in itself. It looks for `response`, then for
`choices[0].text`: the answer has both.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import AliasChoices, Field

from codegeex.hole import Hole
from codegeex.serve.answer import Answering, begin, best
from codegeex.serve.code import code_of
from codegeex.serve.fields import Count, Sampled, options_of
from glm_core.serve.openai.chunks import usage_data
from glm_core.serve.sse import DONE, EventStream, event, while_connected

FIELDS = frozenset({"options", "keep_alive", "n_predict", "num_predict"})
"""By which its requests are told from OpenAI's."""
_LENGTH = AliasChoices("n_predict", "num_predict", "max_tokens")


class _Options(Sampled):
    """Ollama's options."""

    length: Count | None = Field(None, validation_alias=_LENGTH)


class TwinnyRequest(_Options):
    """A request for a completion."""

    model: str | None = None
    prompt: str
    suffix: str | None = None
    stream: bool = False
    options: _Options = Field(default_factory=lambda: _Options.model_validate({}))


async def complete(body: TwinnyRequest, request: Request) -> Response:
    """Answers a request, with what `options` say where both say something."""
    model = code_of(request).named(body.model)
    given = body.options.model_dump(exclude_none=True)
    both = body.model_copy(update=given)
    is_hole = both.suffix is not None
    asked = Hole(prefix=both.prompt, suffix=both.suffix or "") if is_hole else both.prompt
    answering = await begin(request, model, asked, options_of(both, both.length, model))
    reply = _Reply(answering)
    if body.stream:
        return await EventStream.begun(request, reply.stream())
    return JSONResponse(await while_connected(request, reply.whole()))


class _Reply:
    """The answer in both protocols' words."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": answering.model.name,
        }

    async def whole(self) -> dict[str, Any]:
        completed = await self._answering.whole()
        first = best(completed)
        usage = {"usage": usage_data([completed.usage])}
        return self._told(first.text, first.finish_reason) | usage

    async def stream(self) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._answering.pieces()) as pieces:
            async for piece in pieces:
                if piece.text:
                    yield event(self._told(piece.text, None))
        completed = await self._answering.whole()
        usage = {"usage": usage_data([completed.usage])}
        yield event(self._told("", best(completed).finish_reason) | usage) + DONE

    def _told(self, text: str, reason: str | None) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
        return self._head | {"response": text, "done": reason is not None, "choices": [choice]}
