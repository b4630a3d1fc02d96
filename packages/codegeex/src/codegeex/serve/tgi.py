"""Text Generation Inference: `/generate`, `/generate_stream`, `/info`; llm-ls speaks it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import AliasChoices, Field

from codegeex.complete import Completed
from codegeex.serve.answer import Answering, begin, best
from codegeex.serve.code import code_of
from codegeex.serve.fields import Count, Lenient, Sampled, Stops, options_of
from glm_core import __version__
from glm_core.serve.openai.fields import BadField
from glm_core.serve.service import service_of
from glm_core.serve.sse import EventStream, event, while_connected

router = APIRouter(tags=["Text Generation Inference"])
_DEFAULT_TOKENS = 100


class Parameters(Sampled):
    """How to answer."""

    stop: Stops | None = Field(None, validation_alias=AliasChoices("stop", "stop_tokens"))
    max_new_tokens: Count | None = None
    do_sample: bool | None = Field(None, description="False: greedy, whatever the temperature")
    return_full_text: bool = False
    details: bool = False
    best_of: Annotated[int, Field(ge=1, le=16)] | None = None


class TgiRequest(Lenient):
    """A request for a text that goes on."""

    inputs: str
    parameters: Parameters | None = None
    stream: bool = False


@router.post("/generate", summary="Go on with a text (TGI)")
async def generate(body: TgiRequest, request: Request) -> Response:
    reply = await _reply(body, request)
    return JSONResponse(await while_connected(request, reply.whole()))


@router.post("/generate_stream", summary="The same as server-sent events (TGI)")
async def generate_stream(body: TgiRequest, request: Request) -> Response:
    return await EventStream.begun(request, (await _reply(body, request)).stream())


async def compat(body: TgiRequest, request: Request) -> Response:
    """Answers at `/`, as endpoints of Hugging Face do: a list where nothing is streamed."""
    reply = await _reply(body, request)
    if body.stream:
        return await EventStream.begun(request, reply.stream())
    return JSONResponse([await while_connected(request, reply.whole())])


@router.get("/info", summary="About the model (TGI)")
async def info(request: Request) -> JSONResponse:
    model, service = code_of(request).default, service_of(request)
    engine = model.completer.engine
    return JSONResponse(
        {
            "model_id": model.name,
            "model_sha": None,
            "model_dtype": str(engine.model.dtype),
            "model_device_type": engine.model.device.type,
            "model_pipeline_tag": "text-generation",
            "max_concurrent_requests": engine.config.max_queued,
            "max_best_of": engine.config.max_running,
            "max_stop_sequences": 128,
            "max_input_tokens": model.completer.context - 1,
            "max_total_tokens": model.completer.context,
            "max_batch_size": engine.config.max_running,
            "max_client_batch_size": 1,
            "payload_limit": service.config.max_body_bytes,
            "router": "codegeex",
            "version": __version__,
            "sha": None,
            "docker_label": None,
        }
    )


async def _reply(body: TgiRequest, request: Request) -> _Reply:
    if not body.inputs:
        raise BadField("inputs", "is empty: it must hold some text")
    model, asked = code_of(request).default, body.parameters or Parameters.model_validate({})
    if asked.do_sample is False:
        asked.temperature = 0.0
    elif asked.do_sample and asked.temperature is None:
        asked.temperature = 1.0
    options = options_of(
        asked,
        asked.max_new_tokens,
        model,
        default_tokens=_DEFAULT_TOKENS,
        num_choices=1 if body.stream else asked.best_of or 1,
        logprobs=0 if asked.details else None,
    )
    return _Reply(await begin(request, model, body.inputs, options), body.inputs, asked)


class _Reply:
    """The answer in TGI's words."""

    def __init__(self, answering: Answering, inputs: str, asked: Parameters) -> None:
        self._answering, self._asked = answering, asked
        full = asked.return_full_text
        self._before = inputs.encode(errors="replace").decode() if full else ""

    async def whole(self) -> dict[str, Any]:
        completed = await self._answering.whole()
        told: dict[str, Any] = {"generated_text": self._before + best(completed).text}
        if self._asked.details:
            told["details"] = self._details(completed)
        return told

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """An event for each piece that is final; the last has the whole text too."""
        index, text = 0, self._before
        async with aclosing(self._answering.pieces()) as pieces:
            async for piece in pieces:
                if piece.text:
                    index, text = index + 1, text + piece.text
                    yield event(self._token(index, piece.text))
        completed = await self._answering.whole()
        last = self._token(index + 1, "") | {"generated_text": text}
        yield event(last | {"details": self._details(completed, is_brief=True)})

    def _token(self, index: int, text: str) -> dict[str, Any]:
        """Tells a piece; it can be a part of a token, or several, so it has no probability."""
        tokenizer = self._answering.model.completer.tokenizer
        ids = tokenizer.encode(text) if text else [tokenizer.eos_id]
        token = {"id": ids[-1], "text": text, "logprob": None, "special": not text}
        return {"index": index, "token": token, "generated_text": None, "details": None}

    def _details(self, completed: Completed, is_brief: bool = False) -> dict[str, Any]:
        first = best(completed)
        reasons = {"eos": "eos_token", "limit": "length"}
        told: dict[str, Any] = {
            "finish_reason": reasons.get(first.stop_type, "stop_sequence"),
            "generated_tokens": completed.usage.completion,
            "seed": self._asked.seed,
        }
        if is_brief:
            return told | {"input_length": completed.usage.prompt}
        tokenizer = self._answering.model.completer.tokenizer
        tokens = [
            {
                "id": one.token,
                "text": tokenizer.decode([one.token]),
                "logprob": one.logprob,
                "special": False,
            }
            for one in first.logprobs
        ]
        return told | {"prefill": [], "tokens": tokens}
