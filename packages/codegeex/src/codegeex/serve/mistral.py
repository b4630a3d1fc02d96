"""`POST /v1/fim/completions`, as Mistral has it: Continue's native way to fill in."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from codegeex.hole import Hole
from codegeex.serve.answer import Answering, begin, best
from codegeex.serve.code import code_of
from codegeex.serve.fields import Count, Sampled, options_of
from glm_core.serve.openai.chunks import Envelope, usage_data
from glm_core.serve.sse import DONE, EventStream, while_connected

router = APIRouter(tags=["Mistral"])


class FimRequest(Sampled):
    """A request for what goes between two texts."""

    model: str | None = None
    prompt: str
    suffix: str | None = None
    max_tokens: Count | None = None
    random_seed: int | None = Field(None, description="As seed")
    stream: bool = False


@router.post("/v1/fim/completions", summary="Fill in between two texts (Mistral)")
async def fim_completions(body: FimRequest, request: Request) -> Response:
    model = code_of(request).named(body.model)
    if body.seed is None:
        body.seed = body.random_seed
    hole = Hole(prefix=body.prompt, suffix=body.suffix or "")
    reply = _Reply(await begin(request, model, hole, options_of(body, body.max_tokens, model)))
    if body.stream:
        return await EventStream.begun(request, reply.stream())
    return JSONResponse(await while_connected(request, reply.whole()))


class _Reply:
    """The answer as that of a chat."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._envelope = Envelope(
            "fim", "chat.completion", "chat.completion.chunk", answering.model.name, has_usage=True
        )

    async def whole(self) -> dict[str, Any]:
        completed = await self._answering.whole()
        first = best(completed)
        message = {"role": "assistant", "content": first.text, "tool_calls": None}
        choice = {"index": 0, "message": message, "finish_reason": first.finish_reason}
        return self._envelope.whole([choice], usage_data([completed.usage]))

    async def stream(self) -> AsyncGenerator[bytes, None]:
        role = {"role": "assistant"}
        async with aclosing(self._answering.pieces()) as pieces:
            async for piece in pieces:
                if piece.text:
                    yield self._chunk(role | {"content": piece.text})
                    role = {}
        completed = await self._answering.whole()
        yield self._chunk(role | {"content": ""}, best(completed).finish_reason)
        yield self._envelope.last(usage_data([completed.usage])) + DONE

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> bytes:
        return self._envelope.chunk({"index": 0, "delta": delta, "finish_reason": reason})
