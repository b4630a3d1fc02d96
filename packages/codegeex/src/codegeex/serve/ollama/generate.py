"""`POST /api/generate`: what goes between `prompt` and `suffix`, or on behind `prompt`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from codegeex.hole import Hole
from codegeex.serve.answer import Answering, begin, best
from codegeex.serve.fields import options_of
from codegeex.serve.ollama.chat import ChatBody, Conversation
from codegeex.serve.ollama.schema import (
    DEFAULT_TOKENS,
    OllamaRequest,
    check_images,
    code_model_of,
    figures,
    now,
    served_of,
)
from glm_core.serve.openai.fields import BadField
from glm_core.serve.sse import LineStream, line, while_connected

router = APIRouter()


class GenerateRequest(OllamaRequest):
    """A request for a text."""

    prompt: str | None = None
    suffix: str | None = Field(None, description="Text behind the answer")
    system: str | None = Field(None, description="For models that chat")
    raw: bool | None = Field(None, description="No template of a chat around the prompt")
    images: list[Any] | None = Field(None, description="None: this model has no eyes")


@router.post("/api/generate", summary="Fill in, or go on with a text (Ollama)")
async def generate(body: GenerateRequest, request: Request) -> Response:
    served = served_of(request, body.model)
    check_images(body.images)
    if not body.prompt and not body.suffix:
        return JSONResponse(_loaded(body))
    model = code_model_of(request, served)
    is_hole = bool(body.suffix) or (body.suffix is not None and not body.raw)
    if not is_hole and not body.raw and served.chat_format.name != "transcript":
        return await _as_chat(body, request)
    if model is None:
        raise BadField("model", f"{served.name!r} does not complete code: ask it at /api/chat")
    if body.format:
        raise BadField("format", "goes with chats only: leave it away, or ask at /api/chat")
    # A prompt alone can be a template that the plugin filled in; between two texts nothing is.
    prompt = body.prompt or ""
    asked = Hole(prefix=prompt, suffix=body.suffix or "") if is_hole else prompt
    options = options_of(
        body.options, body.options.num_predict, model, default_tokens=DEFAULT_TOKENS
    )
    reply = _Reply(await begin(request, model, asked, options), body.model)
    if body.stream:
        return await LineStream.begun(request, reply.stream())
    return JSONResponse(await while_connected(request, reply.whole()))


class _Reply:
    """The answer in Ollama's words."""

    def __init__(self, answering: Answering, name: str) -> None:
        self._answering, self._name = answering, name

    async def whole(self) -> dict[str, Any]:
        completed = await self._answering.whole()
        first = best(completed)
        last = {"done": True, "done_reason": first.finish_reason}
        return self._told(first.text) | last | figures(completed.usage, completed.timings)

    async def stream(self) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._answering.pieces()) as pieces:
            async for piece in pieces:
                if piece.text:
                    yield line(self._told(piece.text) | {"done": False})
        whole = await self.whole()
        yield line(whole | {"response": ""})

    def _told(self, text: str) -> dict[str, Any]:
        return {"model": self._name, "created_at": now(), "response": text}


def _loaded(body: GenerateRequest) -> dict[str, Any]:
    """Answers one who only wants the model to be loaded, or gone: it is always there."""
    reason = "unload" if body.keep_alive in (0, "0", "0s") else "load"
    told = {"model": body.model, "created_at": now(), "response": ""}
    return told | {"done": True, "done_reason": reason}


async def _as_chat(body: GenerateRequest, request: Request) -> Response:
    """Asks a model that chats, as Ollama does with its template."""
    system = [{"role": "system", "content": body.system}] if body.system else []
    fields = body.model_dump(include={"model", "stream", "options", "format", "keep_alive"})
    messages = [*system, {"role": "user", "content": body.prompt or ""}]
    asked = ChatBody.model_validate(fields | {"messages": messages})
    conversation = await Conversation.begun(asked, request, as_text=True)
    return await conversation.response(request)
